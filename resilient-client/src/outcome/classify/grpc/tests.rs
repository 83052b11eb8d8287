use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};

use super::*;

const FAILURE: Outcome = Outcome::Failure(FailureKind::Status);
const TIMEOUT: Outcome = Outcome::Failure(FailureKind::Timeout);

fn headers(kind: &'static str, status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (code::GRPC_STATUS, HeaderValue::from_static(status)),
    ])
}

fn brief(found: Classified) -> (Outcome, Verdict, Repeat) {
    (found.outcome, found.verdict, found.repeat)
}

fn of(status: &'static str, shed: bool) -> (Outcome, Verdict, Repeat) {
    let mut headers = headers("application/grpc+proto", status);
    if shed {
        headers.insert(advice::SHED, advice::SHED_DEADLINE);
    }
    brief(classify(&headers).unwrap())
}

#[test]
fn each_row_of_the_table_holds() {
    for status in ["0", "3", "5", "6", "7", "9", "10", "11", "12", "16"] {
        assert_eq!(of(status, false), (Outcome::Success, Verdict::Success, Repeat::Never), "{status}");
    }
    for status in ["1", "4"] {
        assert_eq!(of(status, false), (TIMEOUT, Verdict::Failure, Repeat::IfSafe), "{status}");
    }
    assert_eq!(of("4", true), (Outcome::Ignored, Verdict::Neutral, Repeat::Never));
    assert_eq!(of("14", false), (FAILURE, Verdict::Failure, Repeat::IfSafe));
    assert_eq!(of("8", false), (Outcome::Throttled, Verdict::Success, Repeat::IfSafe));
    for status in ["2", "13", "15", "17", "140", "", "x"] {
        assert_eq!(of(status, false), (FAILURE, Verdict::Failure, Repeat::Never), "{status}");
    }
}

#[test]
fn what_does_not_call_itself_grpc_is_not_read_as_such() {
    assert_eq!(classify(&headers("application/json", "14")), None);
    let mut unsaid = headers("application/grpc", "14");
    unsaid.remove(code::GRPC_STATUS);
    assert_eq!(classify(&unsaid), None);
}

#[test]
fn pushback_says_when_and_whether() {
    let with = |status, pushback| {
        let mut headers = headers("application/grpc", status);
        headers.insert(HeaderName::from_static("grpc-retry-pushback-ms"), HeaderValue::from_static(pushback));
        let found = classify(&headers).unwrap();
        (found.repeat, found.retry_after)
    };
    let after = |ms| Some(Duration::from_millis(ms));
    assert_eq!(with("14", "250"), (Repeat::IfSafe, after(250)));
    assert_eq!(with("8", "250"), (Repeat::IfSafe, after(250)));
    assert_eq!(with("14", "-1"), (Repeat::Never, None));
    assert_eq!(with("14", "soon"), (Repeat::Never, None));
    assert_eq!(with("13", "250"), (Repeat::Never, None), "it isn't tried again in any case");
    assert_eq!(with("5", "250"), (Repeat::Never, None));
}

#[cfg(feature = "grpc")]
#[test]
fn an_http_status_without_a_code_is_what_a_proxy_says() {
    let answer = |status: u16, whole| {
        let found = head(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), whole);
        assert_eq!(found.status.map(|status| status.as_u16()), Some(status));
        brief(found)
    };
    let success = (Outcome::Success, Verdict::Success, Repeat::Never);
    let failure = (FAILURE, Verdict::Failure, Repeat::Never);
    for (status, expected) in [
        (200, success),
        (204, failure),
        (302, failure),
        (400, failure),
        (401, success),
        (403, success),
        (404, success),
        (429, (Outcome::Throttled, Verdict::Success, Repeat::IfSafe)),
        (431, failure),
        (500, failure),
        (502, (FAILURE, Verdict::Failure, Repeat::IfSafe)),
        (503, (FAILURE, Verdict::Failure, Repeat::IfSafe)),
        (504, (FAILURE, Verdict::Failure, Repeat::IfSafe)),
    ] {
        assert_eq!(answer(status, false), expected, "{status}");
    }
    let cut = (Outcome::Failure(FailureKind::Body), Verdict::Failure, Repeat::IfSafe);
    assert_eq!(answer(200, true), cut, "neither a code nor trailers that could have one");
    assert_eq!(brief(trailers(&HeaderMap::new(), true)), cut, "one rule for both");
    let said = |http, status| brief(head(http, &headers("text/html", status), true)).0;
    assert_eq!(said(StatusCode::BAD_GATEWAY, "0"), Outcome::Success, "where there is a code it counts");
    assert_eq!(said(StatusCode::OK, "14"), FAILURE);
}

#[cfg(feature = "grpc")]
#[test]
fn trailers_without_a_status_are_a_body_that_was_cut_off() {
    assert_eq!(trailers(&HeaderMap::new(), true).outcome, Outcome::Failure(FailureKind::Body));
    assert_eq!(trailers(&headers("", "14"), true).outcome, FAILURE);
    assert!(trailers(&headers("", "0"), true).is_success());
}

/// A server that drains ends thirty streams in one instant.
#[cfg(feature = "grpc")]
#[test]
fn a_status_that_ends_what_had_begun_tells_of_what_ends_others_too() {
    let cause = |status, begun| trailers(&headers("", status), begun).cause;
    for status in ["1", "4", "14"] {
        assert_eq!(
            (cause(status, true), cause(status, false)),
            (FailureCause::Lost, FailureCause::Own),
            "{status}"
        );
    }
    for status in ["2", "8", "13", "15"] {
        assert_eq!(cause(status, true), FailureCause::Own, "{status}");
    }
}

/// What throttle, adaptive limit and those who hold calls back go by.
#[test]
fn a_status_refuses_load_and_speaks_for_all_as_the_one_it_stands_for_does() {
    let of_grpc = |status| classify(&headers("application/grpc", status)).unwrap();
    let of_http = |status| super::super::response(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
    let says = |end: Classified| (end.refuses_load, end.asks_one);
    for (status, http, expected) in [
        ("14", 503, (true, false)),
        ("4", 504, (false, true)),
        ("1", 504, (false, true)),
        ("8", 429, (false, false)),
    ] {
        assert_eq!((says(of_grpc(status)), says(of_http(http))), (expected, expected), "{status}");
    }
    assert!(!of_grpc("13").refuses_load && !of_http(500).refuses_load);
}
