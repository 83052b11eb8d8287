//! The reqwest transport.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Body as _;
use reqwest::{Body, Request, ResponseBuilderExt, Url};
use tower_service::Service;

use super::redirect::Hopping;
use super::replay::{Replay as _, ReplayBody};
use super::{Exchange, KeptBody, Outbound, announces_stream};
use crate::client::Response;
use crate::engine::body::Guard;
use crate::engine::hook::Attempt;
use crate::engine::report::CallReport;
use crate::error::BoxError;
use crate::outcome::classify::Ended;
use crate::time::Tick;

/// One call over a `reqwest::Client`.
#[derive(Debug)]
pub(crate) struct ReqwestExchange {
    client: reqwest::Client,
    request: Kept,
}

/// What is left of the request to send.
#[derive(Debug)]
enum Kept {
    /// A request, apart from its body, of which any number can be made.
    Replayable { request: Request, body: Payload },
    /// A stream: the one request there can be.
    Once(Request),
    /// The last attempt has taken it.
    Gone,
}

/// A body from which any number of bodies can be made.
#[derive(Debug)]
enum Payload {
    None,
    Bytes(Bytes),
    /// A stream that is kept as it is read, until it outgrows its buffer.
    Stream(ReplayBody<Body>),
}

impl Payload {
    fn again(&self) -> Option<Self> {
        Some(match self {
            Self::None => Self::None,
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Self::Stream(stream) => Self::Stream(stream.replay()?),
        })
    }

    fn is_replayable(&self) -> bool {
        match self {
            Self::None | Self::Bytes(_) => true,
            Self::Stream(stream) => stream.is_replayable(),
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    fn into_body(self) -> Option<Body> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes.into()),
            Self::Stream(stream) => Some(Body::wrap(stream)),
        }
    }
}

impl ReqwestExchange {
    /// A streamed body is sent once, or kept in a replay buffer of so many bytes.
    pub(crate) fn new(client: reqwest::Client, mut request: Request, replay_buffer: Option<usize>) -> Self {
        // The engine keeps time; a second timer inside reqwest would only fire with a less telling error.
        // Asked first: clearing a timeout that was never set allocates the map it isn't in.
        if request.timeout().is_some() {
            *request.timeout_mut() = None;
        }
        let payload = match (request.body_mut().as_mut().map(whole_bytes), replay_buffer) {
            (None, _) => Payload::None,
            (Some(Some(bytes)), _) => Payload::Bytes(bytes),
            (Some(None), Some(limit)) => {
                let stream = request.body_mut().take().unwrap_or_default();
                Payload::Stream(ReplayBody::with_limit(stream, limit))
            }
            (Some(None), None) => return Self { client, request: Kept::Once(request) },
        };
        *request.body_mut() = None;
        Self { client, request: Kept::Replayable { request, body: payload } }
    }
}

/// The body's bytes, shared and not copied; `None` for a stream.
fn whole_bytes(body: &mut Body) -> Option<Bytes> {
    body.as_bytes()?;
    // A body of bytes yields them as its only frame, at once. It is the one way to get at them without a copy.
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        Poll::Ready(None) => Some(Bytes::new()),
        Poll::Ready(Some(Err(_))) | Poll::Pending => None,
    }
}

/// Points a URL at another origin. None of these can fail between origins with hosts, which all of ours are.
fn readdress(url: &mut Url, origin: &Url) {
    let _ = url.set_scheme(origin.scheme());
    let _ = url.set_host(origin.host_str());
    let _ = url.set_port(origin.port());
}

/// Another of the same request, by hand: `Request::try_clone` costs four times the instructions, because it also clones
/// the map of extensions, in which reqwest keeps a timeout that we have already taken over.
fn copy(request: &Request, body: Option<Body>) -> Request {
    let mut copy = Request::new(request.method().clone(), request.url().clone());
    copy.headers_mut().clone_from(request.headers());
    *copy.version_mut() = request.version();
    *copy.body_mut() = body;
    copy
}

impl Exchange for ReqwestExchange {
    type Answer = reqwest::Response;
    type Fault = BoxError;
    type Future = Hopping<<reqwest::Client as Service<Request>>::Future>;
    type Head = (Url, http::response::Parts);
    type Body = Body;
    type Response = Response;

    fn is_replayable(&self) -> bool {
        matches!(&self.request, Kept::Replayable { body, .. } if body.is_replayable())
    }

    fn request(&self) -> Option<Attempt<'_>> {
        let (request, body) = match &self.request {
            Kept::Replayable { request, body } => (request, body.bytes()),
            Kept::Once(request) => (request, None),
            Kept::Gone => return None,
        };
        let url = request.url().as_str().into();
        Some(Attempt { number: 0, method: request.method(), url, headers: request.headers(), body })
    }

    fn launch(&mut self, outbound: Outbound, now: Tick) -> Option<Self::Future> {
        // A stream is sent once; one that outgrew its buffer was, and what is left of it is no request.
        if outbound.number > 1 && !self.is_replayable() {
            return None;
        }
        let mut request = match &self.request {
            Kept::Replayable { request, body } if !outbound.last => copy(request, body.again()?.into_body()),
            _ => match std::mem::replace(&mut self.request, Kept::Gone) {
                Kept::Replayable { mut request, body } => {
                    *request.body_mut() = body.into_body();
                    request
                }
                Kept::Once(request) => request,
                Kept::Gone => return None,
            },
        };
        if let Some(target) = &outbound.target {
            readdress(request.url_mut(), target.endpoint.origin().url());
        }
        outbound.apply(request.headers_mut(), now);
        Some(Hopping::new(self.client.call(request)))
    }

    fn end(end: &Result<Self::Answer, Self::Fault>) -> Ended<'_> {
        match end {
            Ok(response) => Ended::Response(response.status(), response.headers()),
            Err(error) => Ended::Error(&**error),
        }
    }

    fn is_unending(answer: &Self::Answer) -> bool {
        announces_stream(answer.status(), answer.headers())
    }

    fn dismantle(answer: Self::Answer) -> (Self::Head, Self::Body) {
        let url = answer.url().clone();
        let (parts, body) = http::Response::<Body>::from(answer).into_parts();
        ((url, parts), body)
    }

    fn seal(answer: Self::Answer, guard: Guard) -> Self::Response {
        Response::live(answer, guard)
    }

    fn reassemble((url, parts): Self::Head, body: KeptBody, report: CallReport) -> Self::Response {
        Response::kept(assemble(url, parts, Body::wrap(body)), report)
    }
}

/// A `reqwest::Response` from its parts, with everything a response from the wire has: its URL, its version, and the
/// remote address and whatever else stands in its extensions.
pub(crate) fn assemble(url: Url, parts: http::response::Parts, body: Body) -> reqwest::Response {
    let mut response = http::Response::from_parts(parts, body);
    // reqwest keeps the URL in an extension of a private type; its builder is the way to make one.
    if let Ok(mut carrier) = http::Response::builder().url(url).body(()) {
        response.extensions_mut().extend(std::mem::take(carrier.extensions_mut()));
    }
    reqwest::Response::from(response)
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};

    use super::*;

    fn exchange(request: Request) -> ReqwestExchange {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        ReqwestExchange::new(client, request, None)
    }

    fn post(body: impl Into<Body>) -> Request {
        let mut request = Request::new(Method::POST, "http://users:3000/users?x=1".parse().unwrap());
        request.headers_mut().insert("x-a", "1".parse().unwrap());
        *request.version_mut() = Version::HTTP_2;
        *request.body_mut() = Some(body.into());
        request
    }

    #[test]
    fn a_request_made_from_parts_is_the_one_that_was_given() {
        let given = post("hello");
        let exchange = exchange(post("hello"));
        let Kept::Replayable { request, body } = &exchange.request else { panic!("bytes are replayable") };
        let made = || copy(request, body.again().unwrap().into_body());
        for made in [made(), made()] {
            assert_eq!(made.method(), given.method());
            assert_eq!(made.url(), given.url());
            assert_eq!(made.headers(), given.headers());
            assert_eq!(made.version(), given.version());
            assert_eq!(made.body().unwrap().as_bytes(), given.body().unwrap().as_bytes());
        }
    }

    #[test]
    fn a_url_is_pointed_at_another_origin_and_keeps_the_rest() {
        for (url, origin, expected) in [
            ("http://users/a%20b?x=1#f", "http://10.0.0.1:3000", "http://10.0.0.1:3000/a%20b?x=1#f"),
            ("http://users:3000/", "https://[::1]", "https://[::1]/"),
            ("https://users:8443/x", "http://b.internal:80", "http://b.internal/x"),
        ] {
            let mut url: Url = url.parse().unwrap();
            readdress(&mut url, &origin.parse().unwrap());
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn an_empty_body_stays_a_body() {
        let exchange = exchange(post(""));
        let Kept::Replayable { body, .. } = &exchange.request else { panic!("bytes are replayable") };
        assert_eq!(body.again().unwrap().into_body().unwrap().as_bytes(), Some(&b""[..]));
    }

    #[test]
    fn a_stream_is_sent_once() {
        let stream = Body::wrap(KeptBody { bytes: Bytes::from_static(b"x"), cut: false });
        let mut exchange = exchange(post(stream));
        assert!(!exchange.is_replayable());
        let outbound = |number| Outbound {
            number,
            last: true,
            until: Tick::NEVER,
            deadline_header: None,
            target: None,
            headers: None,
        };
        assert!(exchange.launch(outbound(1), Tick::ZERO).is_some());
        assert!(exchange.launch(outbound(2), Tick::ZERO).is_none());
    }
}
