//! Takes the deadline from the request, and holds the handler to it.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use crate::advice::{SHED, SHED_CUT, SHED_DEADLINE};
use crate::deadline::{self, Deadline, header, sync_scope_reserving};
use crate::invalid::Invalid;
use crate::invalid::{at_most_ten_years, positive};
use crate::{media, time};

/// What to make of the time a caller says is left. Plain data: [`DeadlineLayer::new`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct DeadlinePolicy {
    header: HeaderName,
    max: Duration,
    absent: Option<Duration>,
    need: Duration,
    reserve: Option<Duration>,
    enforce: bool,
}

/// What is kept back for the answer unless the policy says otherwise: one part in so many, and at
/// most this.
const RESERVED_PART: u32 = 10;
const MOST_RESERVED: Duration = Duration::from_millis(100);

impl DeadlinePolicy {
    /// At most 60 s, none when the caller doesn't say, nothing needed, a tenth of the time kept
    /// back for the answer, enforced.
    pub const fn standard() -> Self {
        Self {
            header: header::EXPECTED_TIMEOUT,
            max: Duration::from_secs(60),
            absent: None,
            need: Duration::ZERO,
            reserve: None,
            enforce: true,
        }
    }

    /// The header that holds milliseconds. `grpc-timeout` is read as well, whatever it is called.
    /// Default `x-envoy-expected-rq-timeout-ms`.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = name;
        self
    }

    /// The most time a caller can ask for: what it says is from outside, and can only shorten.
    /// Default 60 s.
    pub const fn max(mut self, time: Duration) -> Self {
        self.max = time;
        self
    }

    /// The time a request has that doesn't say, at most `max`; `None` for no deadline. Default
    /// `None`.
    pub fn absent(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.absent = time.into();
        self
    }

    /// A request with less time than this is turned away: what the routes behind this layer take at
    /// best. Less than `max`. Default zero, which turns away only what is already too late.
    pub const fn need(mut self, time: Duration) -> Self {
        self.need = time;
        self
    }

    /// What the calls that the handler makes leave of its time, so that it can still answer, by a
    /// fallback say, before its caller gives up: so long, but never more than half of the time
    /// there is. Default a tenth of that, at most 100 ms.
    pub const fn reserve(mut self, time: Duration) -> Self {
        self.reserve = Some(time);
        self
    }

    /// Whether the handler is dropped when the time is over. Default true. Otherwise only the calls
    /// it makes end.
    pub const fn enforce(mut self, enforce: bool) -> Self {
        self.enforce = enforce;
        self
    }

    fn check(&self) -> Result<(), Invalid> {
        positive("deadline.max", self.max)?;
        at_most_ten_years("deadline.need", self.need)?;
        at_most_ten_years("deadline.reserve", self.reserve.unwrap_or_default())?;
        if self.need >= self.max {
            let problem = format!("must be shorter than deadline.max ({:?}), got {:?}", self.max, self.need);
            return Err(Invalid::new("deadline.need", problem));
        }
        let Some(absent) = self.absent else { return Ok(()) };
        positive("deadline.absent", absent)?;
        if absent > self.max || absent < self.need {
            let problem = format!(
                "must be between deadline.need ({:?}) and deadline.max ({:?}), got {absent:?}",
                self.need, self.max
            );
            return Err(Invalid::new("deadline.absent", problem));
        }
        Ok(())
    }

    /// The deadline of a request that has just arrived: the earliest of what it says and what
    /// already holds.
    fn deadline(&self, headers: &HeaderMap) -> Option<Deadline> {
        let said = header::parse_named(headers, &self.header).map(|time| time.min(self.max));
        let own = said.or(self.absent).map(Deadline::within);
        own.into_iter().chain(deadline::current()).min()
    }

    /// By when the calls made for a request have ended that has so long, and that deadline.
    fn for_calls(&self, left: Duration, deadline: Deadline) -> Deadline {
        let reserve = match self.reserve {
            Some(reserve) => reserve.min(left / 2),
            None => (left / RESERVED_PART).min(MOST_RESERVED),
        };
        if deadline.tick().is_never() { deadline } else { Deadline::within(left.saturating_sub(reserve)) }
    }
}

impl Default for DeadlinePolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// Makes the time a caller says is left the deadline of everything done for it. See the
/// [module docs](crate::server) for an example.
///
/// Layers nest: one round the whole server for the deadline, others round single routes for what
/// they `need`.
#[derive(Clone, Debug, Default)]
pub struct DeadlineLayer {
    policy: DeadlinePolicy,
}

impl DeadlineLayer {
    /// The layer of [`DeadlinePolicy::standard`].
    pub const fn standard() -> Self {
        Self { policy: DeadlinePolicy::standard() }
    }

    /// Checks the policy.
    ///
    /// # Errors
    /// Names the setting and the numbers when `max` or `absent` is zero, when a time is longer than
    /// ten years, when `need` is no shorter than `max`, or when `absent` isn't between the two:
    /// nothing, or nothing that doesn't say, would be served.
    pub fn new(policy: &DeadlinePolicy) -> Result<Self, Invalid> {
        policy.check()?;
        Ok(Self { policy: policy.clone() })
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, service: S) -> DeadlineService<S> {
        DeadlineService { service, policy: self.policy.clone() }
    }
}

/// A service behind a [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    service: S,
    policy: DeadlinePolicy,
}

impl<S, A, B> Service<Request<A>> for DeadlineService<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let dialect = Dialect::of(request.headers());
        let deadline = self.policy.deadline(request.headers());
        let times = deadline.map(|deadline| {
            let remaining = deadline.remaining();
            (remaining, Times { deadline, calls: self.policy.for_calls(remaining, deadline) })
        });
        let hopeless =
            times.as_ref().is_some_and(|(remaining, _)| remaining.is_zero() || *remaining < self.policy.need);
        let times = times.map(|(_, times)| times);
        let future = if hopeless {
            // `poll_ready` may have reserved a place in it, which only a call or a drop gives back.
            // The clone is asked anew.
            self.service = self.service.clone();
            None
        } else {
            Some(match times {
                Some(times) => times.scope(|| self.service.call(request)),
                None => self.service.call(request),
            })
        };
        DeadlineFuture {
            future,
            begun: false,
            times,
            enforce: self.policy.enforce,
            timer: None,
            dialect,
            body: PhantomData,
        }
    }
}

/// By when a request's handler has answered, and the calls it makes have.
#[derive(Clone, Copy, Debug)]
struct Times {
    deadline: Deadline,
    calls: Deadline,
}

impl Times {
    fn scope<T>(self, act: impl FnOnce() -> T) -> T {
        sync_scope_reserving(self.deadline, self.calls, act)
    }
}

pin_project! {
    /// A response to come, behind a [`DeadlineLayer`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct DeadlineFuture<F, B> {
        // The handler's; `None` when it has no time, or no more.
        #[pin]
        future: Option<F>,
        // Whether it was polled: what wasn't has done nothing.
        begun: bool,
        times: Option<Times>,
        enforce: bool,
        // Made when the handler first has to wait.
        #[pin]
        timer: Option<Sleep>,
        dialect: Dialect,
        body: PhantomData<fn() -> B>,
    }
}

impl<F, B, E> Future for DeadlineFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let Some(times) = *this.times else {
            return match this.future.as_pin_mut() {
                Some(future) => future.poll(cx),
                None => Poll::Ready(Ok(this.dialect.too_late(SHED_DEADLINE))),
            };
        };
        // The clock comes first: a handler that wakes after its deadline does no more work.
        if *this.enforce {
            let over = match this.timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(cx).is_ready(),
                None => times.deadline.is_past(),
            };
            if over {
                this.future.set(None);
            }
        }
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            let mark = if *this.begun { SHED_CUT } else { SHED_DEADLINE };
            return Poll::Ready(Ok(this.dialect.too_late(mark)));
        };
        *this.begun = true;
        if let Poll::Ready(result) = times.scope(|| future.poll(cx)) {
            return Poll::Ready(result);
        }
        if *this.enforce && this.timer.is_none() {
            this.timer.set(Some(tokio::time::sleep_until(time::instant(times.deadline.tick()))));
            let fired = this.timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready());
            if fired {
                this.future.set(None);
                return Poll::Ready(Ok(this.dialect.too_late(SHED_CUT)));
            }
        }
        Poll::Pending
    }
}

/// How a request's protocol says that it is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Http,
    Grpc,
}

impl Dialect {
    fn of(headers: &HeaderMap) -> Self {
        if media::is_grpc(headers) { Self::Grpc } else { Self::Http }
    }

    fn too_late<B: Default>(self, mark: HeaderValue) -> Response<B> {
        let mut response = Response::new(B::default());
        response.headers_mut().insert(SHED, mark);
        match self {
            Self::Http => *response.status_mut() = StatusCode::GATEWAY_TIMEOUT,
            // "Trailers-Only", gRPC over HTTP/2. A plain 504 would be read as UNAVAILABLE, which
            // clients retry.
            Self::Grpc => {
                const DEADLINE_EXCEEDED: HeaderValue = HeaderValue::from_static("4");
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(HeaderName::from_static("grpc-status"), DEADLINE_EXCEEDED);
                headers.insert(
                    HeaderName::from_static("grpc-message"),
                    HeaderValue::from_static("deadline exceeded"),
                );
            }
        }
        response
    }
}
