//! A server's connection that can be broken by whoever answers a request on it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::sync::{AtomicU32, Mutex, Ordering};

/// What isn't HTTP, of any version.
pub(super) const GARBAGE: &[u8] = b"\x15\x03\x03\x00\x02\x02\x28 \xf0\x9f\x92\xa5 this is no HTTP\r\n\r\n";

const WHOLE: u32 = 0;
const RESET_AFTER_FLUSH: u32 = 1;
const RESET: u32 = 2;
const GARBLE: u32 = 3;

/// A hand on the connection that a request came over. A clone is the same connection's.
///
/// A layer sees requests and answers; a reset and bytes that aren't HTTP are the connection's. So a
/// server's accept loop wraps its streams, and hands this to its requests as an extension:
///
/// ```
/// use resilient_client::fault::BreakableStream;
/// use tokio::net::TcpListener;
///
/// # async fn accept(listener: TcpListener) -> std::io::Result<()> {
/// let (stream, peer) = listener.accept().await?;
/// let stream = BreakableStream::new(stream, peer);
/// let connection = stream.connection().clone();
/// // Serve `stream`, and for each request: request.extensions_mut().insert(connection.clone())
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    peer: SocketAddr,
    /// What is to become of it. It only goes up.
    fate: AtomicU32,
    /// Who waits for bytes. A lock, because a waker is two words; held to swap it.
    reader: Mutex<Option<Waker>>,
}

impl Connection {
    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Resets the connection at once.
    pub(super) fn reset(&self) {
        self.ends_as(RESET);
    }

    /// Resets it when what is being written has left.
    pub(super) fn reset_after_flush(&self) {
        self.ends_as(RESET_AFTER_FLUSH);
    }

    /// Writes bytes that aren't HTTP, and closes it.
    pub(super) fn garble(&self) {
        self.ends_as(GARBLE);
    }

    fn ends_as(&self, fate: u32) {
        self.0.fate.fetch_max(fate, Ordering::AcqRel);
        if let Some(reader) = self.0.reader.lock().take() {
            reader.wake();
        }
    }

    fn fate(&self) -> u32 {
        self.0.fate.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.0.peer).finish_non_exhaustive()
    }
}

/// A stream that is reset rather than closed when it is dropped, if it is told to.
pub trait ResetOnDrop {
    /// From now on.
    ///
    /// # Errors
    /// When the system refuses; the stream is then closed.
    fn reset_on_drop(&self) -> io::Result<()>;
}

impl ResetOnDrop for TcpStream {
    /// `SO_LINGER` of zero.
    fn reset_on_drop(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

/// A stream whose [`Connection`] can be broken. See [`Connection`].
#[derive(Debug)]
pub struct BreakableStream<S> {
    inner: S,
    connection: Connection,
    /// Something has been written since the last flush.
    written: bool,
    /// What is left to write of what isn't HTTP.
    garbage: &'static [u8],
}

impl<S> BreakableStream<S> {
    /// Wraps a stream from `peer`.
    pub fn new(inner: S, peer: SocketAddr) -> Self {
        let shared = Shared { peer, fate: AtomicU32::new(WHOLE), reader: Mutex::new(None) };
        Self { inner, connection: Connection(Arc::new(shared)), written: false, garbage: GARBAGE }
    }

    /// The hand on it, for its requests' extensions.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "an injected fault broke the connection")
}

impl<S: AsyncWrite + ResetOnDrop + Unpin> BreakableStream<S> {
    /// Ready with an error when it is broken.
    fn poll_fate(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.connection.fate() {
            WHOLE | RESET_AFTER_FLUSH => return Poll::Ready(Ok(())),
            GARBLE => {
                let mut inner = Pin::new(&mut self.inner);
                while !self.garbage.is_empty() {
                    let written = ready!(inner.as_mut().poll_write(cx, self.garbage))?;
                    self.garbage = self.garbage.get(written.max(1)..).unwrap_or_default();
                }
                ready!(inner.as_mut().poll_flush(cx))?;
                ready!(inner.poll_shutdown(cx))?;
            }
            _ => {
                // Refused, it is closed and not reset.
                let _ = self.inner.reset_on_drop();
            }
        }
        Poll::Ready(Err(broken()))
    }
}

impl<S: AsyncRead + AsyncWrite + ResetOnDrop + Unpin> AsyncRead for BreakableStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_fate(cx))?;
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if read.is_pending() {
            *this.connection.0.reader.lock() = Some(cx.waker().clone());
            // It may have been broken before anybody could be woken.
            ready!(this.poll_fate(cx))?;
        }
        read
    }
}

impl<S: AsyncWrite + ResetOnDrop + Unpin> AsyncWrite for BreakableStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_fate(cx))?;
        this.written = true;
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_fate(cx))?;
        this.written = true;
        Pin::new(&mut this.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_fate(cx))?;
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        if std::mem::take(&mut this.written) && this.connection.fate() == RESET_AFTER_FLUSH {
            this.connection.reset();
            return this.poll_fate(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_fate(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
