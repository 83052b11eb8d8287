//! What a call's report must say.

use super::sealed::Sealed;
use crate::Error;
use crate::call::response_body::ResponseBody;
use crate::outcome::report::{AttemptReport, CallReport};
use crate::outcome::{FailureKind, Outcome};

/// What has a [`CallReport`].
pub trait Reported: Sealed {
    /// How the call went; `None` for an error before one began.
    fn call_report(&self) -> Option<&CallReport>;
}

macro_rules! reported {
    ($($(#[$only:meta])* $type:ty: |$this:ident| $report:expr;)*) => {
        $(
            $(#[$only])*
            impl Sealed for $type {}

            $(#[$only])*
            impl Reported for $type {
                fn call_report(&self) -> Option<&CallReport> {
                    let $this = self;
                    $report
                }
            }
        )*
    };
}

reported! {
    CallReport: |this| Some(this);
    Error: |this| this.report();
    #[cfg(feature = "reqwest")]
    crate::Response: |this| Some(this.report());
    #[cfg(feature = "blocking")]
    crate::blocking::Response: |this| Some(this.report());
    #[cfg(feature = "hyper")]
    crate::hyper::Response: |this| Some(this.report());
}

impl<B> Sealed for http::Response<ResponseBody<B>> {}

impl<B> Reported for http::Response<ResponseBody<B>> {
    fn call_report(&self) -> Option<&CallReport> {
        Some(self.body().report())
    }
}

/// Whether those were the attempts, in this order and no others. Each is said in two words, of
/// which the first is [why it was sent](crate::Trigger::as_str) and the second its status, where
/// that says what it came to; else [what it came to](crate::outcome::Outcome::as_str), be it that
/// no head came or that something went wrong after it:
///
/// `first 503`, `retry 200`, `first timeout`, `hedge 200`, `retry connect`, `retry transport`,
/// `retry body`, `first abandoned`; and `first in-flight` for what the call didn't wait for.
///
/// ```
/// # use resilient_client::testing::{Script, assert_attempts, get};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), resilient_client::Error> {
/// # let script = Script::new().on(get("/").fails(1).then_text("well"));
/// # let client = resilient_client::Client::builder().script(&script).build()?;
/// let response = client.get("http://users/").send().await?;
/// // Two attempts, the second a retry after a 503.
/// assert_attempts(&response, ["first 503", "retry 200"]);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// When not, with the whole report.
#[track_caller]
pub fn assert_attempts<S: AsRef<str>>(of: &impl Reported, expected: impl IntoIterator<Item = S>) {
    let expected: Vec<_> = expected.into_iter().map(|words| words.as_ref().to_owned()).collect();
    let attempts: Vec<_> = of.call_report().map_or(&[][..], CallReport::attempts).iter().map(said).collect();
    assert!(attempts == expected, "expected: {expected:?}\nattempts: {attempts:?}\n{}", whole(of));
}

/// Whether those were the reasons not to make another attempt, in this order and no others, by
/// [name](crate::Decline::as_str): `not_safe`, `budget_exhausted`, `attempts_exhausted`.
///
/// # Panics
/// When not, with the whole report.
#[track_caller]
pub fn assert_declined<S: AsRef<str>>(of: &impl Reported, expected: impl IntoIterator<Item = S>) {
    let expected: Vec<_> = expected.into_iter().map(|name| name.as_ref().to_owned()).collect();
    let declined = of.call_report().map_or(&[][..], CallReport::declined);
    let declined: Vec<_> = declined.iter().map(|why| why.as_str().to_owned()).collect();
    assert!(declined == expected, "expected: {expected:?}\ndeclined: {declined:?}\n{}", whole(of));
}

fn said(attempt: &AttemptReport) -> String {
    let trigger = attempt.trigger();
    match (attempt.outcome(), attempt.status()) {
        (Some(outcome), Some(status)) if comes_of_status(outcome) => format!("{trigger} {}", status.as_u16()),
        (Some(outcome), _) => format!("{trigger} {outcome}"),
        (None, _) => format!("{trigger} in-flight"),
    }
}

/// Whether it was the response's head that said so: of one whose body broke, or that another
/// overtook, the head said something else.
fn comes_of_status(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Success | Outcome::Failure(FailureKind::Status) | Outcome::Throttled)
}

fn whole(of: &impl Reported) -> String {
    of.call_report().map_or_else(|| "there is no report: no call began".to_owned(), ToString::to_string)
}
