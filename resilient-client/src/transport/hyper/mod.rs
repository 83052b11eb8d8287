//! The hyper transport: one call over hyper-util's pooled client.

pub(crate) mod connect;
pub(crate) mod wire;

use std::pin::Pin;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper_util::client::legacy;

use self::wire::{Sending, Wire};
use super::replay::Replay as _;
use super::service::{again, readdress};
use super::{Exchange, KeptBody, Outbound, announces_stream};
use crate::engine::body::{Guard, ResponseBody};
use crate::engine::hook::Attempt;
use crate::engine::report::CallReport;
use crate::hyper::Body;
use crate::outcome::classify::Ended;
use crate::time::Tick;

/// One call over a connection pool.
#[derive(Debug)]
pub(crate) struct HyperExchange {
    wire: Arc<Wire>,
    /// `None` once the last attempt has taken it.
    request: Option<Request<Body>>,
}

impl HyperExchange {
    /// A streamed body is sent once, or kept in a replay buffer of so many bytes.
    pub(crate) fn new(wire: Arc<Wire>, request: Request<Body>, replay_buffer: Option<usize>) -> Self {
        let request = match replay_buffer {
            Some(limit) => request.map(|body| body.kept(limit)),
            None => request,
        };
        Self { wire, request: Some(request) }
    }
}

impl Exchange for HyperExchange {
    type Answer = http::Response<Incoming>;
    type Fault = legacy::Error;
    type Future = Sending;
    type Head = http::response::Parts;
    type Body = Incoming;
    type Response = http::Response<ResponseBody<Incoming>>;

    fn is_replayable(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.body().is_replayable())
    }

    fn request(&self) -> Option<Attempt<'_>> {
        self.request.as_ref().map(|request| Attempt {
            number: 0,
            method: request.method(),
            url: request.uri().to_string().into(),
            headers: request.headers(),
            body: request.body().as_bytes().filter(|bytes| !bytes.is_empty()),
        })
    }

    fn launch(&mut self, outbound: Outbound, now: Tick) -> Option<Sending> {
        // A stream is sent once; one that outgrew its buffer was, and what is left of it is no request.
        if outbound.number > 1 && !self.is_replayable() {
            return None;
        }
        let kept = self.request.as_ref()?;
        let body = if outbound.last { None } else { kept.body().replay() };
        let mut request = match body {
            Some(body) => again(kept, body),
            None => self.request.take()?,
        };
        if let Some(target) = &outbound.target {
            readdress(request.uri_mut(), target.endpoint.origin());
        }
        outbound.apply(request.headers_mut(), now);
        Some(self.wire.send(request))
    }

    fn expired(future: Pin<&mut Sending>) {
        future.expired();
    }

    fn end(end: &Result<Self::Answer, Self::Fault>) -> Ended<'_> {
        match end {
            Ok(response) => Ended::Response(response.status(), response.headers()),
            Err(error) => Ended::Error(error),
        }
    }

    fn is_unending(answer: &Self::Answer) -> bool {
        announces_stream(answer.status(), answer.headers())
    }

    fn dismantle(answer: Self::Answer) -> (Self::Head, Self::Body) {
        answer.into_parts()
    }

    fn seal(answer: Self::Answer, guard: Guard) -> Self::Response {
        answer.map(|body| ResponseBody::live(body, guard))
    }

    fn reassemble(head: Self::Head, body: KeptBody, report: CallReport) -> Self::Response {
        http::Response::from_parts(head, ResponseBody::kept(body, report))
    }
}
