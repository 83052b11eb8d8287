//! What a response or an error means: for the caller, for the breaker, and for whether to try
//! again.
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
//! | 504 with which it cut off what it had begun | as the attempt timeout | failure | if safe to repeat |
//! | gRPC | [by its status](super::classify::grpc) | | |
//! | any of these, with [retry advice](crate::advice) not to | as above | as above | no |
//! | connect, DNS, TLS, a connection that ends as it is made | failure | failure | yes |
//! | the same for want of descriptors, ports or buffers of our own | failure | nothing | yes |
//! | connection lost before the write, one that had carried requests (hyper) | failure | nothing | yes, free, at once |
//! | connection lost before the write, otherwise | failure | failure | yes |
//! | a connection that another call was making, and left | failure | nothing | yes, free, at once |
//! | h2 `REFUSED_STREAM`; h2 graceful `GOAWAY` that excludes the stream | failure | nothing | yes, free |
//! | h2 `GOAWAY` with an error that excludes the stream | failure | failure | yes |
//! | h2 graceful `GOAWAY` where nothing shows that it excludes the stream; a runtime that ended | failure | nothing | if safe, free |
//! | h2 `GOAWAY` with an error where nothing shows that it excludes the stream | failure | failure | if safe to repeat |
//! | connection lost that HTTP/1.1 had in its pool, where that is known (hyper) | failure | failure | if safe, free |
//! | attempt timeout, other transport errors | failure | failure | if safe to repeat |
//! | a tower service's own load-shed | failure | nothing | no |
//! | a certificate that isn't accepted | failure | failure | no |
//! | the proxy: asks for authorization; can't be reached, breaks off (for `https`) | failure | nothing | no; yes |
//! | redirect refused, request that can't be built, request body that failed | failure, ignored | nothing | no |
//!
//! "Safe to repeat" is an idempotent method ([RFC 9110 section 9.2.2]), a request with
//! `Idempotency-Key`, or one its author marked. "Yes" holds for any method, because the server
//! provably never processed the request. "Free" takes no token of the budget and isn't counted
//! among the policy's attempts: what nobody saw adds no load.
//!
//! A proof needs a transport that sends one request an attempt. One that may follow redirects can
//! fail at a hop, when the request itself has been processed: so over a tower service, or a reqwest
//! client whose redirects aren't ours, "yes" reads "if safe to repeat", unless whoever built it
//! [says that it follows none](crate::ClientBuilder::follows_no_redirects).
//!
//! A pooled connection that died *after* the request was written proves nothing either, so a POST
//! on it isn't repeated: the server may have done the work and lost only the answer.
//!
//! [RFC 8470]: https://www.rfc-editor.org/rfc/rfc8470#section-5.2
//! [RFC 9110 section 9.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2

mod classified;
pub(crate) mod connecting;
pub(crate) mod errors;
pub(crate) mod evidence;
pub mod grpc;

use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

pub use self::classified::{Classified, Repeat};
use super::{FailureCause, FailureKind, Outcome, retry_after};
use crate::advice;
use crate::outcome::Verdict;
use crate::outcome::classify::evidence::Evidence;

/// How an attempt ended, as a [`Classify`] sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Ended<'a> {
    /// With the head of a response.
    Response(StatusCode, &'a HeaderMap),
    /// With an error of the transport.
    Error(&'a (dyn StdError + 'static)),
}

impl Ended<'_> {
    /// What the table above says, of an error on its own evidence: without a transport that knows
    /// better, none proves that the request wasn't sent.
    pub fn standard(self) -> Classified {
        self.on(Evidence::default(), Speech::MayBeGrpc)
    }

    /// The same on a transport's evidence. To look for gRPC's status in every head is dear, so
    /// `speech` says in which there can be one.
    fn on(self, evidence: Evidence, speech: Speech) -> Classified {
        match self {
            Self::Response(status, headers) => {
                let said = match speech {
                    Speech::Http => None,
                    Speech::MayBeGrpc if status == StatusCode::OK => grpc::classify(headers),
                    Speech::MayBeGrpc => None,
                    #[cfg(feature = "grpc")]
                    Speech::Grpc { whole } => Some(grpc::head(status, headers, whole)),
                    #[cfg(feature = "grpc")]
                    Speech::GrpcTrailers { begun } => Some(grpc::trailers(headers, begun)),
                };
                said.unwrap_or_else(|| response(status, headers))
            }
            Self::Error(source) => errors::classify(source, evidence),
        }
    }
}

/// What is known of an answer before its headers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// It isn't gRPC's, or has messages.
    Http,
    /// It came over HTTP/2 and is over with its head.
    MayBeGrpc,
    /// It answers a gRPC request; `whole` when it is over with its head.
    #[cfg(feature = "grpc")]
    Grpc { whole: bool },
    /// These are the trailers of such an answer, whose body had `begun`.
    #[cfg(feature = "grpc")]
    GrpcTrailers { begun: bool },
}

/// Your own reading of how an attempt ended, in place of the [table](self).
///
/// It is given what the table says, and returns that for whatever it has no opinion on. Closures
/// are classifiers:
///
/// ```
/// use resilient_client::outcome::classify::{Classified, Ended, Repeat};
/// use resilient_client::outcome::FailureKind;
/// use resilient_client::Policy;
///
/// // This service answers 404 while it warms up.
/// let warming_up = |end: Ended<'_>, standard: Classified| match end {
///     Ended::Response(status, _) if status == 404 => Classified::failure(FailureKind::Status, Repeat::IfSafe),
///     _ => standard,
/// };
/// let policy = Policy::standard().classify(warming_up);
/// ```
///
/// A `repeat` of what the table calls a success makes it a failure of the kind `Status`, which the
/// breaker counts as it is told by `verdict`. Whatever is said, the `status` stays the response's.
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

    /// What `this` says of the end; or the table, on the transport's evidence, where there is none
    /// or it panics.
    pub(crate) fn classify(
        this: Option<&Self>,
        end: Ended<'_>,
        evidence: Evidence,
        speech: Speech,
    ) -> Classified {
        let standard = end.on(evidence, speech);
        let Some(this) = this else { return standard };
        let said = catch_unwind(AssertUnwindSafe(|| this.0.classify(end, standard)));
        let said = said.unwrap_or(standard);
        // Whatever it means, the status is the response's, and what goes with that.
        let said = Classified {
            status: standard.status,
            asks_one: said.asks_one || standard.asks_one,
            refuses_load: said.refuses_load || standard.refuses_load,
            ..said
        };
        // A success is never repeated: who asks for that has called it something else, whatever was
        // left as it was.
        let is_repeated = standard.is_success() && said.is_success() && !said.repeat.is_final();
        if is_repeated { Classified { outcome: Outcome::Failure(FailureKind::Status), ..said } } else { said }
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
/// `Retry-After` is parsed only where it can matter, for what is tried again, because reading a
/// date needs the wall clock.
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
        _ => return Classified::answered(Some(status)),
    };
    if status == S::GATEWAY_TIMEOUT && advice::is_shed(headers) {
        // The server's own layer turned the request away for want of time: nothing was tried,
        // nothing is wrong with it.
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
    let outcome = if status == S::GATEWAY_TIMEOUT && advice::is_cut(headers) {
        Outcome::Failure(FailureKind::Timeout)
    } else {
        outcome
    };
    Classified {
        outcome,
        verdict,
        cause: FailureCause::Own,
        repeat,
        retry_after,
        asks_one: matches!(status.as_u16(), 408 | 425 | 500 | 502 | 504),
        refuses_load: status == S::SERVICE_UNAVAILABLE,
        status: Some(status),
    }
}

/// Whether RFC 9110 calls the method idempotent, or the specification of `QUERY` does.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    ) || method == "QUERY"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
        let got = Ended::Error(&std::io::Error::other("boom")).standard();
        assert_eq!(got, Classified::failure(FailureKind::Transport, Repeat::IfSafe));
    }

    #[test]
    fn connect_and_patch_are_not_idempotent() {
        assert!(!is_idempotent(&Method::PATCH) && !is_idempotent(&Method::CONNECT));
        assert!(is_idempotent(&Method::PUT));
    }
}
