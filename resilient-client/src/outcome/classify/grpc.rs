//! What a gRPC answer says. Its HTTP status is 200 whatever happened: `grpc-status` counts, which
//! stands in the head of an answer without messages ("Trailers-Only") and in the trailers of any
//! other.
//!
//! | `grpc-status` | outcome | breaker | tried again |
//! |---|---|---|---|
//! | 0 `OK` | success | success | no |
//! | 1 `CANCELLED`, 4 `DEADLINE_EXCEEDED` | as the attempt timeout | failure | if safe to repeat |
//! | 4 with the mark of a server's [deadline layer](crate::advice::SHED) | ignored, as a 504 with it | nothing | no |
//! | 8 `RESOURCE_EXHAUSTED` | throttled, as a 429 | success | if safe to repeat |
//! | 14 `UNAVAILABLE` | failure, as a 503 | failure | if safe to repeat |
//! | 2 `UNKNOWN`, 13 `INTERNAL`, 15 `DATA_LOSS`; what is no code | failure | failure | no |
//! | 3 `INVALID_ARGUMENT`, 5, 6, 7, 9, 10, 11, 12, 16: the caller's to deal with | success: the server has answered | success | no |
//!
//! 14 refuses load, as a 503 does, and where it asks for time it may speak for all callers; what 1
//! and 4 ask is asked of the one that was told, as with a 504.
//!
//! A caller that reads 1 hasn't cancelled: servers say so whose own timer fired, or who were told
//! with `grpc-timeout` how long the answer is waited for. 10 (`ABORTED`) is a conflict, which a
//! repetition of the one call doesn't mend; 12 (`UNIMPLEMENTED`) is a method that this server
//! doesn't have, and says nothing of its others.
//!
//! How long the server asks to be left alone, for 1, 4, 8 and 14:
//!
//! | | meaning |
//! |---|---|
//! | `grpc-retry-pushback-ms: 1500` ([gRFC A6]) | as `Retry-After`, in milliseconds |
//! | the same, negative or no number, or one of several that is | no other attempt |
//! | `google.rpc.RetryInfo` in `grpc-status-details-bin` | as `Retry-After`: its `retry_delay`, if that is positive |
//! | both | the longer |
//! | more than 24 hours | 24 hours |
//! | details of more than 8 KiB, or that can't be read to the end | what was read before |
//!
//! The HTTP status of an answer without `grpc-status`, to a request that is gRPC's, says what a
//! proxy in between has to say ([HTTP to gRPC status code mapping]):
//!
//! | | |
//! |---|---|
//! | 429, 502, 503, 504 | [as over HTTP](super) |
//! | 401, 403, 404 | success |
//! | 200 with a body | its trailers say what it is |
//! | 200 without a body, or whose trailers have none | as a body that was cut off: failure, for the breaker too; if safe to repeat |
//! | any other | failure, for the breaker too; not tried again |
//!
//! Only the feature `grpc` knows a request of gRPC's, and looks into trailers. Without it the first
//! table holds for what is over with its head, comes over HTTP/2 and calls itself gRPC.
//!
//! [gRFC A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
//! [HTTP to gRPC status code mapping]: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md

mod code;
mod details;
mod pushback;

use http::{HeaderMap, StatusCode};

use self::pushback::Pushback;
use super::classified::{Classified, Repeat};
#[cfg(feature = "grpc")]
use crate::outcome::FailureCause;
use crate::outcome::Verdict;
use crate::outcome::{FailureKind, Outcome};
use crate::{advice, media};

pub use self::code::Code;
#[cfg(feature = "grpc")]
pub(crate) use self::code::GRPC_STATUS;
#[cfg(any(test, feature = "server"))]
pub(crate) use self::pushback::{PUSHBACK, PUSHBACK_NEVER};

/// What the head of an answer with status 200 says, if it is gRPC's and says more than that.
#[inline]
pub(super) fn classify(headers: &HeaderMap) -> Option<Classified> {
    if media::is_grpc(headers) { said(StatusCode::OK, headers) } else { None }
}

/// What the head of an answer to a gRPC request says; `whole` when no body follows.
#[cfg(feature = "grpc")]
#[cold]
pub(super) fn head(status: StatusCode, headers: &HeaderMap, whole: bool) -> Classified {
    let failure =
        Classified { status: Some(status), ..Classified::failure(FailureKind::Status, Repeat::Never) };
    let cut = Classified { status: Some(status), ..Classified::WITHOUT_STATUS };
    match (said(status, headers), status.as_u16()) {
        (Some(said), _) => said,
        (None, 200) if whole => cut,
        (None, 200 | 401 | 403 | 404) => Classified::answered(Some(status)),
        (None, 429 | 502..=504) => super::response(status, headers),
        (None, _) => failure,
    }
}

/// What the trailers of an answer to a gRPC request say; without a status, that they were cut off.
///
/// A server that goes away ends what it had `begun` with 14, 1 or 4 where a broken connection would
/// have, all at once.
#[cfg(feature = "grpc")]
#[cold]
pub(super) fn trailers(headers: &HeaderMap, begun: bool) -> Classified {
    let Some(said) = said(StatusCode::OK, headers) else {
        return Classified { status: Some(StatusCode::OK), ..Classified::WITHOUT_STATUS };
    };
    let ends =
        matches!(Code::of(headers), Some(Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable));
    Classified { cause: if begun && ends { FailureCause::Lost } else { said.cause }, ..said }
}

/// Whether a head says that a gRPC call has failed, by the server's doing.
#[cfg(any(test, feature = "server"))]
pub(crate) fn is_failure(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK && classify(headers).is_some_and(|said| said.verdict == Verdict::Failure)
}

/// By `grpc-status`, where there is one.
#[cold]
fn said(http: StatusCode, headers: &HeaderMap) -> Option<Classified> {
    let code = Code::of(headers)?;
    let answer = Classified { status: Some(http), ..Classified::IGNORED };
    let (outcome, verdict, repeat) = match code {
        Code::DeadlineExceeded if advice::is_shed(headers) => return Some(answer),
        Code::Cancelled | Code::DeadlineExceeded => {
            (Outcome::Failure(FailureKind::Timeout), Verdict::Failure, Repeat::IfSafe)
        }
        Code::Unavailable => (Outcome::Failure(FailureKind::Status), Verdict::Failure, Repeat::IfSafe),
        Code::ResourceExhausted => (Outcome::Throttled, Verdict::Success, Repeat::IfSafe),
        Code::Unknown | Code::Internal | Code::DataLoss => {
            (Outcome::Failure(FailureKind::Status), Verdict::Failure, Repeat::Never)
        }
        _ => return Some(Classified::answered(Some(http))),
    };
    let pushback = pushback::read(headers);
    let forbidden = pushback == Pushback::Never || advice::forbids_retry(headers);
    let repeat = if forbidden { Repeat::Never } else { repeat };
    let retry_after = match pushback {
        Pushback::After(wait) if !repeat.is_final() => Some(wait),
        _ => None,
    };
    Some(Classified {
        outcome,
        verdict,
        repeat,
        retry_after,
        asks_one: !matches!(code, Code::Unavailable | Code::ResourceExhausted),
        refuses_load: code == Code::Unavailable,
        ..answer
    })
}

#[cfg(test)]
mod tests;
