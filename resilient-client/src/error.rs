//! The one error of this crate.

mod as_reqwest;
mod drop_in;
#[cfg(feature = "testing")]
mod made;
mod names;
pub(crate) mod words;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use url::Url;

use crate::outcome::rejection::Rejection;
use crate::outcome::report::CallReport;
use crate::outcome::{FailureKind, Outcome};
use crate::redact::{redacted, shown};
use crate::reqwest_error::{ReqwestError, without_url};

/// Any error, boxed.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a call has no response, or a response no body.
///
/// Opaque: ask [`kind`](Self::kind) or the `is_*` methods. `Display` says what happened at this
/// level only; the cause below is [`source`](StdError::source), and how the call went is
/// [`report`](Self::report). Query values and credentials of URLs never appear in any of them.
///
/// What reqwest's error has a method for has one of the same name and meaning here; `is_rejected`,
/// `is_unsent`, `is_circuit_open` and `is_config` are this crate's own.
///
/// ```
/// # fn handle(error: resilient_client::Error) -> &'static str {
/// use resilient_client::ErrorKind;
/// match error.kind() {
///     ErrorKind::CircuitOpen | ErrorKind::Throttled => "answer from what we know, try later",
///     ErrorKind::Config | ErrorKind::Request => "our own mistake",
///     _ if error.is_timeout() => "slow",
///     _ => "unreachable",
/// }
/// # }
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    detail: Option<String>,
    status: Option<StatusCode>,
    url: Option<Url>,
    retry_after: Option<Duration>,
    report: Option<CallReport>,
    source: Option<BoxError>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A policy, or an override of this call, can't work. Nothing was sent.
    Config,
    /// The request could not be built: a bad URL or header, a body that doesn't serialise. Nothing
    /// was sent; reqwest's word for it is builder. Or its own body, a stream or a file, failed
    /// while it was sent: then a part of it was, and reqwest's word is request.
    Request,
    /// No connection could be made: refused, unreachable, DNS, TLS or the connect timeout. Nothing
    /// was sent.
    Connect,
    /// The last attempt had no response within the attempt timeout.
    Timeout,
    /// The total time of the call ran out.
    Deadline,
    /// The circuit breaker is open. Nothing was sent; [`Error::retry_after`] says how long.
    CircuitOpen,
    /// The client is [draining](crate::Client::drain) and begins no call. Nothing was sent. Calls
    /// begun before follow redirects still.
    Draining,
    /// A [blocking](crate#where-to-go-on) client was called in async code, whose thread must not
    /// wait. Nothing was sent.
    WouldBlock,
    /// The upstream's bulkhead is full, and waiting for a place was not allowed or in vain. Nothing
    /// was sent.
    BulkheadFull,
    /// The upstream is overloaded: more attempts than it can answer in time are in flight, and
    /// waiting for a place was not allowed or in vain. Nothing was sent.
    Overloaded,
    /// The rate agreed on for the upstream is used up. Nothing was sent; [`Error::retry_after`]
    /// says how long.
    RateLimited,
    /// The upstream asked for a wait and the time isn't over, which [`Error::retry_after`] gives;
    /// or it refuses so much that most is held back here. Nothing was sent.
    Throttled,
    /// The name called has no endpoint: it doesn't resolve, or no list of them has been given.
    /// Nothing was sent.
    NoEndpoint,
    /// The connection broke after the request may have been read.
    Transport,
    /// The response's body was cut off, reset, or could not be decoded.
    Body,
    /// The response's body stopped coming for longer than the body's idle timeout, or than a timer
    /// of the transport's own.
    BodyIdle,
    /// The response's body is longer than the limit for reading it whole.
    BodyTooLarge,
    /// The body isn't the JSON it should be.
    Decode,
    /// Too many redirects, or one the policy forbids.
    Redirect,
    /// `error_for_status` was asked and the status is 4xx or 5xx.
    Status,
}

impl ErrorKind {
    /// Refused here, before anything was sent: by a breaker, a bulkhead, an overload limit, a rate
    /// limit, a throttle, a wait the server asked for, or a drain.
    pub const fn is_rejected(self) -> bool {
        matches!(
            self,
            Self::CircuitOpen
                | Self::BulkheadFull
                | Self::Overloaded
                | Self::RateLimited
                | Self::Throttled
                | Self::Draining
        )
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            detail: None,
            status: None,
            url: None,
            retry_after: None,
            report: None,
            source: None,
        }))
    }

    #[allow(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
    pub(crate) fn config(invalid: crate::invalid::Invalid) -> Self {
        Self::new(ErrorKind::Config).says(invalid.to_string())
    }

    pub(crate) fn rejected(rejection: Rejection) -> Self {
        let mut error = Self::new(match rejection {
            Rejection::CircuitOpen { .. } => ErrorKind::CircuitOpen,
            Rejection::BulkheadFull { .. } | Rejection::QueueWait { .. } => ErrorKind::BulkheadFull,
            Rejection::Overloaded { .. } | Rejection::Silent => ErrorKind::Overloaded,
            Rejection::RateLimited { .. } => ErrorKind::RateLimited,
            Rejection::NoEndpoint => ErrorKind::NoEndpoint,
            Rejection::HeldBack { .. } | Rejection::Throttled { .. } => ErrorKind::Throttled,
        });
        error.0.retry_after = rejection.retry_after();
        error.says(rejection.to_string())
    }

    /// The error of an attempt that ended as `outcome` without a response.
    pub(crate) fn attempt(outcome: Outcome) -> Self {
        Self::new(match outcome {
            Outcome::Failure(FailureKind::Connect) => ErrorKind::Connect,
            Outcome::Failure(FailureKind::Timeout) => ErrorKind::Timeout,
            Outcome::Failure(FailureKind::Body) => ErrorKind::Body,
            Outcome::Failure(FailureKind::BodyIdle) => ErrorKind::BodyIdle,
            Outcome::Failure(FailureKind::Redirect) => ErrorKind::Redirect,
            Outcome::Ignored => ErrorKind::Request,
            _ => ErrorKind::Transport,
        })
    }

    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(match source.into().downcast::<ReqwestError>() {
            Ok(error) => without_url(error),
            Err(source) => Quote::of(&*source).map_or(source, |quote| Box::new(quote)),
        });
        self
    }

    #[must_use]
    pub(crate) fn says(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub(crate) fn with_status(mut self, status: StatusCode, url: Option<&Url>) -> Self {
        self.0.status = Some(status);
        let template = self.0.report.as_ref().and_then(CallReport::template);
        self.0.url = url.map(|url| shown(url, template));
        self
    }

    #[must_use]
    pub(crate) fn with_report(mut self, report: CallReport) -> Self {
        self.0.report = Some(report);
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Refused here, before anything was sent: by a breaker, a bulkhead, an overload limit, a rate
    /// limit, a throttle, a wait the server asked for, or a drain.
    pub fn is_rejected(&self) -> bool {
        self.0.kind.is_rejected()
    }

    /// Time ran out: the call's total, the last attempt's, or the body's idle time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout | ErrorKind::Deadline | ErrorKind::BodyIdle)
    }

    /// No connection could be made, or there was nobody to connect to.
    pub fn is_connect(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connect | ErrorKind::NoEndpoint)
    }

    /// No attempt was processed by the server, provably: none was sent, no connection was made, or
    /// the server said so. A request that must not be repeated can still be sent elsewhere.
    pub fn is_unsent(&self) -> bool {
        match (&self.0.report, self.0.kind) {
            (Some(report), _) => report.is_unprocessed(),
            (None, kind) => matches!(
                kind,
                ErrorKind::Config | ErrorKind::Request | ErrorKind::Draining | ErrorKind::WouldBlock
            ),
        }
    }

    /// The circuit breaker is open.
    pub fn is_circuit_open(&self) -> bool {
        self.0.kind == ErrorKind::CircuitOpen
    }

    /// A policy or a per-call override can't work.
    pub fn is_config(&self) -> bool {
        self.0.kind == ErrorKind::Config
    }

    /// The status is 4xx or 5xx, and `error_for_status` was asked.
    pub fn is_status(&self) -> bool {
        self.0.kind == ErrorKind::Status
    }

    /// The response's status, for [`ErrorKind::Status`].
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The URL, for [`ErrorKind::Status`], without credentials, query values and fragment.
    pub fn url(&self) -> Option<&Url> {
        self.0.url.as_ref()
    }

    /// How long until a new call has a chance, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// How the call went. `None` for errors before a call began, such as a bad URL.
    pub fn report(&self) -> Option<&CallReport> {
        self.0.report.as_ref()
    }
}

/// The messages of a chain of errors in which somebody else's error holds reqwest's, with the URL
/// it names made safe. The chain itself can't be: who wraps an error hands out its source.
struct Quote {
    message: String,
    source: Option<Box<Quote>>,
}

impl Quote {
    /// `None` when there is nothing to hide.
    fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut link = Some(error);
        while let Some(this) = link {
            if let Some(url) = this.downcast_ref::<ReqwestError>().and_then(ReqwestError::url) {
                return Some(Self::without(error, url, redacted(url).as_str()));
            }
            link = this.source();
        }
        None
    }

    fn without(error: &(dyn StdError + 'static), url: &Url, clean: &str) -> Self {
        let message = error.to_string().replace(url.as_str(), clean);
        let source = error.source().map(|source| Box::new(Self::without(source, url, clean)));
        Self { message, source }
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source:?}"))
    }
}

impl StdError for Quote {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind {
            ErrorKind::Config => "invalid policy",
            ErrorKind::Request if self.was_built() => "request could not be sent",
            ErrorKind::Request => "request could not be built",
            ErrorKind::Connect => "no connection",
            ErrorKind::Timeout => "no response within the attempt timeout",
            ErrorKind::Deadline => "the call's time ran out",
            ErrorKind::CircuitOpen => "circuit breaker is open",
            ErrorKind::Draining => "the client is draining",
            ErrorKind::WouldBlock => "a blocking call in async code",
            ErrorKind::BulkheadFull => "bulkhead is full",
            ErrorKind::Overloaded => "the server is overloaded",
            ErrorKind::RateLimited => "rate limit is used up",
            ErrorKind::NoEndpoint => "nowhere to send it",
            ErrorKind::Throttled => "held back to spare the server",
            ErrorKind::Transport => "connection failed",
            ErrorKind::Body => "response body failed",
            ErrorKind::BodyIdle => "response body stalled",
            ErrorKind::BodyTooLarge => "response body is too large",
            ErrorKind::Decode => "response body is not the expected JSON",
            ErrorKind::Redirect => "redirect refused",
            ErrorKind::Status => "response status is an error",
        })?;
        if let Some(status) = self.0.status {
            write!(f, ": {status}")?;
        }
        if let Some(detail) = &self.0.detail {
            write!(f, ": {detail}")?;
        }
        match (&self.0.url, &self.0.report) {
            (Some(url), _) => write!(f, " ({url})"),
            (None, Some(report)) => write!(f, " ({})", report.upstream()),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind);
        if let Some(detail) = &self.0.detail {
            out.field("detail", detail);
        }
        if let Some(status) = &self.0.status {
            out.field("status", status);
        }
        if let Some(url) = &self.0.url {
            out.field("url", &url.as_str());
        }
        if let Some(retry_after) = &self.0.retry_after {
            out.field("retry_after", retry_after);
        }
        if let Some(report) = &self.0.report {
            out.field("report", &format_args!("{report}"));
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redact::redacted_text;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]
        /// The marker stands for the secret, among whatever else its place may hold.
        #[test]
        fn no_secret_outlives_redaction(
            scheme in prop::sample::select(vec!["http", "https", "ws", "x-own"]),
            user in "[^/?#@\\\\:\\[\\]]{0,8}", password in "[^/?#@\\\\\\[\\]]{0,8}",
            names in prop::collection::vec("[^&#=+%]{0,8}", 0..5),
            value in "[^&#]{0,8}", after in "[^&#]{0,8}", fragment in ".{0,12}",
        ) {
            const SECRET: &str = "s3cr3t";
            let query: Vec<_> = names.iter().map(|name| format!("{name}={value}{SECRET}{after}")).collect();
            let url = format!(
                "{scheme}://{user}{SECRET}:{password}{SECRET}@users:3000/a?{}#{SECRET}{fragment}", query.join("&"),
            );
            // What isn't a URL gets no further.
            let Ok(url) = Url::parse(&url) else { return Ok(()) };
            prop_assert!(url.as_str().contains(SECRET), "the secrets were there: {}", url);
            let clean = redacted(&url);
            prop_assert!(!clean.as_str().contains(SECRET), "{}", clean);
            prop_assert_eq!((clean.host_str(), clean.path()), (Some("users"), "/a"));
            let error = Error::new(ErrorKind::Status).with_status(StatusCode::NOT_FOUND, Some(&url));
            let said = format!("{error} {error:?} {error:#?}");
            prop_assert!(!said.contains(SECRET), "{}", said);
        }
    }

    proptest! {
        /// Whatever there is before an `@`, and after a `?` or `#`.
        #[test]
        fn no_secret_outlives_the_redaction_of_a_text(
            scheme in "(https?://|)", user in "[^?#]{0,8}", rest in "[^@?#]{0,8}", query in "[?#].{0,8}",
        ) {
            const SECRET: &str = "s3cr3t";
            let text = format!("{scheme}{user}{SECRET}@{rest}{query}{SECRET}");
            let shown = redacted_text(&text);
            prop_assert!(!shown.contains(SECRET) && shown.ends_with(&rest), "{}", shown);
        }
    }

    #[cfg(feature = "reqwest")]
    #[derive(Debug)]
    struct Wrapper(reqwest::Error);

    #[cfg(feature = "reqwest")]
    impl fmt::Display for Wrapper {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "lookup failed: {}", self.0)
        }
    }

    #[cfg(feature = "reqwest")]
    impl StdError for Wrapper {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    /// A tower service's own error, with reqwest's inside, told the whole URL.
    #[cfg(feature = "reqwest")]
    #[tokio::test]
    async fn an_error_inside_somebody_elses_keeps_no_secret_either() {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let inner = client.get("http://alice:hunter2@127.0.0.1:1/a?token=s3cret").send().await.unwrap_err();
        assert!(inner.to_string().contains("s3cret"), "reqwest tells it, or this test shows nothing");
        let error = Error::new(ErrorKind::Transport).because(Wrapper(inner));
        let (mut told, mut link) = (format!("{error:?} {error:#?}"), error.source());
        assert!(link.unwrap().to_string().starts_with("lookup failed: "), "what it says otherwise stays");
        while let Some(this) = link {
            told = format!("{told}\n{this} {this:?}");
            link = this.source();
        }
        assert!(!told.contains("s3cret") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn display_says_its_own_level_only() {
        let error = Error::new(ErrorKind::Connect).because(std::io::Error::other("root cause"));
        assert_eq!(error.to_string(), "no connection");
        assert_eq!(error.source().unwrap().to_string(), "root cause");
    }
}
