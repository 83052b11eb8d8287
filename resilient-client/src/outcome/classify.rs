//! What a response or an error means: for the caller, for the breaker, and for whether to try again.
//!
//! | answer | outcome | breaker | tried again |
//! |---|---|---|---|
//! | 1xx, 2xx, 3xx, and 4xx not named below | success | success | no |
//! | 408 | failure | success | if safe to repeat |
//! | 425 | failure | success | once ([RFC 8470]: the server did not process it) |
//! | 429 | throttled | success | if safe to repeat |
//! | 500, 502, 503, 504 | failure | failure | if safe to repeat |
//! | 501, 505 and other 5xx | failure | failure | no |
//! | 504 that a server's [deadline layer](crate::advice::SHED) gave for want of time | ignored | nothing | no |
//! | 200 of gRPC with its status in the head | [by that status](super::grpc) | | |
//! | any of these, with [retry advice](crate::advice) not to | as above | as above | no |
//! | connect, DNS, TLS, connection lost before the write, h2 `REFUSED_STREAM`, h2 `GOAWAY` | failure | failure | yes |
//! | attempt timeout, other transport errors | failure | failure | if safe to repeat |
//! | a certificate that isn't accepted | failure | failure | no |
//! | the proxy: asks for authorization; can't be reached, breaks off (for `https`) | failure | nothing | no; yes |
//! | redirect refused, request that can't be built, request body that failed | failure, ignored | nothing | no |
//!
//! "Safe to repeat" is an idempotent method ([RFC 9110 section 9.2.2]), a request with `Idempotency-Key`, or one its
//! author marked. "Yes" holds for any method, because the server provably never processed the request.
//!
//! One caveat: a pooled connection that died *after* the request was written is not provable, so a POST on it isn't
//! repeated: the server may have done the work and lost only the answer.
//!
//! [RFC 8470]: https://www.rfc-editor.org/rfc/rfc8470#section-5.2
//! [RFC 9110 section 9.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2

use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use super::{FailureKind, Outcome, connecting, grpc, retry_after};
use crate::advice;
use crate::policy::breaker::Verdict;
use crate::transport::redirect::AfterRedirect;
use crate::transport::replay::ReplayError;

/// Whether another attempt makes sense after this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// No: the answer would be the same, or isn't a failure.
    Never,
    /// If the request is safe to repeat: the server may have processed it.
    IfSafe,
    /// Whatever the method: the server provably did not process it.
    Unprocessed,
    /// Whatever the method, but only one more time.
    Once,
}

/// Everything the rest of the call needs to know about an attempt's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// What the caller and the report see.
    pub outcome: Outcome,
    /// What the circuit breaker counts.
    pub verdict: Verdict,
    /// Whether to try again.
    pub repeat: Repeat,
    /// How long the server asked to be left alone, if it did.
    pub retry_after: Option<Duration>,
    /// The response's status, where there was one.
    pub status: Option<StatusCode>,
}

impl Classified {
    /// A failure of `kind` that counts against the breaker.
    pub const fn failure(kind: FailureKind, repeat: Repeat) -> Self {
        Self {
            outcome: Outcome::Failure(kind),
            verdict: Verdict::Failure,
            repeat,
            retry_after: None,
            status: None,
        }
    }

    /// The attempt timeout passed before the response's head came.
    pub const TIMEOUT: Self = Self::failure(FailureKind::Timeout, Repeat::IfSafe);

    /// An end that says nothing about the server.
    pub const IGNORED: Self = Self {
        outcome: Outcome::Ignored,
        verdict: Verdict::Neutral,
        repeat: Repeat::Never,
        retry_after: None,
        status: None,
    };
}

impl Classified {
    /// Whether the caller has the answer.
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Success
    }
}

/// How an attempt ended, as a [`Classify`] sees it.
#[derive(Clone, Copy, Debug)]
pub enum Ended<'a> {
    /// With the head of a response.
    Response(StatusCode, &'a HeaderMap),
    /// With an error of the transport.
    Error(&'a (dyn StdError + 'static)),
}

impl Ended<'_> {
    /// What the table above says.
    pub fn standard(self) -> Classified {
        self.by_table(true)
    }

    /// The same. `may_be_grpc` says whether an answer can be gRPC's without messages: to look for that in
    /// every head is dear.
    fn by_table(self, may_be_grpc: bool) -> Classified {
        match self {
            Self::Response(status, headers) => {
                let said =
                    if may_be_grpc && status == StatusCode::OK { grpc::classify(headers) } else { None };
                said.unwrap_or_else(|| response(status, headers))
            }
            Self::Error(source) => error(source),
        }
    }
}

/// Your own reading of how an attempt ended, in place of the [table](self).
///
/// It is given what the table says, and returns that for whatever it has no opinion on. Closures are classifiers:
///
/// ```
/// use resilient_client::outcome::classify::{Classified, Ended, Repeat};
/// use resilient_client::outcome::{FailureKind, Outcome};
/// use resilient_client::Policy;
///
/// // This service answers 404 while it warms up.
/// let warming_up = |end: Ended<'_>, standard: Classified| match end {
///     Ended::Response(status, _) if status == 404 => {
///         Classified { status: standard.status, ..Classified::failure(FailureKind::Status, Repeat::IfSafe) }
///     }
///     _ => standard,
/// };
/// let policy = Policy::standard().classify(warming_up);
/// ```
///
/// If it panics, the attempt is what the table says.
pub trait Classify: Send + Sync + 'static {
    /// What the end means, given what the table says it means.
    fn classify(&self, end: Ended<'_>, standard: Classified) -> Classified;
}

impl<F> Classify for F
where
    F: Fn(Ended<'_>, Classified) -> Classified + Send + Sync + 'static,
{
    fn classify(&self, end: Ended<'_>, standard: Classified) -> Classified {
        self(end, standard)
    }
}

/// A shared [`Classify`]. Two are equal when they are the same one.
#[derive(Clone)]
pub(crate) struct Classifier(Arc<dyn Classify>);

impl Classifier {
    pub(crate) fn new(classify: impl Classify) -> Self {
        Self(Arc::new(classify))
    }

    /// What `this` says of the end, or the table where there is none or it panics. `may_be_grpc`: it is an
    /// answer over HTTP/2 that has ended with its head.
    pub(crate) fn classify(this: Option<&Self>, end: Ended<'_>, may_be_grpc: bool) -> Classified {
        let standard = end.by_table(may_be_grpc);
        this.map_or(standard, |this| {
            catch_unwind(AssertUnwindSafe(|| this.0.classify(end, standard))).unwrap_or(standard)
        })
    }
}

impl PartialEq for Classifier {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classifier")
    }
}

/// Reads the head of a response.
///
/// `Retry-After` is parsed only where it can matter, for what is tried again, because reading a date needs
/// the wall clock.
fn response(status: StatusCode, headers: &HeaderMap) -> Classified {
    use StatusCode as S;
    let (outcome, verdict, repeat) = match status {
        S::TOO_MANY_REQUESTS => (Outcome::Throttled, Verdict::Success, Repeat::IfSafe),
        S::REQUEST_TIMEOUT => (Outcome::Failure(FailureKind::Status), Verdict::Success, Repeat::IfSafe),
        S::TOO_EARLY => (Outcome::Failure(FailureKind::Status), Verdict::Success, Repeat::Once),
        S::INTERNAL_SERVER_ERROR | S::BAD_GATEWAY | S::SERVICE_UNAVAILABLE | S::GATEWAY_TIMEOUT => {
            (Outcome::Failure(FailureKind::Status), Verdict::Failure, Repeat::IfSafe)
        }
        _ if status.is_server_error() => {
            (Outcome::Failure(FailureKind::Status), Verdict::Failure, Repeat::Never)
        }
        _ => (Outcome::Success, Verdict::Success, Repeat::Never),
    };
    if status == S::GATEWAY_TIMEOUT && advice::is_shed(headers) {
        // The server's own layer turned the request away for want of time: nothing was tried, nothing is wrong with it.
        return Classified { status: Some(status), ..Classified::IGNORED };
    }
    // Asked only where it can matter: looking for two long names in every head is dear.
    let forbidden = repeat != Repeat::Never && advice::forbids_retry(headers);
    let repeat = if forbidden { Repeat::Never } else { repeat };
    let retry_after = match status {
        S::REQUEST_TIMEOUT
        | S::TOO_EARLY
        | S::TOO_MANY_REQUESTS
        | S::INTERNAL_SERVER_ERROR
        | S::BAD_GATEWAY
        | S::SERVICE_UNAVAILABLE
        | S::GATEWAY_TIMEOUT => retry_after::parse(headers, crate::time::wall()),
        _ => None,
    };
    Classified { outcome, verdict, repeat, retry_after, status: Some(status) }
}

/// Reads an error of the transport by walking its chain of sources.
///
/// The chain is read rather than the outermost type because every layer between us and the socket wraps: what proves
/// that a request was never sent sits two or three levels down, as hyper's or h2's own type.
fn error(error: &(dyn StdError + 'static)) -> Classified {
    let mut link = Some(error);
    while let Some(this) = link {
        if let Some(found) = known(this) {
            return found;
        }
        link = this.source();
    }
    Classified::failure(FailureKind::Transport, Repeat::IfSafe)
}

fn known(error: &(dyn StdError + 'static)) -> Option<Classified> {
    if let Some(ours) = error.downcast_ref::<crate::Error>() {
        // A client of ours below a layer of ours: it has tried already, and its refusals say nothing about the server.
        return (ours.is_rejected() || ours.is_config()).then_some(Classified::IGNORED);
    }
    if let Some(error) = error.downcast_ref::<ReplayError>() {
        // Ours, not the server's. One that was cut off must not end a call whose other attempt has the rest.
        let repeat = if error.is_cut_off() { Repeat::IfSafe } else { Repeat::Never };
        return Some(Classified { repeat, ..Classified::IGNORED });
    }
    if error.is::<AfterRedirect>() {
        // Whatever befell the hop, the request it began with was answered.
        return Some(Classified::failure(FailureKind::Transport, Repeat::IfSafe));
    }
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        if error.is_builder() {
            return Some(Classified::IGNORED);
        }
        if error.is_redirect() {
            return Some(Classified {
                outcome: Outcome::Failure(FailureKind::Redirect),
                ..Classified::IGNORED
            });
        }
        if error.is_connect() {
            return Some(connecting::classify(error));
        }
        // The given client's own timeout; a connect timeout is both, and was asked first.
        return error.is_timeout().then_some(Classified::TIMEOUT);
    }
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect().then(|| connecting::classify(error));
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        if error.is_user() {
            // The request's own body failed, say. The replay buffer's error, further down, knows more.
            return (!caused_by::<ReplayError>(error)).then_some(Classified::IGNORED);
        }
        // hyper says "canceled" only when it hands back a message it never took off the queue to write.
        return error.is_canceled().then_some(Classified::failure(FailureKind::Unsent, Repeat::Unprocessed));
    }
    #[cfg(feature = "http2")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        if error.is_reset() && !error.is_remote() && !error.is_library() {
            // Reset from here, which hyper does when the request's own body failed.
            return Some(Classified::IGNORED);
        }
        return h2_unprocessed(error)
            .then_some(Classified::failure(FailureKind::Refused, Repeat::Unprocessed));
    }
    None
}

fn caused_by<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = error.source();
    while let Some(this) = cause {
        if this.is::<E>() {
            return true;
        }
        cause = this.source();
    }
    false
}

/// RFC 9113 sections 6.8 and 8.7: a stream refused, or above the last one a graceful GOAWAY admits, was not processed.
/// h2 fails exactly the streams above that last one with the GOAWAY itself.
#[cfg(feature = "http2")]
fn h2_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let gone = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.is_remote() && (refused || gone)
}

/// Whether RFC 9110 calls the method idempotent.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16) -> Classified {
        response(StatusCode::from_u16(status).unwrap(), &HeaderMap::new())
    }

    #[test]
    fn every_status_lands_where_the_table_says() {
        for status in 100..1000 {
            let got = of(status);
            let repeat = match status {
                425 => Repeat::Once,
                408 | 429 | 500 | 502 | 503 | 504 => Repeat::IfSafe,
                _ => Repeat::Never,
            };
            assert_eq!(got.repeat, repeat, "{status}");
            let verdict = if (500..600).contains(&status) { Verdict::Failure } else { Verdict::Success };
            assert_eq!(got.verdict, verdict, "{status}");
        }
    }

    #[test]
    fn retry_after_is_read_only_where_it_can_hold_a_call_back() {
        let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, "7".parse().unwrap())]);
        let retried = [408, 425, 429, 500, 502, 503, 504].map(|status| (status, Some(7)));
        for (status, expected) in retried.into_iter().chain([(301, None), (200, None), (501, None)]) {
            let got = response(StatusCode::from_u16(status).unwrap(), &headers).retry_after;
            assert_eq!(got, expected.map(Duration::from_secs), "{status}");
        }
    }

    #[test]
    fn an_unknown_error_is_a_transport_failure_repeated_only_if_safe() {
        let got = error(&std::io::Error::other("boom"));
        assert_eq!(got, Classified::failure(FailureKind::Transport, Repeat::IfSafe));
    }

    #[test]
    fn connect_and_patch_are_not_idempotent() {
        assert!(!is_idempotent(&Method::PATCH) && !is_idempotent(&Method::CONNECT));
        assert!(is_idempotent(&Method::PUT));
    }
}
