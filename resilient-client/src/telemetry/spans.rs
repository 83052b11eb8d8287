//! A call and its attempts as `tracing` spans, as OpenTelemetry's conventions for HTTP clients name
//! them.
//!
//! ```text
//! resilient_client.call                 internal; below whatever span the call was made in
//!   GET /users/{id}                     client; one an attempt, current while the transport is polled
//!   GET /users/{id}                     http.request.resend_count = 1; a hedge follows from one in flight
//! ```
//!
//! They are of the level info and the target `resilient_client`. While nobody listens at that level
//! nothing is built: a call has looked whether anybody does when it began. Where somebody does, but
//! not to these, nothing is built either: what stands in a span is put together when its own place
//! in the code has been asked for.
//!
//! Two things are so because of tracing-opentelemetry, through which most people see them. Numbers
//! are signed, as OpenTelemetry's are: it makes text of unsigned ones. And a span is entered once
//! more as it ends: it takes for the end when the span was left last, which is long before where an
//! attempt hung, or its body came slowly.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::{Method, StatusCode};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::span::{Entered, EnteredSpan};
use tracing::{Level, Span, info_span};
use url::Url;

use crate::authority::identity::UpstreamIdentity;
use crate::event::{CallEnd, KnownMethod};
use crate::origin::Origin;
use crate::outcome::Outcome;
#[cfg(feature = "grpc")]
use crate::outcome::classify::grpc::Code;
use crate::outcome::report::Trigger;
use crate::redact::{Template, redacted, redacted_text};

/// A call's span.
#[derive(Debug)]
pub(crate) struct CallSpan {
    span: Span,
    address: UpstreamIdentity,
    method: Method,
    template: Option<Template>,
}

/// An attempt about to be made.
pub(crate) struct Departing<'a> {
    pub(crate) number: u32,
    pub(crate) trigger: Trigger,
    pub(crate) endpoint: Option<&'a Origin>,
    /// The one in flight that it is sent beside.
    pub(crate) beside: Option<&'a AttemptSpan>,
}

/// Whether anything at all listens at their level. One relaxed load.
#[inline]
pub(crate) fn heard() -> bool {
    LevelFilter::current() >= Level::INFO
}

impl CallSpan {
    /// `None` while nobody listens.
    #[inline]
    pub(crate) fn begin(
        method: &Method,
        template: Option<&Template>,
        upstream: impl Fn() -> UpstreamIdentity,
    ) -> Option<Box<Self>> {
        if heard() { Self::make(method, template, upstream) } else { None }
    }

    #[cold]
    fn make(
        method: &Method,
        template: Option<&Template>,
        upstream: impl Fn() -> UpstreamIdentity,
    ) -> Option<Box<Self>> {
        // The macro looks at its fields' values once it knows that somebody wants them.
        let address = OnceCell::new();
        let whom = || address.get_or_init(&upstream);
        let span = info_span!(
            target: "resilient_client",
            "resilient_client.call",
            otel.kind = "internal",
            otel.status_code = Empty,
            http.request.method = KnownMethod::of(method).as_str(),
            http.request.method_original = original(method),
            server.address = whom().host(),
            server.port = whom().port().map(i64::from),
            url.template = template.map(Template::as_str),
            http.response.status_code = Empty,
            "error.type" = Empty,
            resilient_client.call.attempts = Empty,
        );
        if span.is_disabled() {
            return None;
        }
        let (address, template) = (address.into_inner().unwrap_or_else(upstream), template.cloned());
        Some(Box::new(Self { span, address, method: method.clone(), template }))
    }

    /// The span of an attempt, begun as it sets out to `url`.
    pub(crate) fn attempt<'u>(
        &self,
        departing: &Departing<'_>,
        url: impl Fn() -> Option<Cow<'u, str>>,
    ) -> Option<AttemptSpan> {
        let Self { span: call, address, method, template, .. } = self;
        let (known, template) = (KnownMethod::of(method), template.as_ref().map(Template::as_str));
        let span = info_span!(
            target: "resilient_client",
            parent: call,
            "resilient_client.attempt",
            otel.name = &*name(known, template),
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = known.as_str(),
            http.request.method_original = original(method),
            server.address = address.host(),
            server.port = address.port().map(i64::from),
            url.full = url().map(|url| shown_text(&url, template)),
            url.template = template,
            http.request.resend_count = (departing.number > 1).then(|| i64::from(departing.number) - 1),
            http.response.status_code = Empty,
            rpc.grpc.status_code = Empty,
            "error.type" = Empty,
            resilient_client.trigger = departing.trigger.as_str(),
            resilient_client.endpoint = departing.endpoint.map(Origin::as_str),
        );
        if departing.trigger == Trigger::Hedge
            && let Some(AttemptSpan(beside)) = departing.beside
        {
            // It is in flight, so its span is there: a link can be made to it.
            span.follows_from(beside);
        }
        (!span.is_disabled()).then(|| AttemptSpan(span))
    }

    /// What the call came to.
    #[cold]
    pub(crate) fn ended(&self, end: CallEnd, attempts: usize) {
        self.span.record("resilient_client.call.attempts", i64::try_from(attempts).unwrap_or(i64::MAX));
        match end {
            CallEnd::Response(status) => record_status(&self.span, status),
            CallEnd::FailedResponse(status, outcome) => {
                record_status(&self.span, status);
                record_error(&self.span, outcome.as_str());
            }
            CallEnd::Error(kind) => record_error(&self.span, kind.as_str()),
            // Nobody knows whether it would have been one.
            CallEnd::Dropped => _ = self.span.record("error.type", "dropped"),
        }
        lasts_until_now(&self.span);
    }

    /// Makes it current while the call is polled.
    #[cold]
    pub(crate) fn entered(&self) -> EnteredSpan {
        self.span.clone().entered()
    }
}

/// An attempt's span. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct AttemptSpan(Span);

impl AttemptSpan {
    /// Makes it current.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.0.enter()
    }

    /// Nothing was sent: a hook that was asked for it has failed or taken all its time, or what was
    /// to be sent is gone. Then it is no client's span: those are counted as requests.
    pub(crate) fn not_sent(&self) {
        self.0.record("otel.kind", "internal");
        record_error(&self.0, "not_sent");
    }

    /// What the attempt came to, in gRPC's words.
    #[cfg(feature = "grpc")]
    pub(crate) fn has_grpc_status(&self, code: Code) {
        self.0.record("rpc.grpc.status_code", i64::from(code.number()));
    }

    /// What the attempt came to.
    pub(crate) fn ended(&self, outcome: Outcome, status: Option<StatusCode>) {
        if let Some(status) = status {
            record_status(&self.0, status);
        }
        match (outcome, status) {
            (Outcome::Success, _) => {}
            (Outcome::Abandoned, _) => _ = self.0.record("error.type", outcome.as_str()),
            // The status says it.
            (_, Some(status)) if status.is_client_error() || status.is_server_error() => {}
            (outcome, _) => record_error(&self.0, outcome.as_str()),
        }
        lasts_until_now(&self.0);
    }
}

/// An attempt's name: of a method that isn't known the conventions say `HTTP`.
fn name(method: KnownMethod, template: Option<&str>) -> Cow<'static, str> {
    let verb = if method == KnownMethod::Other { "HTTP" } else { method.as_str() };
    template.map_or(Cow::Borrowed(verb), |template| Cow::Owned(format!("{verb} {template}")))
}

/// The method as it is sent, where the conventions know it as `_OTHER` alone.
fn original(method: &Method) -> Option<&str> {
    (KnownMethod::of(method) == KnownMethod::Other).then(|| method.as_str())
}

/// Enters it, and leaves it. A thread that ends drops its calls when whoever records spans may have
/// no place there any more, and a panic there would end the process.
fn lasts_until_now(span: &Span) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(span.enter())));
}

/// The conventions call any 4xx and 5xx an error of a client's span.
fn record_status(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_client_error() || status.is_server_error() {
        record_error(span, status.as_str());
    }
}

fn record_error(span: &Span, kind: &str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}

/// Without what may be secret: where a route has a template, what stands in the path for its names
/// may be.
fn shown_text(url: &str, template: Option<&str>) -> String {
    let Ok(url) = Url::parse(url) else { return redacted_text(url).into_owned() };
    let mut shown = redacted(&url);
    if let Some(template) = template {
        // Written as it is: a URL would have its braces escaped.
        shown.set_path("");
        let origin = shown.as_str().split('?').next().unwrap_or_default().trim_end_matches('/');
        let query = shown.query().map(|query| format!("?{query}")).unwrap_or_default();
        return format!("{origin}{template}{query}");
    }
    shown.into()
}
