//! Any tower service as a transport.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body_length::Expected;
use crate::call::exchange::{Departure, Exchange, Outbound, announces_stream};
use crate::call::http_request::{address, again, readdress};
use crate::call::kept_body::KeptBody;
use crate::call::response_body::{Guard, ResponseBody};
use crate::engine::Address;
use crate::error::{BoxError, Error, ErrorKind};
use crate::hook::Attempt;
use crate::outcome::call_id::CallId;
use crate::outcome::classify::Ended;
use crate::outcome::classify::evidence::{Evidence, Fault};
use crate::outcome::report::CallReport;
use crate::replay::Replay;
use crate::time;
use crate::upstream::Upstream;

/// One call over clones of a tower service.
///
/// Each attempt waits for its own clone to be ready. So a service that is never ready costs an
/// attempt its timeout, not the caller its deadline.
#[derive(Debug)]
pub(crate) struct ServiceExchange<S, B> {
    service: S,
    /// `None` once the last attempt has taken it.
    request: Option<http::Request<B>>,
    /// It asks for the head alone.
    for_head: bool,
    /// The service follows no redirects.
    direct: bool,
}

impl<S, B: Replay> ServiceExchange<S, B> {
    pub(crate) fn new(service: S, request: http::Request<B>, direct: bool) -> Self {
        let for_head = request.method() == http::Method::HEAD;
        Self { service, request: Some(request), for_head, direct }
    }
}

impl<S, B, R> Exchange for ServiceExchange<S, B>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error: Into<BoxError>> + Clone,
    B: Replay,
    R: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Answer = http::Response<R>;
    type Fault = Fault;
    type Future = Attempting<S, B>;
    type Head = http::response::Parts;
    type Body = R;
    type Response = http::Response<ResponseBody<R>>;

    fn address(&self) -> Result<Address<'_>, Error> {
        self.request.as_ref().map_or_else(|| Err(Error::new(ErrorKind::Request)), address)
    }

    fn is_replayable(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.body().is_replayable())
    }

    fn request(&self) -> Option<Attempt<'_>> {
        self.request.as_ref().map(|request| Attempt {
            call: CallId::NONE,
            number: 0,
            method: request.method(),
            url: request.uri().to_string().into(),
            headers: request.headers(),
            body: None,
        })
    }

    fn launch(&mut self, outbound: Outbound, departure: Departure<'_, '_>) -> Option<Self::Future> {
        // A stream is sent once; one that outgrew its buffer was, and what is left of it is no
        // request.
        if outbound.number > 1 && !self.is_replayable() {
            return None;
        }
        let kept = self.request.as_ref()?;
        let body = if outbound.last { None } else { kept.body().replay() };
        let mut request = match body {
            Some(body) => again(kept, body),
            None if outbound.last => self.request.take()?,
            None => return None,
        };
        let Departure { upstream, cx, now } = departure;
        let mut service = self.service.clone();
        address_to(&outbound, &mut request);
        Some(match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                outbound.apply(request.headers_mut(), upstream, None, now);
                Attempting::Called { future: service.call(request) }
            }
            Poll::Ready(Err(error)) => Attempting::Unready { error: Some(error.into()) },
            Poll::Pending => {
                Attempting::Waiting { waiting: Some(Box::new(Waiting { service, request, outbound })) }
            }
        })
    }

    fn end(end: &Result<Self::Answer, Self::Fault>) -> Ended<'_> {
        match end {
            Ok(response) => Ended::Response(response.status(), response.headers()),
            Err(fault) => Ended::Error(&*fault.error),
        }
    }

    fn evidence(&mut self, end: &Result<Self::Answer, Self::Fault>, _: Option<&Upstream>) -> Evidence {
        let unknown = !self.direct && end.as_ref().is_err_and(|fault| fault.hopped);
        if unknown { Evidence::default() } else { Evidence::DIRECT }
    }

    /// A service may set to work when it is called.
    fn is_eager(future: &Self::Future) -> bool {
        matches!(future, Attempting::Called { .. })
    }

    #[inline]
    fn version(answer: &Self::Answer) -> http::Version {
        answer.version()
    }

    #[inline]
    fn may_be_grpc(answer: &Self::Answer) -> bool {
        answer.version() == http::Version::HTTP_2 && answer.body().is_end_stream()
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

    fn expected(&self, answer: &Self::Answer) -> Expected {
        Expected::at_head(self.for_head, answer.status(), &answer.body().size_hint())
    }

    fn dismantle(answer: Self::Answer) -> (Self::Head, Self::Body) {
        answer.into_parts()
    }

    #[cfg_attr(not(feature = "grpc"), allow(unused_mut, reason = "it has nothing else to be told"))]
    fn seal(&mut self, answer: Self::Answer, mut guard: Guard) -> Self::Response {
        #[cfg(feature = "grpc")]
        guard.ends_in_a_status();
        let expected = self.expected(&answer);
        let (head, body) = answer.into_parts();
        let mut response = http::Response::from_parts(head, ResponseBody::watched(body, guard, expected));
        response.body_mut().may_be_over();
        response
    }

    fn reassemble(&mut self, head: Self::Head, body: KeptBody, report: CallReport) -> Self::Response {
        http::Response::from_parts(head, ResponseBody::kept(body, report))
    }
}

/// Points the request at the attempt's own endpoint, if it has one.
fn address_to<B>(outbound: &Outbound, request: &mut http::Request<B>) {
    if let Some(target) = &outbound.target {
        readdress(request.uri_mut(), target.endpoint.origin());
    }
}

/// A request that goes out as soon as its service is ready.
pub(crate) struct Waiting<S, B> {
    service: S,
    request: http::Request<B>,
    outbound: Outbound,
}

/// The error of a service that wasn't ready, and so has been given nothing, whatever it does with
/// requests.
fn unready(error: impl Into<BoxError>) -> Fault {
    Fault { error: error.into(), stream: false, hopped: false }
}

pin_project! {
    /// One attempt. Most services are ready at once, so only the others are waited for, in a box.
    #[project = AttemptingProj]
    pub(crate) enum Attempting<S: Service<http::Request<B>>, B> {
        Unready { error: Option<BoxError> },
        Waiting { waiting: Option<Box<Waiting<S, B>>> },
        Called { #[pin] future: S::Future },
    }
}

impl<S, B> Future for Attempting<S, B>
where
    S: Service<http::Request<B>, Error: Into<BoxError>>,
{
    type Output = Result<S::Response, Fault>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let waiting = match self.as_mut().project() {
                AttemptingProj::Called { future } => {
                    return future.poll(cx).map_err(|error| Fault {
                        error: error.into(),
                        stream: false,
                        hopped: true,
                    });
                }
                AttemptingProj::Unready { error } => {
                    return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(unready(error))));
                }
                AttemptingProj::Waiting { waiting } => waiting,
            };
            let Some(first) = waiting else { return Poll::Pending };
            if let Err(error) = ready!(first.service.poll_ready(cx)) {
                *waiting = None;
                return Poll::Ready(Err(unready(error)));
            }
            let now = time::now();
            if now >= first.outbound.until {
                // Nobody would wait for the answer; the engine ends the attempt when it looks at
                // its clock.
                return Poll::Pending;
            }
            let Some(Waiting { mut service, mut request, outbound }) = waiting.take().map(|waiting| *waiting)
            else {
                return Poll::Pending;
            };
            outbound.apply_one_by_one(request.headers_mut(), now);
            let future = service.call(request);
            self.set(Attempting::Called { future });
        }
    }
}
