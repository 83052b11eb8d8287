//! The far end of a connection in memory: a server that misbehaves.
//!
//! A client's fault must look to the engine like the real thing, down to the last source of its
//! error. So an attempt that is to fail goes over a connection of hyper's own HTTP/1.1, as its last
//! hop: what is at its other end writes what was asked for, cuts a real answer short, or breaks the
//! connection. Errors, bodies and lengths are hyper's then, as over a socket.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::Empty;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};

use super::body::Broken;
use super::connection::GARBAGE;
use super::machine::{Answer, Place};
use crate::error::BoxError;

/// A response to come, over the connection.
pub(super) type Asking = Pin<Box<dyn Future<Output = Result<Response<Incoming>, BoxError>> + Send>>;

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// What the far end does once it has been asked.
pub(super) struct FarEnd {
    /// What is written already.
    ready: BytesMut,
    /// What is written after that.
    body: Option<AnyBody>,
    /// The body's length isn't known.
    chunked: bool,
    /// What comes after all of that; `None` where hyper needs no end.
    end: Option<Broken>,
    asked: bool,
    /// It takes no connection.
    #[cfg(feature = "testing")]
    refuses: bool,
    reader: Option<Waker>,
    /// Unless the body holds it.
    _place: Option<Place>,
}

impl FarEnd {
    fn new(ready: BytesMut, end: Option<Broken>, place: Option<Place>) -> Self {
        Self {
            ready,
            body: None,
            chunked: false,
            end,
            asked: false,
            #[cfg(feature = "testing")]
            refuses: false,
            reader: None,
            _place: place,
        }
    }

    /// It takes no connection.
    #[cfg(feature = "testing")]
    pub(super) fn refuses(place: Place) -> Self {
        Self { refuses: true, ..Self::resets(place) }
    }

    /// It resets the connection.
    pub(super) fn resets(place: Place) -> Self {
        Self::new(BytesMut::new(), Some(Broken::Reset), Some(place))
    }

    /// It writes what isn't HTTP.
    pub(super) fn garbles(place: Place) -> Self {
        Self::new(GARBAGE.into(), Some(Broken::Closed), Some(place))
    }

    /// It answers a request of this method by itself.
    pub(super) fn answers(answer: &Answer, method: &Method, place: Place) -> Self {
        let mut headers = answer.headers.clone();
        if may_have_body(answer.status) {
            headers.insert(CONTENT_LENGTH, answer.body.len().into());
        }
        let mut ready = head(answer.status, &headers);
        if may_have_body(answer.status) && method != Method::HEAD {
            ready.extend_from_slice(&answer.body);
        }
        Self::new(ready, Some(Broken::Closed), Some(place))
    }

    /// It passes on an answer, as far as its body lets it.
    pub(super) fn passes_on<B>(parts: &Parts, body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        // The head's own framing is that of the connection it came over.
        let mut headers = HeaderMap::new();
        let length = body.size_hint().exact();
        match length {
            Some(length) => headers.insert(CONTENT_LENGTH, length.into()),
            None => headers.insert(TRANSFER_ENCODING, http::HeaderValue::from_static("chunked")),
        };
        if !may_have_body(parts.status) {
            headers.clear();
        }
        let far_end = Self::new(head(parts.status, &headers), None, None);
        let body = AnyBody::new(http_body_util::BodyExt::map_err(body, Into::into));
        Self { body: Some(body), chunked: length.is_none(), ..far_end }
    }

    /// Sends a request of this method there, which nobody reads.
    pub(super) fn ask(self, method: Method) -> Asking {
        Box::pin(async move {
            #[cfg(feature = "testing")]
            if self.refuses {
                return Err(crate::refused::refused().await);
            }
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.method_mut() = method;
            let (mut sender, connection) = http1::handshake(self).await?;
            // It ends when the answer has been read or dropped.
            tokio::spawn(async move {
                // How it went, the request and the body are told.
                let _ = connection.await;
            });
            Ok(sender.send_request(request).await?)
        })
    }

    /// Writes the next piece of the body; ready when there is something to read.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(body) = &mut self.body else { return Poll::Ready(()) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            Some(Ok(Ok(data))) if data.is_empty() => {}
            Some(Ok(Ok(data))) if self.chunked => {
                self.ready.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.ready.extend_from_slice(&data);
                self.ready.extend_from_slice(b"\r\n");
            }
            Some(Ok(Ok(data))) => self.ready.extend_from_slice(&data),
            // Trailers.
            Some(Ok(Err(_))) => {}
            Some(Err(error)) => {
                // What is no fault of ours is a connection's end, too.
                self.end = Some(error.downcast_ref().copied().unwrap_or(Broken::Reset));
                self.body = None;
            }
            None => {
                self.body = None;
                self.end = Some(Broken::Closed);
                if self.chunked {
                    self.ready.extend_from_slice(b"0\r\n\r\n");
                }
            }
        }
        Poll::Ready(())
    }
}

fn may_have_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) && !status.is_informational()
}

fn head(status: StatusCode, headers: &HeaderMap) -> BytesMut {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = BytesMut::from(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

impl Read for FarEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.asked {
            // A server that speaks first is another fault.
            this.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        while this.ready.is_empty() {
            match this.end {
                Some(Broken::Closed) => return Poll::Ready(Ok(())),
                Some(Broken::Reset) => {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
                }
                None => std::task::ready!(this.poll_body(cx)),
            }
        }
        let length = this.ready.len().min(buf.remaining());
        buf.put_slice(&this.ready[..length]);
        this.ready.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl Write for FarEnd {
    fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
