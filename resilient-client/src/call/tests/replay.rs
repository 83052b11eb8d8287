//! Streamed request bodies that are sent more than once.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use super::script::ms;
use super::*;
use crate::error::BoxError;
use crate::outcome::Outcome;
use crate::outcome::report::Decline;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::time::now;
use crate::{ErrorKind, ReplayBody, SendOnce};

/// A body that can be read once.
type Stream = SendOnce<Full<Bytes>>;
type Upload = Request<ReplayBody<Stream>>;

fn stream(length: usize) -> Stream {
    SendOnce::new(Full::new(vec![b'x'; length].into()))
}

/// What the server did with each attempt, by number.
#[derive(Clone, Copy)]
enum Does {
    /// Reads the body, then answers.
    Answer(u16),
    /// Refuses the connection.
    Refuse,
    /// Reads the body and never answers.
    Hang,
}

/// An uploading call against a server that does one thing for each attempt.
async fn upload(
    policy: Policy,
    body: ReplayBody<Stream>,
    script: &'static [Does],
) -> (Response<ResponseBody<Full<Bytes>>>, Vec<usize>) {
    let (attempts, read) = (Arc::new(AtomicU32::new(0)), Arc::<Mutex<Vec<usize>>>::default());
    let seen = Arc::clone(&read);
    let server = service_fn(move |request: Upload| {
        let (seen, number) = (Arc::clone(&seen), attempts.fetch_add(1, Ordering::SeqCst));
        async move {
            let does = script[number as usize];
            if matches!(does, Does::Refuse) {
                return Err::<_, BoxError>("connection reset".into());
            }
            let body = request.into_body().collect().await?.to_bytes();
            seen.lock().unwrap().push(body.len());
            match does {
                Does::Answer(status) => Ok(Response::builder().status(status).body(Full::default())?),
                Does::Hang | Does::Refuse => std::future::pending().await,
            }
        }
    });
    let service = ResilienceLayer::new(policy).unwrap().layer(BoxCloneSyncService::new(server));
    let response = service.oneshot(Request::put(URL).body(body).unwrap()).await.unwrap();
    let read = read.lock().unwrap().clone();
    (response, read)
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fits_is_retried_whole() {
    let script = &[Does::Answer(503), Does::Answer(503), Does::Answer(200)];
    let (response, read) = upload(Policy::standard(), ReplayBody::new(stream(65_536)), script).await;
    assert_eq!(response.status(), 200);
    assert_eq!(read, [65_536; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_outgrew_its_buffer_is_sent_once_and_the_report_says_why() {
    let body = ReplayBody::new(stream(65_537));
    let (response, read) = upload(Policy::standard(), body, &[Does::Answer(503)]).await;
    assert_eq!((response.status().as_u16(), read), (503, vec![65_537]));
    let report = response.body().report();
    assert_eq!(report.declined(), [Decline::BodyNotKept]);
    assert!(report.to_string().ends_with("not retried: body is a stream longer than its replay buffer"));
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_is_retried_until_somebody_has_read_it() {
    let script = &[Does::Refuse, Does::Refuse, Does::Answer(200)];
    let (response, read) = upload(Policy::standard(), ReplayBody::new(stream(1_000_000)), script).await;
    assert_eq!(response.body().report().attempts().len(), 3);
    assert_eq!(read, [1_000_000]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_sent_as_often_as_allowed_was_not_outgrown() {
    let (response, _) =
        upload(Policy::standard(), ReplayBody::new(stream(10)), &[Does::Answer(503); 4]).await;
    assert_eq!(response.body().report().declined(), [Decline::AttemptsExhausted(4)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_hedged() {
    let hedging = Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(50))));
    let begun = now();
    let script = &[Does::Hang, Does::Answer(200)];
    let (response, read) = upload(hedging, ReplayBody::new(stream(1_000)), script).await;
    assert_eq!((response.status().as_u16(), now().since(begun)), (200, ms(50)));
    assert_eq!(read, [1_000; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_is_the_callers_own_failure_and_not_the_servers() {
    struct Failing;
    impl http_body::Body for Failing {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            std::task::Poll::Ready(Some(Err(std::io::Error::other("disk on fire"))))
        }
    }
    let core = Arc::new(Core::new(Setup::default()).unwrap());
    let server = service_fn(async |request: Request<ReplayBody<Failing>>| {
        request.into_body().collect().await.map(|_| Response::new(Full::<Bytes>::default()))
    });
    let service = ResilienceLayer::of(Arc::clone(&core)).layer(server);
    let error = service.oneshot(Request::put(URL).body(ReplayBody::new(Failing)).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert_eq!(error.report().unwrap().attempts().len(), 1);
    let upstream = core.upstream_of(&Authority::of_uri(&URL.parse().unwrap()));
    assert_eq!(upstream.breaker_snapshot(now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_cut_off_leaves_the_call_to_the_other() {
    // The first attempt reads one frame and waits; the hedge overtakes it and outgrows the buffer.
    let source = http_body_util::BodyExt::boxed_unsync(Frames(8));
    let hedging = Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(50))));
    let core = Arc::new(Core::new(Setup { policies: hedging.into(), ..Setup::default() }).unwrap());
    let attempts = Arc::new(AtomicU32::new(0));
    let server = service_fn(move |request: Request<ReplayBody<_>>| {
        let first = attempts.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let mut body = request.into_body();
            let mut frames = 0;
            while let Some(frame) = body.frame().await {
                frame?;
                frames += 1;
                tokio::time::sleep(ms(if first { 60 } else { 1 })).await;
            }
            tokio::time::sleep(ms(100)).await;
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(frames.to_string())))
        }
    });
    let service = ResilienceLayer::of(Arc::clone(&core)).layer(server);
    let body = ReplayBody::with_limit(source, 4_000);
    let response = service.oneshot(Request::put(URL).body(body).unwrap()).await.unwrap();
    let report = response.body().report();
    assert_eq!(report.attempts()[0].outcome(), Some(Outcome::Ignored), "{report}");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "8");
    assert_eq!(
        core.upstream_of(&Authority::of_uri(&URL.parse().unwrap())).breaker_snapshot(now()).failures,
        0
    );
}

/// So many frames of 1000 bytes.
struct Frames(usize);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Ready(self.0.checked_sub(1).map(|left| {
            self.0 = left;
            Ok(http_body::Frame::data(vec![b'x'; 1_000].into()))
        }))
    }
}

/// Answers 503 to the first request and 200 to every other; the bodies it read.
async fn flaky_server() -> (String, Arc<Mutex<Vec<Bytes>>>) {
    let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
    let seen = Arc::clone(&bodies);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move |body: Bytes| async move {
        let mut seen = seen.lock().unwrap();
        seen.push(body);
        if seen.len() == 1 { http::StatusCode::SERVICE_UNAVAILABLE } else { http::StatusCode::OK }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, bodies)
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn the_client_replays_a_stream_only_if_asked() {
    for (buffer, status, sent) in [(None, 503, 1), (Some(10), 503, 1), (Some(1_000), 200, 2)] {
        let (url, bodies) = flaky_server().await;
        let client = crate::Client::builder().build().unwrap();
        let mut request = client.put(url).body(reqwest::Body::wrap(stream(1_000)));
        if let Some(bytes) = buffer {
            request = request.replay_buffer(bytes);
        }
        let response = request.send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.report().attempts().len()), (status, sent));
        assert!(bodies.lock().unwrap().iter().all(|body| body.len() == 1_000));
    }
}
