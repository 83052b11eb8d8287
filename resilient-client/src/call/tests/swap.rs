//! What a user of another client expects of a call, and gets.

use http::HeaderValue;

use super::script::{Piece, Step, answer, broken, ms};
use super::*;
use crate::outcome::classify::{Classified, Ended, Repeat};
use crate::policy::timeout::TimeoutPolicy;
use crate::{ErrorKind, IDEMPOTENCY_KEY};

fn slow(seconds: u64) -> Step {
    let body = vec![Piece::Data("late".into())];
    Step::Answer { after: ms(seconds * 1000), status: 200, retry_after: None, body }
}

/// It failed after 12 s for a GET and after 3 s for a POST.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_a_minute_may_take_five_seconds() {
    for method in [Method::GET, Method::POST] {
        let rig = Rig::new(&Policy::standard(), [slow(5)]);
        let options = CallOptions::new().timeout(ms(60_000));
        assert_eq!(rig.start(method, options).await.unwrap().status(), 200);
        assert_eq!(rig.script.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_timeout_that_the_policy_sets_holds_whatever_a_call_is_given() {
    let timeout = TimeoutPolicy::standard().attempt(ms(300));
    let rig = Rig::new(&Policy::standard().timeout(timeout), [slow(5), answer(200)]);
    let options = CallOptions::new().timeout(ms(60_000));
    assert_eq!(rig.start(Method::GET, options).await.unwrap().status(), 200);
    assert_eq!(rig.script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_total_alone_shortens_the_attempts_and_is_not_refused() {
    let timeout = TimeoutPolicy::standard().total(ms(1_000));
    let rig = Rig::new(&Policy::standard().timeout(timeout), [Step::Hang]);
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::Deadline);
}

/// A policy is designed, so its attempts stay short; but not in silence.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_ends_by_what_nobody_set_says_so() {
    let standard = TimeoutPolicy::standard();
    for (timeout, says) in [
        (standard.clone().total(ms(60_000)), "3s (the standard's: no timeout.attempt is set)"),
        (standard.total(ms(60_000)).attempt(ms(2_000)), "2s"),
    ] {
        let rig = Rig::new(&Policy::standard().timeout(timeout).retry(None), [slow(5)]);
        let error = rig.get().await.unwrap_err();
        let expected = format!("no response within the attempt timeout: {says} (http://users:3000)");
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Timeout, expected));
    }
}

/// A key of nothing tells no request from another.
#[tokio::test(start_paused = true)]
async fn a_blank_idempotency_key_makes_no_post_repeatable() {
    for (key, expected) in
        [("", 1), ("  ", 1), ("\"\"", 1), (" \" \" ", 1), ("order-7", 2), ("\"order-7\"", 2)]
    {
        let rig = Rig::new(&Policy::standard(), [broken(), answer(200)]);
        let mut request = Rig::request(Method::POST, CallOptions::new());
        request.headers_mut().insert(IDEMPOTENCY_KEY, HeaderValue::from_static(key));
        let _ = rig.service.clone().call(request).await;
        assert_eq!(rig.script.count(), expected, "{key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_is_repeated_like_a_get() {
    let query = Method::from_bytes(b"QUERY").unwrap();
    let rig = Rig::new(&Policy::standard(), [broken(), answer(200)]);
    assert_eq!(rig.start(query, CallOptions::new()).await.unwrap().status(), 200);
}

/// A 409 is no failure by the table: the repeat alone was ignored.
#[tokio::test(start_paused = true)]
async fn a_classifier_that_asks_for_a_repeat_gets_it() {
    let conflicts = |end: Ended<'_>, standard: Classified| match end {
        Ended::Response(status, _) if status == 409 => Classified { repeat: Repeat::IfSafe, ..standard },
        _ => standard,
    };
    let rig = Rig::new(&Policy::standard().classify(conflicts), [answer(409), answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(
        rig.upstream().breaker_snapshot(crate::time::now()).failures,
        0,
        "its verdict was left as it was"
    );
}
