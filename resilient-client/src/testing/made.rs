//! Errors and reports that no call has brought, for code that takes them.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use url::Url;

use crate::error::BoxError;
use crate::outcome::call_id::CallId;
use crate::outcome::classify::Ended;
use crate::outcome::rejection::Rejection;
use crate::outcome::report::{CallReport, Decline, Trigger};
use crate::outcome::{FailureKind, Outcome};
use crate::time::Tick;
use crate::{Error, ErrorKind};

/// Whom made calls went to, unless it is said.
pub(super) const UPSTREAM: &str = "http://upstream.test";

/// A report of a call to this upstream, such as `http://users:3000`.
///
/// ```
/// use std::time::Duration;
/// use resilient_client::testing::{assert_attempts, report};
/// use resilient_client::{Decline, Trigger};
///
/// let report = report("http://users:3000")
///     .answered(Trigger::First, 503, Duration::from_millis(3))
///     .declined(Decline::BudgetExhausted)
///     .build();
/// assert_attempts(&report, ["first 503"]);
/// assert!(report.to_string().contains("retry budget is empty"));
/// ```
pub fn report(upstream: &str) -> ReportMaker {
    let report = CallReport::new(CallId::NONE, upstream.into(), 0, Tick::ZERO);
    ReportMaker { report, now: Tick::ZERO, attempts: 0 }
}

/// Makes a [`CallReport`]. From [`report`].
#[derive(Clone, Debug)]
#[must_use = "it makes nothing until `build`"]
pub struct ReportMaker {
    report: CallReport,
    now: Tick,
    attempts: u32,
}

impl ReportMaker {
    fn ended(
        mut self,
        trigger: Trigger,
        took: Duration,
        outcome: Outcome,
        status: Option<StatusCode>,
    ) -> Self {
        self.attempts += 1;
        self.report.launched(self.attempts, trigger, None, self.now);
        self.now = self.now.after(took);
        self.report.settled(self.attempts, outcome, status, self.now);
        self
    }

    /// One more attempt, sent for this reason when the one before it had ended, which got this
    /// status within that time.
    ///
    /// # Panics
    /// When that is no status.
    #[track_caller]
    pub fn answered(self, trigger: Trigger, status: u16, took: Duration) -> Self {
        let Ok(status) = StatusCode::from_u16(status) else { panic!("{status} is no status") };
        let outcome = Ended::Response(status, &HeaderMap::new()).standard().outcome;
        self.ended(trigger, took, outcome, Some(status))
    }

    /// One more attempt, which got no answer and failed there.
    pub fn failed(self, trigger: Trigger, kind: FailureKind, took: Duration) -> Self {
        let mut made = self.ended(trigger, took, Outcome::Failure(kind), None);
        if matches!(kind, FailureKind::Connect | FailureKind::Unsent | FailureKind::Refused) {
            made.report.unprocessed();
        }
        made
    }

    /// No other attempt was made, for this reason.
    pub fn declined(mut self, why: Decline) -> Self {
        self.report.decline(why);
        self
    }

    /// The next waited so long to be let in.
    pub fn queued(mut self, waited: Duration) -> Self {
        let since = self.now;
        self.now = since.after(waited);
        self.report.waited(since, self.now);
        self
    }

    /// The report.
    pub fn build(mut self) -> CallReport {
        self.report.finish(self.now, false);
        self.report
    }
}

/// An error of any kind. It looks as one of a call that made one attempt, or none where that kind
/// is of calls that make none; [`report`](ErrorMaker::report) says otherwise.
///
/// ```
/// use std::time::Duration;
/// use resilient_client::testing::error;
/// use resilient_client::{Error, ErrorKind};
///
/// fn degraded(error: &Error) -> bool {
///     error.is_rejected() || error.is_connect()
/// }
/// assert!(degraded(&error(ErrorKind::CircuitOpen).retry_after(Duration::from_secs(1)).build()));
/// assert!(degraded(&error(ErrorKind::Connect).build()));
/// assert!(!degraded(&error(ErrorKind::Timeout).build()));
/// ```
pub fn error(kind: ErrorKind) -> ErrorMaker {
    ErrorMaker { error: Error::new(kind), report: usual_report(kind), status: usual_status(kind), url: None }
}

/// The error of a call that was refused for this reason, such as
/// [`Rejection::RateLimited`](crate::Rejection::RateLimited).
pub fn rejected(why: Rejection) -> ErrorMaker {
    let error = Error::rejected(why);
    ErrorMaker { report: usual_report(error.kind()), error, status: None, url: None }
}

fn usual_report(kind: ErrorKind) -> Option<CallReport> {
    use ErrorKind as E;
    let (made, soon) = (report(UPSTREAM), Duration::from_millis(1));
    let failed = |kind| report(UPSTREAM).failed(Trigger::First, kind, soon);
    let made = match kind {
        // No call begins.
        E::Config | E::Request | E::Draining | E::WouldBlock => return None,
        E::Connect => failed(FailureKind::Connect),
        E::Timeout | E::Deadline => failed(FailureKind::Timeout),
        E::Transport => failed(FailureKind::Transport),
        E::Redirect => failed(FailureKind::Redirect),
        E::Status => made.answered(Trigger::First, 500, soon),
        E::Body | E::BodyIdle | E::BodyTooLarge | E::Decode => made.answered(Trigger::First, 200, soon),
        E::CircuitOpen | E::BulkheadFull | E::Overloaded | E::RateLimited | E::Throttled | E::NoEndpoint => {
            made
        }
    };
    Some(made.build())
}

fn usual_status(kind: ErrorKind) -> Option<StatusCode> {
    (kind == ErrorKind::Status).then_some(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Makes an [`Error`]. From [`error`] or [`rejected`].
#[derive(Debug)]
#[must_use = "it makes nothing until `build`"]
pub struct ErrorMaker {
    error: Error,
    report: Option<CallReport>,
    status: Option<StatusCode>,
    url: Option<Url>,
}

impl ErrorMaker {
    /// What it says besides its kind.
    pub fn says(mut self, detail: impl Into<String>) -> Self {
        self.error = self.error.says(detail);
        self
    }

    /// Its [source](std::error::Error::source).
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.error = self.error.because(source);
        self
    }

    /// How long until a new call has a chance.
    pub fn retry_after(mut self, retry_after: Duration) -> Self {
        self.error = self.error.with_retry_after(retry_after);
        self
    }

    /// How the call went.
    pub fn report(mut self, report: CallReport) -> Self {
        self.report = Some(report);
        self
    }

    /// The response's status. Default for [`ErrorKind::Status`] a 500.
    ///
    /// # Panics
    /// When that is no status.
    #[track_caller]
    pub fn status(mut self, status: u16) -> Self {
        let Ok(known) = StatusCode::from_u16(status) else { panic!("{status} is no status") };
        self.status = Some(known);
        self
    }

    /// The URL that was called.
    ///
    /// # Panics
    /// When that is none.
    #[track_caller]
    pub fn url(mut self, url: &str) -> Self {
        self.url = Some(parsed(url));
        self
    }

    /// The error.
    pub fn build(self) -> Error {
        let Self { mut error, report, status, url } = self;
        if let Some(report) = report {
            error = error.with_report(report);
        }
        match (status, url) {
            (Some(status), url) => error.with_status(status, url.as_ref()),
            (None, Some(url)) => error.with_url(url),
            (None, None) => error,
        }
    }
}

impl From<ErrorMaker> for Error {
    fn from(maker: ErrorMaker) -> Self {
        maker.build()
    }
}

#[track_caller]
pub(super) fn parsed(url: &str) -> Url {
    match Url::parse(url) {
        Ok(url) => url,
        Err(error) => panic!("{url} is no URL: {error}"),
    }
}
