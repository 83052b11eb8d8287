//! W3C trace context: which trace a request belongs to, and whose child it is.
//!
//! A request's `traceparent` names its trace and the span that it is part of; `tracestate` is what
//! tracers add for each other. A service that hands both on, with an id of its own for each request
//! it makes, can be followed from outside whatever tracer looks. Read and written as [Trace
//! Context, level 2] says; what is invalid is as if it weren't there.
//!
//! - [`TraceContext::of`] reads a request's. With the feature `server`, `TraceContextLayer` does so
//!   for a server, and what its handlers do has it as [`current`].
//! - [`PropagateTrace`] gives each attempt of a client a span id of its own, below the current
//!   context or the one in the request's headers.
//!
//! Where a tracer is installed it knows better: a hook that asks the tracer for its headers takes
//! the place of `PropagateTrace`. The attempt's span is the current one while the hook is asked, so
//! each attempt is a span of the tracer's. With OpenTelemetry:
//!
//! ```ignore
//! client.on_attempt(|_: &Attempt<'_>| {
//!     let mut headers = HeaderMap::new();
//!     let context = tracing::Span::current().context();
//!     global::get_text_map_propagator(|it| it.inject_context(&context, &mut HeaderInjector(&mut headers)));
//!     Prepared::now(headers)
//! })
//! ```
//!
//! The repository's `examples/otlp` has it whole, with an exporter and a server's side.
//!
//! Like a [deadline](crate::deadline), the current context stays with the task: what `tokio::spawn`
//! starts has none, unless it is [handed over](carried).
//!
//! [Trace Context, level 2]: https://www.w3.org/TR/trace-context-2/

mod state;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue};
use pin_project_lite::pin_project;

use crate::hook::{Attempt, AttemptHook, Prepared};
use crate::rng::Rng;

/// The request header that names the trace and the span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The request header with what tracers add.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;
/// Whether the caller may have recorded it.
const SAMPLED: u8 = 0b01;
/// The trace's id is random.
const RANDOM: u8 = 0b10;

/// A trace, and one span of it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// What a request's headers say; `None` where they say nothing, or nothing valid.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let (given, None) = (given.next()?, given.next()) else { return None };
        let context = Self::parse(given.as_bytes())?;
        Some(Self { state: state::read(headers), ..context })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let [v1, v0, b'-', known @ ..] = known else { return None };
        let (trace, known) = known.split_at_checked(32)?;
        let [b'-', known @ ..] = known else { return None };
        let (span, known) = known.split_at_checked(16)?;
        let [b'-', flags @ ..] = known else { return None };
        let version = number(&[*v1, *v0])?;
        // Later versions may say more, behind a dash; what this one has stays in its place.
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let (trace, span, flags) = (number(trace)?, number(span)?, number(flags)?);
        let flags = flags as u8 & (SAMPLED | RANDOM);
        (fits && trace != 0 && span != 0).then_some(Self { trace, span: span as u64, flags, state: None })
    }

    /// A trace that begins here, and that nobody has asked to record.
    pub fn new() -> Self {
        let mut rng = Rng::from_thread();
        let trace = u128::from(rng.bits()) << 64 | u128::from(rng.bits().max(1));
        Self { trace, span: rng.bits().max(1), flags: RANDOM, state: None }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: Rng::from_thread().bits().max(1), ..self.clone() }
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        Hex::<32>(self.trace)
    }

    /// The span's id: 16 hexadecimal digits.
    pub fn span_id(&self) -> impl fmt::Display + use<> {
        Hex::<16>(self.span.into())
    }

    /// Whether the caller may have recorded it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What tracers have added, if anything.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Puts it into a request's headers, in place of what they say.
    pub fn write(&self, headers: &mut HeaderMap) {
        let parent = format!("00-{}-{}-{:02x}", self.trace_id(), self.span_id(), self.flags);
        // Digits and dashes are a header's value.
        if let Ok(parent) = HeaderValue::from_str(&parent) {
            headers.insert(TRACEPARENT, parent);
        }
        match self.state().map(HeaderValue::from_str) {
            Some(Ok(state)) => _ = headers.insert(TRACESTATE, state),
            _ => _ = headers.remove(TRACESTATE),
        }
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::new()
    }
}

struct Hex<const DIGITS: usize>(u128);

impl<const DIGITS: usize> fmt::Display for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

/// Of digits in lower case.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

thread_local! {
    static CURRENT: RefCell<Option<TraceContext>> = const { RefCell::new(None) };
}

/// The context of what this task is doing; `None` where nobody set one.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Does what `future` does in this context.
pub fn scope<F: Future>(context: TraceContext, future: F) -> Scope<F> {
    Scope { context: Some(context), future }
}

/// Does what `future` does in the context that is current now: for what is spawned.
pub fn carried<F: Future>(future: F) -> Scope<F> {
    Scope { context: current(), future }
}

/// The same for a future that is made in the context, too.
#[cfg(any(test, feature = "server"))]
pub(crate) fn within<F: Future>(context: Option<TraceContext>, make: impl FnOnce() -> F) -> Scope<F> {
    let entered = context.clone().map(Entered::under);
    let future = make();
    drop(entered);
    Scope { context, future }
}

pin_project! {
    /// See [`scope`] and [`carried`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct Scope<F> {
        context: Option<TraceContext>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.context.as_ref().map(|context| Entered::under(context.clone()));
        this.future.poll(cx)
    }
}

/// While it lives, a context is current on this thread.
struct Entered {
    before: Option<TraceContext>,
}

impl Entered {
    fn under(context: TraceContext) -> Self {
        let before = CURRENT.try_with(|current| current.replace(Some(context))).ok().flatten();
        Self { before }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Err: the thread is ending, and with it the cell.
        let _ = CURRENT.try_with(|current| current.replace(self.before.take()));
    }
}

/// A [hook](crate::ClientBuilder::on_attempt) that hands the trace context on: that of the
/// request's own headers, or else the [current] one, with a span id of its own for each attempt.
/// Without either nothing is sent.
///
/// A hook that has more to do calls [`headers`](Self::headers) and adds to what it gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct PropagateTrace;

impl PropagateTrace {
    /// The headers of this attempt.
    pub fn headers(attempt: &Attempt<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(context) = TraceContext::of(attempt.headers()).or_else(current) {
            context.child().write(&mut headers);
        }
        headers
    }
}

impl AttemptHook for PropagateTrace {
    fn prepare(&self, attempt: &Attempt<'_>) -> Prepared {
        Prepared::now(Self::headers(attempt))
    }
}
