//! The response: its parts, with the body guarded and the report at hand.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::ready;

use bytes::Bytes;
use http::response::Parts;
use http::{Extensions, HeaderMap, StatusCode, Uri, Version};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use url::Url;

use crate::body_length::Expected;
use crate::call::kept_body::KeptBody;
use crate::call::response_body::{Guard, ResponseBody};
use crate::error::{Error, ErrorKind};
use crate::hyper::link::Link;
use crate::outcome::report::CallReport;
use crate::pool_defaults::MAX_BODY;
use crate::redact::shown;
use crate::redirects::{self, Unfollowed};
use crate::shared_methods::{Pieces, response_methods};

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
    // Not as an `http::Response`, in which they would be put together first and then copied.
    head: Parts,
    body: ResponseBody<Incoming>,
    uri: Uri,
    max_body: usize,
}

impl Response {
    /// With a body that is still to come.
    #[inline]
    pub(crate) fn live(
        answer: http::Response<Incoming>,
        guard: Guard,
        expected: Expected,
        uri: Uri,
        max_body: usize,
    ) -> Self {
        let (head, body) = answer.into_parts();
        let body = ResponseBody::watched(body, guard, expected);
        let mut whole = Box::new(Whole { head, body, uri, max_body });
        whole.body.may_be_over();
        Self(whole)
    }

    /// With a body that was read inside the call.
    pub(crate) fn kept(head: Parts, body: KeptBody, report: CallReport, uri: Uri, max_body: usize) -> Self {
        Self(Box::new(Whole { head, body: ResponseBody::kept(body, report), uri, max_body }))
    }

    /// How the call went, up to this response's head.
    pub fn report(&self) -> &CallReport {
        self.0.body.report()
    }

    pub(super) fn report_mut(&mut self) -> &mut CallReport {
        self.0.body.report_mut()
    }

    /// Says in its report where it would have led, if it redirects.
    #[cold]
    pub(super) fn left_unfollowed(&mut self) {
        let url = self.absolute_url();
        if let Some(to) = url.and_then(|url| redirects::target(self.status(), self.headers(), &url)) {
            self.report_mut().leaves_unfollowed(&to, Unfollowed::Off);
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.head.status
    }

    /// The HTTP version.
    pub fn version(&self) -> Version {
        self.0.head.version
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.head.headers
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.0.head.headers
    }

    /// What is left of the body's length, if it is known.
    pub fn content_length(&self) -> Option<u64> {
        self.0.body.size_hint().exact()
    }

    /// The URL that was asked for.
    pub fn uri(&self) -> &Uri {
        &self.0.uri
    }

    /// The address that answered, unless the [builder](super::ClientBuilder::remote_addr) was set
    /// to forget it.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.head.extensions.get::<Link>()?.remote_addr()
    }

    /// What the transport attached.
    pub fn extensions(&self) -> &Extensions {
        &self.0.head.extensions
    }

    /// What the transport attached, to change.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.0.head.extensions
    }

    /// The connection, after a response that switched protocols (101). It is yours from here: its
    /// slot is free again and no timeout applies to it. `hyper_util::rt::TokioIo` makes it one of
    /// tokio's.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] when the connection wasn't upgraded.
    pub async fn upgrade(self) -> Result<Upgraded, Error> {
        let report = self.report().clone();
        let upgraded = hyper::upgrade::on(http::Response::from(self)).await;
        upgraded.map_err(|error| Error::not_upgraded(error).with_report(report))
    }

    /// The next piece of the body; `None` at its end. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Body`], [`ErrorKind::BodyIdle`] and [`ErrorKind::Deadline`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let reader = Reader(&mut self.0.body);
        let polled = poll_fn(|cx| {
            loop {
                match ready!(Pin::new(&mut *reader.0).poll_frame(cx)).transpose()?.map(Frame::into_data) {
                    Some(Ok(data)) => return Ok(Some(data)).into(),
                    None => return Ok(None).into(),
                    // Trailers.
                    Some(Err(_)) => {}
                }
            }
        });
        let chunk = polled.await;
        drop(reader);
        chunk.map_err(|error: Error| match error.report() {
            Some(_) => error,
            None => error.with_report(self.report().clone()),
        })
    }

    response_methods!();

    /// The body as a stream of its pieces.
    #[cfg(feature = "stream")]
    pub fn bytes_stream(self) -> impl futures_core::Stream<Item = Result<Bytes, Error>> + Send {
        http_body_util::BodyDataStream::new(self.0.body)
    }

    fn absolute_url(&self) -> Option<Url> {
        Url::parse(&self.0.uri.to_string()).ok()
    }

    fn status_error(&self, status: StatusCode) -> Error {
        self.error(ErrorKind::Status).with_status(status, self.absolute_url().as_ref())
    }
}

impl Pieces for Response {
    async fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        self.chunk().await
    }

    fn is_read(&self) -> bool {
        self.0.body.is_end_stream()
    }

    fn max_body(&self) -> usize {
        self.0.max_body
    }

    fn call_report(&self) -> &CallReport {
        self.report()
    }
}

/// Somebody who waits for the next piece, and may stop waiting.
struct Reader<'a>(&'a mut ResponseBody<Incoming>);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.look_away();
    }
}

impl From<Response> for http::Response<ResponseBody<Incoming>> {
    /// Everything stays but the URL.
    fn from(response: Response) -> Self {
        let Whole { head, body, .. } = *response.0;
        http::Response::from_parts(head, body)
    }
}

impl<T: Into<Bytes>> From<http::Response<T>> for Response {
    /// A response that no call has brought, such as one of a cache's or a test's. Its report has no
    /// attempts and the call's number 0, its URL is `/`, and `bytes` and its like read 16 MiB of it
    /// at most.
    fn from(response: http::Response<T>) -> Self {
        let (head, body) = response.into_parts();
        let body = KeptBody { bytes: body.into(), cut: false, trailers: None };
        Self::kept(head, body, CallReport::of_none(""), Uri::default(), MAX_BODY)
    }
}

impl fmt::Debug for Response {
    /// Without headers and query values, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.absolute_url().map(|url| shown(&url, self.report().template()).to_string());
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("url", &url.unwrap_or_default())
            .field("report", &format_args!("{}", self.report()))
            .finish_non_exhaustive()
    }
}
