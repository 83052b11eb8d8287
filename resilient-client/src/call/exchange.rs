//! The wire: what the engine needs of a way to send one kind of request.
//!
//! The engine knows no HTTP library. It drives an [`Exchange`], made for one call, which keeps what
//! is needed to send the request again, says what an answer means, and turns answers into the
//! caller's response type.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use http_body::Body;

use crate::body_length::Expected;
use crate::call::kept_body::KeptBody;
use crate::call::response_body::Guard;
use crate::deadline::header;
use crate::engine::Address;
use crate::error::{BoxError, Error};
use crate::hook::Attempt;
use crate::media;
use crate::outcome::FailureCause;
use crate::outcome::classify::Ended;
use crate::outcome::classify::evidence::Evidence;
use crate::outcome::report::{CallReport, Trigger};
use crate::time::Tick;
use crate::upstream::Upstream;
use crate::upstream::endpoints::Endpoint;

/// What is particular to one attempt.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// 1 for the first.
    pub(crate) number: u32,
    /// Why it is sent.
    pub(crate) trigger: Trigger,
    /// No other attempt can follow, so the request needn't be kept.
    pub(crate) last: bool,
    /// Until when the answer is waited for; it isn't sent any more then.
    pub(crate) until: Tick,
    /// The header that says how long that is, if the request bears one.
    pub(crate) deadline_header: Option<HeaderName>,
    /// From the second on the request says which it is.
    pub(crate) counts: bool,
    /// It has as long as most attempts do.
    pub(crate) usual: bool,
    // Both boxed: few calls have any, and this is moved about with every attempt.
    /// Where to, in place of what the URL says.
    pub(crate) target: Option<Box<Target>>,
    /// Headers to put over the request's own.
    pub(crate) headers: Option<Box<HeaderMap>>,
    /// It is a call by gRPC, whose server is told that it has until then; never for not at all.
    #[cfg(feature = "grpc")]
    pub(crate) grpc: Option<Tick>,
}

/// An endpoint behind the name that a request is addressed to.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Arc<Endpoint>,
    /// What the request names in its `Host` header, where that isn't the endpoint.
    pub(crate) host: Option<http::uri::Authority>,
}

impl Outbound {
    /// Puts this attempt's headers over the request's, just before it is sent: there is
    /// [room](MOST_HEADERS) for them. `host` is what `Host` says unless the request does, if the
    /// transport wants it to.
    ///
    /// Most requests have no headers and get the same ones, which are cloned: inserting them costs
    /// twice as much.
    #[inline]
    pub(crate) fn apply(
        self,
        headers: &mut HeaderMap,
        upstream: &Upstream,
        host: Option<&HeaderValue>,
        now: Tick,
    ) {
        let plain = self.usual && self.number == 1 && self.target.is_none() && self.headers.is_none();
        if plain
            && headers.is_empty()
            && let Some(name) = &self.deadline_header
        {
            let left = now.until(self.until);
            let (told, usual) = upstream.usual_headers(|| {
                // Room for what hyper and others add: a clone has as much, and growing is dear.
                let mut usual = HeaderMap::with_capacity(6);
                usual.extend(host.map(|host| (HOST, host.clone())));
                usual.extend(header::value(left).map(|value| (name.clone(), value)));
                (left, usual)
            });
            if *told == left {
                headers.clone_from(usual);
                return;
            }
        }
        if let Some(host) = host
            && !headers.contains_key(HOST)
        {
            headers.insert(HOST, host.clone());
        }
        self.apply_one_by_one(headers, now);
    }

    /// The same without a `Host` to set.
    pub(crate) fn apply_one_by_one(self, headers: &mut HeaderMap, now: Tick) {
        if let Some(host) = self.target.and_then(|target| target.host)
            && !headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(host.as_str())
        {
            headers.insert(HOST, host);
        }
        if let Some(extra) = self.headers {
            let mut last = None;
            for (name, value) in *extra {
                // A name comes with the first of its values only.
                match (name, &last) {
                    (Some(name), _) => {
                        headers.insert(name.clone(), value);
                        last = Some(name);
                    }
                    (None, Some(name)) => {
                        headers.append(name.clone(), value);
                    }
                    (None, None) => {}
                }
            }
        }
        if let Some(name) = self.deadline_header
            && !self.until.is_never()
            && let Some(value) = header::value(now.until(self.until))
        {
            headers.insert(name, value);
        }
        if self.counts && self.number > 1 {
            headers.insert(ATTEMPT_COUNT, HeaderValue::from(self.number));
        }
        #[cfg(feature = "grpc")]
        if let Some(until) = self.grpc {
            crate::grpc::write(headers, (!until.is_never()).then(|| now.until(until)), self.number);
        }
    }
}

/// The request header that counts attempts, from the second on (Envoy's, which servers and proxies
/// know), for those who are told how long their answers are waited for.
pub const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// What an attempt sets out with: where it has its place, whom to wake, and the time.
pub(crate) struct Departure<'a, 'b> {
    pub(crate) upstream: &'a Upstream,
    pub(crate) cx: &'a mut Context<'b>,
    pub(crate) now: Tick,
}

/// An attempt for which there is no more time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overdue<'a> {
    pub(crate) upstream: &'a Upstream,
    /// When it set out.
    pub(crate) since: Tick,
    pub(crate) now: Tick,
    /// Where it went others have been answered as recently as an attempt's time ago.
    pub(crate) alive: bool,
}

/// What a transport knows of an attempt that has used up its time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expired {
    /// Whose failure that is.
    pub(crate) cause: FailureCause,
    pub(crate) reached: Reached,
}

/// How far an attempt has come that has used up its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The server may have had all the time that it was on its way.
    #[default]
    Server,
    /// It has never been given a stream of its connection, as far as is known. It may still be
    /// given one when it is dropped.
    Line,
    /// Its connection goes away, and the `GOAWAY` excludes its stream: "not or will not be
    /// processed" (RFC 9113, section 6.8).
    #[cfg_attr(not(feature = "hyper"), allow(dead_code, reason = "reqwest shows no frames"))]
    Excluded,
}

/// One call's way to the wire.
pub(crate) trait Exchange {
    /// A response's head, with its body still to come.
    type Answer;
    /// An error without a response.
    type Fault: Into<BoxError>;
    /// One attempt.
    type Future: Future<Output = Result<Self::Answer, Self::Fault>>;
    /// An answer's head, apart from its body.
    type Head;
    /// An answer's body, apart from its head.
    type Body: Body<Data = Bytes, Error: Into<BoxError>>;
    /// What the caller gets.
    type Response;

    /// Whom the request is addressed to.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when it is gone, or its URL names no port or address that there could
    /// be.
    fn address(&self) -> Result<Address<'_>, Error>;

    /// Whether the request can be sent again.
    fn is_replayable(&self) -> bool;

    /// The request as it is kept; `None` when it is gone.
    fn request(&self) -> Option<Attempt<'_>>;

    /// Starts an attempt.
    ///
    /// `None` when the request is gone, which the engine rules out by asking
    /// [`is_replayable`](Self::is_replayable).
    fn launch(&mut self, outbound: Outbound, departure: Departure<'_, '_>) -> Option<Self::Future>;

    /// An attempt has used up its time and is about to be dropped for it, without an answer.
    /// `counts`: it is held against the server, and so against its connection.
    fn expired(&mut self, _future: Pin<&mut Self::Future>, _overdue: Overdue<'_>, _counts: bool) -> Expired {
        Expired::default()
    }

    /// Since when an attempt has its time: since it set out, or as much later as it had to wait
    /// until the server allowed one more stream of its connection. `now` while it does.
    fn begun(&self, _future: &Self::Future, overdue: Overdue<'_>) -> Tick {
        overdue.since
    }

    /// An attempt's end, as a classifier sees it.
    fn end(end: &Result<Self::Answer, Self::Fault>) -> Ended<'_>;

    /// What is known of an attempt's end at `upstream` besides what it says.
    fn evidence(
        &mut self,
        _end: &Result<Self::Answer, Self::Fault>,
        _upstream: Option<&Upstream>,
    ) -> Evidence {
        Evidence::default()
    }

    /// Whether an answer came over a connection that attempts share, as far as is known: a body
    /// that stalls may have that as its cause.
    #[inline]
    fn is_shared(answer: &Self::Answer) -> bool {
        Self::version(answer) >= Version::HTTP_2
    }

    /// The version of HTTP that an answer came by.
    fn version(answer: &Self::Answer) -> Version;

    /// A body that was part of its attempt has failed, or has not come in time.
    fn body_failed(&mut self) {}

    /// Whether an attempt that has been launched may be at work before it is polled.
    fn is_eager(_future: &Self::Future) -> bool {
        false
    }

    /// Whether an answer may be gRPC's without messages: over HTTP/2, and over with its head.
    fn may_be_grpc(answer: &Self::Answer) -> bool;

    /// Whether who reads an answer's body sees its trailers, whatever it is read with.
    #[cfg(feature = "grpc")]
    const SHOWS_TRAILERS: bool;

    /// An answer's headers.
    #[cfg(feature = "grpc")]
    fn headers(answer: &Self::Answer) -> &HeaderMap;

    /// Whether an answer's body has no end in sight: an upgrade, or server-sent events.
    fn is_unending(answer: &Self::Answer) -> bool;

    /// How much of an answer's body is to come, as far as its head tells.
    fn expected(&self, answer: &Self::Answer) -> Expected;

    /// Takes an answer apart, to set it aside while another attempt is made.
    fn dismantle(answer: Self::Answer) -> (Self::Head, Self::Body);

    /// The caller's response, its body watched by `guard`.
    fn seal(&mut self, answer: Self::Answer, guard: Guard) -> Self::Response;

    /// The caller's response from an answer that was read inside the call.
    fn reassemble(&mut self, head: Self::Head, body: KeptBody, report: CallReport) -> Self::Response;
}

/// Whether a head announces an upgrade (RFC 9110 section 15.2.2) or a body without an end.
pub(crate) fn announces_stream(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || media::is_unending(headers)
}

/// What a call comes to.
pub(super) type Finished<X> = Result<<X as Exchange>::Response, Error>;
