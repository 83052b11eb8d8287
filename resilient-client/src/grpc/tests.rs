use proptest::prelude::*;

use super::*;

fn timeout_after(said: Option<&'static str>, left_ms: Option<u64>) -> Option<String> {
    let mut headers = HeaderMap::new();
    if let Some(said) = said {
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(said));
    }
    write(&mut headers, left_ms.map(Duration::from_millis), 1);
    headers.get(GRPC_TIMEOUT).map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn what_a_caller_has_said_is_never_lengthened() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(timeout_after(None, Some(250)), some("250000u"));
    assert_eq!(timeout_after(Some("1S"), Some(250)), some("250000u"));
    assert_eq!(timeout_after(Some("100m"), Some(250)), some("100m"), "left as it is");
    assert_eq!(timeout_after(Some("soon"), Some(250)), some("soon"), "not ours to mend");
    assert_eq!(timeout_after(Some("1S"), None), some("1S"));
    assert_eq!(timeout_after(None, None), None);
}

#[test]
fn the_second_attempt_says_that_there_was_one() {
    for (number, expected) in [(1, None), (2, Some("1")), (16, Some("15"))] {
        let mut headers = HeaderMap::new();
        write(&mut headers, None, number);
        assert_eq!(headers.get(PREVIOUS_ATTEMPTS).map(|value| value.to_str().unwrap()), expected);
    }
}

#[test]
fn each_kind_of_error_is_a_status() {
    for (kind, code) in [
        (ErrorKind::Deadline, Code::DeadlineExceeded),
        (ErrorKind::Overloaded, Code::ResourceExhausted),
        (ErrorKind::CircuitOpen, Code::Unavailable),
        (ErrorKind::Transport, Code::Unavailable),
        (ErrorKind::Config, Code::Internal),
    ] {
        let response = answer(Error::new(kind), ());
        assert_eq!(Code::of(response.headers()), Some(code), "{kind:?}");
        assert_eq!(response.status(), 200);
        assert_eq!(response.extensions().get::<Arc<Error>>().unwrap().kind(), kind);
    }
}

#[cfg(feature = "http2")]
#[test]
fn a_stream_that_was_reset_has_a_status_by_its_reason() {
    use h2::Reason;
    for (reason, code) in [
        (Reason::INTERNAL_ERROR, Code::Internal),
        (Reason::CANCEL, Code::Cancelled),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
        (Reason::REFUSED_STREAM, Code::Unavailable),
    ] {
        assert_eq!(of_reason(reason), code, "{reason:?}");
    }
    let no_reset = h2::Error::from(Reason::INTERNAL_ERROR);
    assert_eq!(code_of(&Error::new(ErrorKind::Transport).because(no_reset)), Code::Unavailable);
}

#[test]
fn a_message_is_encoded() {
    assert_eq!(encoded("50 % of \u{e9}t\u{e9}\n"), "50 %25 of %C3%A9t%C3%A9%0A");
    assert!(encoded(&"\u{e9}".repeat(1000)).len() <= 3 * LONGEST_MESSAGE);
}

proptest! {
    #[test]
    fn any_message_fits_into_a_header(message in ".{0,400}") {
        prop_assert!(HeaderValue::try_from(encoded(&message)).is_ok());
    }
}
