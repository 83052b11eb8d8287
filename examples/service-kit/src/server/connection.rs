//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request},
    http::{HeaderValue, header::CONNECTION},
    response::Response,
};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower_service::Service as _;

use super::{
    Bounds,
    activity::Activity,
    peers::Place,
    socket::{into_stream, socket},
    stream::TimedStream,
};

/// How long what a client has sent may take from the system to this process, before its connection
/// counts as unused.
const ARRIVAL: Duration = Duration::from_millis(5);
/// How long a client may take to notice that its connection has ended, and how much it may send
/// meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

/// An answer's body. A stream of events is answered for as long as it lasts: its connection isn't
/// unused. But it may last for ever, so it ends when its place is needed.
struct AnswerBody {
    body: Body,
    /// Of a stream.
    needed: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _end: End,
}

impl AnswerBody {
    /// One whose length nobody knows is a stream.
    fn new(body: Body, activity: Arc<Activity>, evicted: CancellationToken) -> Self {
        let streams = body.size_hint().exact().is_none();
        if streams {
            activity.streams();
        }
        Self { body, needed: streams.then(|| Box::pin(evicted.cancelled_owned())), _end: End(activity) }
    }
}

/// The end of an answer, however it comes.
struct End(Arc<Activity>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.answered();
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.needed.as_mut().is_some_and(|needed| needed.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How a server ends its connections. A clone is the same server's.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    /// Every answer ends its connection from now on.
    pub(super) answers_close: CancellationToken,
    /// Connections without a request are closed.
    pub(super) close_unused: CancellationToken,
}

/// Serves one connection.
pub(super) async fn serve(stream: TcpStream, router: Router, place: Place, ending: Ending, bounds: Bounds) {
    let Place { activity, evicted, .. } = &place;
    let Ok(peer) = stream.peer_addr() else { return };
    let Some((stream, hand)) = socket(stream) else { return };
    let service = service_fn({
        let (activity, evicted, ending) = (activity.clone(), evicted.clone(), ending.clone());
        move |mut request: Request<Incoming>| {
            activity.request_read();
            hand.give(&mut request);
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router.clone().call(request);
            let (activity, evicted, ending) = (activity.clone(), evicted.clone(), ending.clone());
            let answer = async move {
                let mut answer: Response = answer.await?;
                if ending.answers_close.is_cancelled() || evicted.is_cancelled() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| AnswerBody::new(body, activity, evicted)))
            };
            Box::pin(answer) as Pin<Box<dyn Future<Output = _> + Send>>
        }
    });
    let stream = TimedStream::new(stream, activity.clone(), bounds.head, bounds.write);
    let mut http = http1::Builder::new();
    // hyper's timer runs while there is no whole head, so with the stream's own it is the one for
    // idle connections.
    http.timer(TokioTimer::new()).header_read_timeout(bounds.idle);
    let mut connection = http.serve_connection(TokioIo::new(stream), service);

    let unused = async {
        ending.close_unused.cancelled().await;
        // A request that is here already is read, and answered, before the connection is looked at.
        sleep(ARRIVAL).await;
    };
    let mut unused = std::pin::pin!(unused);
    let (mut looked, mut busy_when_evicted) = (false, false);
    let ended = loop {
        tokio::select! {
            // The connection first: it reads what has arrived.
            biased;
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = evicted.cancelled(), if !busy_when_evicted => {
                if activity.is_between_requests() || activity.is_streaming() {
                    // hyper closes it at once, or when what it is still writing is gone.
                    Pin::new(&mut connection).graceful_shutdown();
                } else if !activity.is_answering() {
                    return;
                }
                // It ends with its answer.
                busy_when_evicted = true;
            }
            () = &mut unused, if !looked => {
                looked = true;
                if activity.is_between_requests() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    };
    match ended {
        Ok(()) => linger(into_stream(connection.into_parts().io.into_inner().into_inner())).await,
        Err(error) => tracing::debug!(%error, "a connection broke"),
    }
}

/// Ends a connection so that the last answer arrives. Closed with bytes unread, it would be reset,
/// and a reset takes along what the client hasn't read yet.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_ok() {
        let mut rest = stream.take(LINGER_BYTES);
        // However it goes, the connection has ended.
        let _ = timeout(LINGER, copy(&mut rest, &mut sink())).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{net::TcpListener, task::JoinHandle};

    use super::{super::peers::Peers, *};
    use crate::limits::Limits;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A client's end of a connection that has answered a request, and how it will be ended.
    async fn kept_alive() -> (TcpStream, Ending, JoinHandle<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let place = Peers::new(10, 10).admit(peer.ip()).unwrap();
        let router = Router::new().route("/", get(async || "fine"));
        let ending = Ending::default();
        let served = tokio::spawn(serve(stream, router, place, ending.clone(), Limits::default().bounds()));
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"fine") {
            client.read_buf(&mut answer).await.unwrap();
        }
        (client, ending, served)
    }

    async fn rest(mut client: TcpStream) -> String {
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        rest
    }

    #[tokio::test]
    async fn a_request_that_came_before_the_end_is_answered_though_nobody_has_read_it() {
        let (client, ending, served) = kept_alive().await;
        // On one thread nothing runs between these.
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        ending.answers_close.cancel();
        ending.close_unused.cancel();
        let answer = rest(client).await;
        assert!(answer.contains("connection: close") && answer.ends_with("fine"), "{answer:?}");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn half_a_request_that_came_before_the_end_may_be_finished() {
        let (mut client, ending, served) = kept_alive().await;
        let (half, other_half) = REQUEST.split_at(10);
        client.write_all(half).await.unwrap();
        ending.answers_close.cancel();
        ending.close_unused.cancel();
        sleep(ARRIVAL * 4).await;
        client.write_all(other_half).await.unwrap();
        let answer = rest(client).await;
        assert!(answer.contains("connection: close") && answer.ends_with("fine"), "{answer:?}");
        served.await.unwrap();
    }

    /// It was cut off in the middle: an answer that nobody has read yet was taken for no work.
    #[tokio::test]
    async fn one_that_gives_way_to_another_gets_the_whole_of_its_last_answer() {
        const LENGTH: usize = 16 * 1024 * 1024;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let place = Peers::new(10, 10).admit(peer.ip()).unwrap();
        let evicted = place.evicted.clone();
        let router = Router::new().route("/", get(async || vec![b'x'; LENGTH]));
        let served =
            tokio::spawn(serve(stream, router, place, Ending::default(), Limits::default().bounds()));
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        client.read_buf(&mut answer).await.unwrap();
        evicted.cancel();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.len() > LENGTH, "{} bytes", answer.len());
        served.await.unwrap();
    }

    #[tokio::test]
    async fn an_unused_connection_ends_without_a_reset() {
        let (client, ending, served) = kept_alive().await;
        ending.close_unused.cancel();
        assert_eq!(rest(client).await, "");
        served.await.unwrap();
    }
}
