//! The response: reqwest's methods, with the body guarded and the report at hand.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http::{Extensions, HeaderMap, StatusCode, Version};
use reqwest::{Body, Url};

use crate::body_length::Expected;
use crate::call::response_body::{Guard, ResponseBody};

use crate::error::{Error, ErrorKind};
use crate::outcome::report::CallReport;
use crate::pool_defaults::MAX_BODY;
use crate::redact::shown;
use crate::shared_methods::{Pieces, response_methods};
use reqwest::ResponseBuilderExt;

/// A response to a call.
///
/// It holds its attempt's place in the upstream until its body has been read or it is dropped. A
/// body that stalls, breaks or runs into the call's deadline is an error here. A stall or a break
/// is a failure to the circuit breaker, too, unless it ends a stream that had brought something; a
/// deadline is one if the body had kept its reader waiting for long.
pub struct Response(Box<Whole>);

/// Boxed: whoever reads a response moves it about half a dozen times, and one allocation costs
/// less.
struct Whole {
    inner: reqwest::Response,
    watch: Watch,
    max_body: usize,
}

/// Who looks after the body.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "boxed with the rest")]
enum Watch {
    /// It is still coming, and so much of it.
    Live(Guard, Expected),
    /// It had been set aside, and is all here.
    Kept(CallReport),
}

impl Response {
    #[inline]
    pub(crate) fn live(
        inner: reqwest::Response,
        mut guard: Guard,
        expected: Expected,
        max_body: usize,
    ) -> Self {
        if inner.content_length() == Some(0) {
            guard.ended_with_head();
        }
        Self(Box::new(Whole { inner, watch: Watch::Live(guard, expected), max_body }))
    }

    pub(crate) fn kept(inner: reqwest::Response, report: CallReport, max_body: usize) -> Self {
        Self(Box::new(Whole { inner, watch: Watch::Kept(report), max_body }))
    }

    /// The same with another body.
    #[cfg(feature = "cache")]
    pub(super) fn map_body(self, wrap: impl FnOnce(Body, Expected) -> Body) -> Self {
        let Whole { inner, watch, max_body } = *self.0;
        let expected = match &watch {
            Watch::Live(_, expected) => *expected,
            Watch::Kept(_) => Expected::ANY,
        };
        let url = inner.url().clone();
        let (parts, body) = http::Response::<Body>::from(inner).into_parts();
        Self(Box::new(Whole { inner: assemble(url, parts, wrap(body, expected)), watch, max_body }))
    }

    /// Whether its body was read inside the call.
    #[cfg(feature = "cache")]
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.0.watch, Watch::Kept(_))
    }

    /// Whether this is an older answer, given because the call failed; see [`stale`](crate::stale).
    #[cfg(feature = "cache")]
    pub fn is_degraded(&self) -> bool {
        self.degraded().is_some()
    }

    /// Why this is an older answer and how old, if it is one.
    #[cfg(feature = "cache")]
    pub fn degraded(&self) -> Option<&crate::stale::Degraded> {
        self.extensions().get()
    }

    /// How the call went, up to this response's head.
    pub fn report(&self) -> &CallReport {
        match &self.0.watch {
            Watch::Live(guard, _) => guard.report(),
            Watch::Kept(report) => report,
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.inner.status()
    }

    /// The HTTP version.
    pub fn version(&self) -> Version {
        self.0.inner.version()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.0.inner.headers()
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.0.inner.headers_mut()
    }

    /// The cookies that it sets. Those that can't be read are left out.
    #[cfg(feature = "cookies")]
    pub fn cookies(&self) -> impl Iterator<Item = reqwest::cookie::Cookie<'_>> {
        self.0.inner.cookies()
    }

    /// The length of the body, if it is known before reading.
    pub fn content_length(&self) -> Option<u64> {
        self.0.inner.content_length()
    }

    /// The URL that answered, after redirects.
    pub fn url(&self) -> &Url {
        self.0.inner.url()
    }

    /// The address that answered.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.inner.remote_addr()
    }

    /// What the transport attached.
    pub fn extensions(&self) -> &Extensions {
        self.0.inner.extensions()
    }

    /// What the transport attached, to change.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        self.0.inner.extensions_mut()
    }

    /// The connection, after a response that switched protocols (101). It is yours from here: its
    /// slot is free again and no timeout applies to it.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] when the connection wasn't upgraded.
    pub async fn upgrade(self) -> Result<reqwest::Upgraded, Error> {
        let Whole { inner, watch, .. } = *self.0;
        let report = match watch {
            Watch::Live(mut guard, _) => {
                guard.ended();
                guard.report().clone()
            }
            Watch::Kept(report) => report,
        };
        let upgraded = inner.upgrade().await;
        upgraded.map_err(|error| Error::not_upgraded(error).with_report(report))
    }

    /// The next piece of the body; `None` at its end. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Body`], [`ErrorKind::BodyIdle`] and [`ErrorKind::Deadline`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let Whole { inner, watch, .. } = &mut *self.0;
        match watch {
            Watch::Live(guard, expected) => {
                let reader = Reader(guard);
                let chunk = {
                    let mut next = pin!(inner.chunk());
                    poll_fn(|cx| {
                        let polled = next.as_mut().poll(cx).map(Result::transpose);
                        if let Poll::Ready(Some(Ok(chunk))) = &polled {
                            expected.take(chunk.len());
                        } else if let Poll::Ready(None) = &polled
                            && let Err(short) = expected.end()
                        {
                            return reader.0.judge(cx, Poll::Ready(Some(Err(short))));
                        }
                        reader.0.judge(cx, polled)
                    })
                    .await
                    .transpose()
                };
                if inner.content_length() == Some(0) && chunk.is_ok() {
                    // That was the last piece, and who counts bytes won't ask for another.
                    reader.0.ended();
                }
                chunk
            }
            Watch::Kept(report) => inner
                .chunk()
                .await
                .map_err(|error| Error::new(ErrorKind::Body).because(error).with_report(report.clone())),
        }
    }

    response_methods!();

    /// The whole body as text, decoded as reqwest would.
    ///
    /// # Errors
    /// Those of [`bytes`](Self::bytes).
    pub async fn text(mut self) -> Result<String, Error> {
        let bytes = self.read_whole().await?;
        let mut whole = http::Response::new(Body::from(bytes));
        whole.headers_mut().clone_from(self.headers());
        let text = reqwest::Response::from(whole).text().await;
        text.map_err(|error| self.error(ErrorKind::Decode).because(error))
    }

    /// The body as a stream of its pieces.
    #[cfg(feature = "stream")]
    pub fn bytes_stream(self) -> impl futures_core::Stream<Item = Result<Bytes, Error>> + Send {
        use http_body_util::{BodyDataStream, BodyExt as _};

        let Whole { inner, watch, .. } = *self.0;
        let body = Body::from(inner);
        BodyDataStream::new(match watch {
            Watch::Live(guard, expected) => ResponseBody::live(body, guard, expected).boxed_unsync(),
            Watch::Kept(report) => {
                let broken =
                    move |error| Error::new(ErrorKind::Body).because(error).with_report(report.clone());
                body.map_err(broken).boxed_unsync()
            }
        })
    }

    fn status_error(&self, status: StatusCode) -> Error {
        self.error(ErrorKind::Status).with_status(status, Some(self.url()))
    }
}

impl Pieces for Response {
    async fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        self.chunk().await
    }

    fn is_read(&self) -> bool {
        self.content_length() == Some(0)
    }

    fn max_body(&self) -> usize {
        self.0.max_body
    }

    fn call_report(&self) -> &CallReport {
        self.report()
    }
}

/// Somebody who waits for the next piece, and may stop waiting.
struct Reader<'a>(&'a mut Guard);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.look_away();
    }
}

impl From<Response> for reqwest::Response {
    /// Everything stays: URL, version, remote address, extensions, and the guard on the body, whose
    /// errors become `reqwest::Error`s with ours as their source. The report is lost; read it
    /// before.
    fn from(response: Response) -> Self {
        let Whole { inner, watch, .. } = *response.0;
        match watch {
            Watch::Kept(_) => inner,
            Watch::Live(guard, expected) => {
                let url = inner.url().clone();
                let (parts, body) = http::Response::<Body>::from(inner).into_parts();
                assemble(url, parts, Body::wrap(ResponseBody::live(body, guard, expected)))
            }
        }
    }
}

impl<T: Into<Body>> From<http::Response<T>> for Response {
    /// A response that no call has brought, such as one of a cache's or a test's. Its report has no
    /// attempts and the call's number 0; `bytes` and its like read 16 MiB of it at most.
    fn from(response: http::Response<T>) -> Self {
        let inner = reqwest::Response::from(response);
        let report = CallReport::of_none(&inner.url().origin().ascii_serialization());
        Self::kept(inner, report, MAX_BODY)
    }
}

impl From<Response> for http::Response<Body> {
    /// As [`reqwest::Response`] from one.
    fn from(response: Response) -> Self {
        reqwest::Response::from(response).into()
    }
}

impl From<Response> for Body {
    /// The body, guarded as before.
    fn from(response: Response) -> Self {
        reqwest::Response::from(response).into()
    }
}

impl fmt::Debug for Response {
    /// Without headers and query values, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("url", &shown(self.url(), self.report().template()).as_str())
            .field("report", &format_args!("{}", self.report()))
            .finish_non_exhaustive()
    }
}

/// A `reqwest::Response` from its parts, with everything a response from the wire has: its URL, its
/// version, and the remote address and whatever else stands in its extensions.
pub(crate) fn assemble(url: Url, parts: http::response::Parts, body: Body) -> reqwest::Response {
    let mut response = http::Response::from_parts(parts, body);
    // reqwest keeps the URL in an extension of a private type; its builder is the way to make one.
    if let Ok(mut carrier) = http::Response::builder().url(url).body(()) {
        response.extensions_mut().extend(std::mem::take(carrier.extensions_mut()));
    }
    reqwest::Response::from(response)
}
