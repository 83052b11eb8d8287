//! The hyper transport: one call over hyper-util's pooled client.

use std::pin::Pin;
use std::sync::Arc;

use http::{Method, Request, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::body_length::Expected;
use crate::call::exchange::{Departure, Exchange, Expired, Outbound, Overdue, announces_stream};
use crate::call::http_request::{address, copy_head, readdress};
use crate::call::kept_body::KeptBody;
use crate::call::response_body::Guard;
use crate::engine::Address;
use crate::error::Error;
use crate::faulted;
use crate::hook::Attempt;
use crate::hyper::pool::{self, Fault, Over, Wire};
use crate::hyper::{Body, Response};
use crate::outcome::call_id::CallId;
use crate::outcome::classify::Ended;
use crate::outcome::classify::evidence::Evidence;
use crate::outcome::report::CallReport;
use crate::replay::Replay as _;
use crate::time::Tick;
use crate::upstream::Upstream;

/// One call over a connection pool.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a thing of its own")]
pub(crate) struct HyperExchange {
    wire: Arc<Wire>,
    /// Its URL stays when the last attempt has taken the rest.
    request: Request<Body>,
    gone: bool,
    /// An attempt over HTTP/1.1 has met a connection out of the pool that was dead, or may be: the
    /// pool may hold more like it. Over HTTP/2 that one connection is retired.
    leaves: bool,
    /// It asks for the head alone.
    for_head: bool,
    /// Redirects are followed.
    follows: bool,
    /// The most that is read of a response's body at once.
    max_body: usize,
}

impl HyperExchange {
    #[inline]
    pub(crate) fn new(wire: Arc<Wire>, request: Request<Body>, max_body: usize, follows: bool) -> Self {
        let for_head = request.method() == Method::HEAD;
        Self { wire, request, gone: false, leaves: false, for_head, follows, max_body }
    }

    fn take(&mut self) -> Request<Body> {
        self.gone = true;
        let mut rest = Request::new(Body::empty());
        rest.uri_mut().clone_from(self.request.uri());
        std::mem::replace(&mut self.request, rest)
    }
}

impl Exchange for HyperExchange {
    type Answer = http::Response<Incoming>;
    type Fault = Fault;
    type Future = pool::Attempt;
    type Head = http::response::Parts;
    type Body = Incoming;
    type Response = Response;

    #[inline]
    fn address(&self) -> Result<Address<'_>, Error> {
        address(&self.request)
    }

    #[inline]
    fn is_replayable(&self) -> bool {
        !self.gone && self.request.body().is_replayable()
    }

    fn request(&self) -> Option<Attempt<'_>> {
        (!self.gone).then(|| Attempt {
            call: CallId::NONE,
            number: 0,
            method: self.request.method(),
            url: self.request.uri().to_string().into(),
            headers: self.request.headers(),
            body: self.request.body().as_bytes().filter(|bytes| !bytes.is_empty()),
        })
    }

    #[inline]
    fn launch(&mut self, mut outbound: Outbound, departure: Departure<'_, '_>) -> Option<Self::Future> {
        // A stream is sent once; one that outgrew its buffer was, and what is left of it is no
        // request.
        if self.gone || outbound.number > 1 && !self.is_replayable() {
            return None;
        }
        let body = if outbound.last { None } else { self.request.body().replay() };
        let kept = body.is_some();
        // Filled where it is, being large.
        let mut request = body.map_or_else(|| self.take(), Request::new);
        if kept {
            copy_head(&self.request, &mut request);
        }
        let Departure { upstream, now, .. } = departure;
        // The URL says whom it is for, and the endpoint's pool goes there.
        let named = outbound.target.take_if(|target| self.wire.names_host(target));
        if let Some(target) = &outbound.target {
            readdress(request.uri_mut(), target.endpoint.origin());
        }
        let plain = self.wire.is_plain(&request);
        let host = if plain && outbound.target.is_none() { upstream.host_header() } else { None };
        let endpoint = outbound.target.as_ref().map(|target| Arc::clone(&target.endpoint));
        let over = match (&named, &endpoint) {
            (Some(named), _) => Over::Named(&named.endpoint),
            (None, Some(endpoint)) => self.wire.over(endpoint, upstream.key().authority()),
            (None, None) if self.leaves && plain => Over::Fresh,
            (None, None) => Over::Shared,
        };
        outbound.apply(request.headers_mut(), upstream, host, now);
        let shared = if plain { None } else { self.wire.share(&mut request) };
        Some(self.wire.send(request, shared, over))
    }

    fn expired(&mut self, future: Pin<&mut Self::Future>, overdue: Overdue<'_>, counts: bool) -> Expired {
        self.leaves = true;
        faulted::real_mut(future).map_or_else(Expired::default, |real| real.expired(overdue, counts))
    }

    fn begun(&self, future: &Self::Future, overdue: Overdue<'_>) -> Tick {
        faulted::real(future).map_or(overdue.since, |real| real.begun(overdue.since, overdue.now))
    }

    fn end(end: &Result<Self::Answer, Self::Fault>) -> Ended<'_> {
        match end {
            Ok(response) => Ended::Response(response.status(), response.headers()),
            Err(fault) => Ended::Error(&*fault.error),
        }
    }

    fn evidence(&mut self, end: &Result<Self::Answer, Self::Fault>, _: Option<&Upstream>) -> Evidence {
        let evidence = end.as_ref().err().map_or(Evidence::DIRECT, |fault| self.wire.evidence(fault));
        self.leaves |= evidence.pooled;
        evidence
    }

    #[inline]
    fn version(answer: &Self::Answer) -> Version {
        answer.version()
    }

    #[inline]
    fn may_be_grpc(answer: &Self::Answer) -> bool {
        answer.version() == Version::HTTP_2 && answer.body().is_end_stream()
    }

    #[cfg(feature = "grpc")]
    const SHOWS_TRAILERS: bool = true;

    #[cfg(feature = "grpc")]
    fn headers(answer: &Self::Answer) -> &http::HeaderMap {
        answer.headers()
    }

    fn is_unending(answer: &Self::Answer) -> bool {
        announces_stream(answer.status(), answer.headers())
    }

    #[inline]
    fn expected(&self, answer: &Self::Answer) -> Expected {
        Expected::at_head(self.for_head, answer.status(), &answer.body().size_hint())
    }

    fn dismantle(answer: Self::Answer) -> (Self::Head, Self::Body) {
        answer.into_parts()
    }

    #[inline]
    fn seal(&mut self, answer: Self::Answer, guard: Guard) -> Self::Response {
        let expected = self.expected(&answer);
        let redirects = answer.status().is_redirection() && !self.follows;
        let uri = std::mem::take(self.request.uri_mut());
        let mut response = Response::live(answer, guard, expected, uri, self.max_body);
        if redirects {
            response.left_unfollowed();
        }
        response
    }

    fn reassemble(&mut self, head: Self::Head, body: KeptBody, report: CallReport) -> Self::Response {
        let uri = std::mem::take(self.request.uri_mut());
        let mut response = Response::kept(head, body, report, uri, self.max_body);
        if !self.follows {
            response.left_unfollowed();
        }
        response
    }
}

#[cfg(all(test, feature = "http2"))]
mod tests;
