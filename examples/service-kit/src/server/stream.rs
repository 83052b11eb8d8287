//! A stream whose other end may not take its time: neither over the head of a request nor over
//! reading an answer.
//!
//! hyper's one timer covers the wait for a request and the reading of its head together. An idle
//! connection deserves patience and half a head doesn't, so that part is timed here, from its first
//! byte.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::activity::Activity;

/// A stream that fails when the other end is too slow.
#[derive(Debug)]
pub(super) struct TimedStream<S> {
    inner: S,
    activity: Arc<Activity>,
    head_limit: Duration,
    write_limit: Duration,
    /// Runs from the first byte of a request until its head is complete.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while bytes wait to be written and none are taken.
    write: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedStream<S> {
    pub(super) fn new(
        inner: S,
        activity: Arc<Activity>,
        head_limit: Duration,
        write_limit: Duration,
    ) -> Self {
        Self { inner, activity, head_limit, write_limit, head: None, write: None }
    }

    pub(super) fn into_inner(self) -> S {
        self.inner
    }

    /// What a write came to, or that it has waited for too long.
    fn in_time(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.write = None;
            return written;
        }
        let limit = self.write_limit;
        ready!(self.write.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if this.activity.is_answering() {
            this.head = None;
            return read;
        }
        if this.activity.is_between_requests() {
            this.head = None;
        }
        if buf.filled().len() > before && this.activity.bytes_read() {
            this.head = Some(Box::pin(sleep(this.head_limit)));
        }
        if read.is_pending()
            && let Some(head) = &mut this.head
        {
            ready!(head.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not finish the head of its request",
            )));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.in_time(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::timeout,
    };

    use super::{super::activity::IdleOrder, *};

    const HEAD: Duration = Duration::from_secs(5);
    const WRITE: Duration = Duration::from_secs(10);

    fn pair() -> (DuplexStream, TimedStream<DuplexStream>, Arc<Activity>) {
        let (client, server) = duplex(64);
        let activity = Arc::new(IdleOrder::default().new_connection());
        (client, TimedStream::new(server, activity.clone(), HEAD, WRITE), activity)
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_has_five_seconds_from_its_first_byte_however_it_trickles() {
        let (mut client, mut stream, _) = pair();
        let trickle = async {
            // Silence before the first byte costs nothing.
            sleep(Duration::from_secs(25)).await;
            while client.write_all(b"G").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let read = async {
            let mut bytes = 0;
            loop {
                match stream.read_u8().await {
                    Ok(_) => bytes += 1,
                    Err(error) => return (bytes, error.kind()),
                }
            }
        };
        tokio::select! {
            () = trickle => unreachable!(),
            ended = timeout(Duration::from_secs(31), read) => {
                let (bytes, error) = ended.expect("30 s in all");
                assert!((5..=6).contains(&bytes), "{bytes}");
                assert_eq!(error, io::ErrorKind::TimedOut);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_request_stops_the_timer_and_the_next_starts_it_again() {
        let (mut client, mut stream, activity) = pair();
        client.write_all(b"GG").await.unwrap();
        stream.read_u8().await.unwrap();
        activity.request_read();
        // Its body comes slowly, which is for the request timeout to judge.
        stream.read_u8().await.unwrap();
        assert!(timeout(HEAD * 4, stream.read_u8()).await.is_err(), "no timer of ours runs");
        activity.answered();
        assert!(timeout(HEAD * 4, stream.read_u8()).await.is_err(), "nor between requests");
        client.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_given_up_after_ten_seconds() {
        let (client, mut stream, _) = pair();
        let error = timeout(WRITE * 2, stream.write_all(&[0; 1000])).await.expect("bounded").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_goes_on_reading_gets_all_of_it() {
        let (mut client, mut stream, _) = pair();
        let read = async {
            let mut got = 0;
            while got < 1000 {
                sleep(Duration::from_secs(9)).await;
                got += client.read(&mut [0; 64]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[0; 1000]), read);
        written.unwrap();
    }
}
