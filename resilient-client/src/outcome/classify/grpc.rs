//! What a gRPC answer says in its head. Its HTTP status is 200 whatever happened.
//!
//! | `grpc-status` in the head | outcome | breaker | tried again |
//! |---|---|---|---|
//! | 4, with the mark of a server's [deadline layer](crate::advice::SHED) | ignored, as a 504 with it | nothing | no |
//! | 4, with its mark of work that was cut off | as the attempt timeout | failure | if safe to repeat |
//! | 14 (`UNAVAILABLE`) | failure, as a 503 | failure | if safe to repeat |
//! | 8 (`RESOURCE_EXHAUSTED`) | throttled, as a 429 | success | if safe to repeat |
//! | any other | success: the server has answered | success | no |
//!
//! Only an answer without messages has its status in the head ("Trailers-Only", gRPC over HTTP/2).
//! One that comes in the trailers, after messages, is for the caller to read.

use http::{HeaderMap, HeaderName, StatusCode};

use super::classified::{Classified, Repeat};
use crate::outcome::Verdict;
use crate::outcome::{FailureKind, Outcome};
use crate::{advice, media};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What the head of an answer with status 200 says, if it is gRPC's and says more than that.
#[inline]
pub(super) fn classify(headers: &HeaderMap) -> Option<Classified> {
    if media::is_grpc(headers) { by_status(headers) } else { None }
}

#[cold]
fn by_status(headers: &HeaderMap) -> Option<Classified> {
    let status = headers.get(GRPC_STATUS)?.as_bytes();
    let answer = Classified { status: Some(StatusCode::OK), ..Classified::IGNORED };
    let repeat = if advice::forbids_retry(headers) { Repeat::Never } else { Repeat::IfSafe };
    match status {
        b"4" if advice::is_shed(headers) => Some(answer),
        b"4" if advice::is_cut(headers) => {
            Some(Classified { status: answer.status, repeat, ..Classified::TIMEOUT })
        }
        b"14" => Some(Classified {
            outcome: Outcome::Failure(FailureKind::Status),
            verdict: Verdict::Failure,
            repeat,
            ..answer
        }),
        b"8" => Some(Classified { outcome: Outcome::Throttled, verdict: Verdict::Success, repeat, ..answer }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;

    fn of(kind: &'static str, status: &'static str, shed: bool) -> Option<(Outcome, Verdict, Repeat)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
        if shed {
            headers.insert(advice::SHED, advice::SHED_DEADLINE);
        }
        classify(&headers).map(|found| (found.outcome, found.verdict, found.repeat))
    }

    #[test]
    fn each_row_of_the_table_holds() {
        let failure = Outcome::Failure(FailureKind::Status);
        let grpc = "application/grpc+proto";
        assert_eq!(of(grpc, "4", true), Some((Outcome::Ignored, Verdict::Neutral, Repeat::Never)));
        assert_eq!(of(grpc, "14", false), Some((failure, Verdict::Failure, Repeat::IfSafe)));
        assert_eq!(of(grpc, "8", false), Some((Outcome::Throttled, Verdict::Success, Repeat::IfSafe)));
        for status in ["0", "4", "5", "13", "140", "", "x"] {
            assert_eq!(of(grpc, status, false), None, "{status}");
        }
        assert_eq!(of("application/json", "14", false), None);
    }
}
