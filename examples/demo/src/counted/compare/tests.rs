use super::*;

const PAGE: &str = "\
resilient_client_call_duration_seconds_count{http_response_status_code=\"200\"} 2
resilient_client_call_duration_seconds_count{error_type=\"circuit_open\"} 1
resilient_client_call_duration_seconds_count{error_type=\"dropped\"} 1
resilient_client_attempts_total{trigger=\"first\"} 3
resilient_client_attempts_total{trigger=\"retry\"} 2
resilient_client_retries_declined_total{reason=\"circuit_open\"} 1
http_client_request_duration_seconds_count{http_response_status_code=\"200\"} 2
http_client_request_duration_seconds_count{http_response_status_code=\"503\",error_type=\"503\"} 1
http_client_request_duration_seconds_count{error_type=\"connect\"} 1
http_client_request_duration_seconds_count{error_type=\"timeout\"} 1
http_client_active_requests 0
";

fn attempt(number: u32, status: Option<u16>, came_to: &str) -> ToldAttempt {
    let trigger = if number == 1 { "first" } else { "retry" };
    ToldAttempt { number, trigger: trigger.into(), status, came_to: Some(came_to.into()) }
}

fn arrival(attempt: &str, answered: Option<u16>) -> Arrival {
    Arrival { attempt: attempt.into(), answered }
}

/// Four calls: one answered at once; one refused, then not reached, then answered; one that nobody
/// waited for; one that was refused here.
fn good() -> Evidence {
    let call = |call, end: &str, attempts| {
        let (by, end, declined) = (By::Report, end.to_owned(), Vec::new());
        ToldCall { call, by, end, attempts, declined }
    };
    let second = vec![attempt(1, Some(503), "status"), attempt(2, None, "connect")];
    let mut second = call(2, "200", second);
    second.attempts.push(attempt(3, Some(200), "success"));
    let mut dropped = ToldCall::dropped(3);
    dropped.attempts.push(attempt(1, None, "timeout"));
    let mut refused = call(4, "circuit_open", Vec::new());
    refused.declined.push("circuit_open".into());
    let first = call(1, "200", vec![attempt(1, Some(200), "success")]);
    Evidence {
        metrics: Page::read(PAGE),
        calls: vec![first, second, dropped, refused],
        arrivals: vec![
            arrival("1-1", None),
            arrival("1-1", Some(200)),
            arrival("2-1", None),
            arrival("2-1", Some(503)),
            arrival("3-1", None),
            arrival("2-3", None),
            arrival("2-3", Some(200)),
        ],
        others: false,
    }
}

#[test]
fn what_three_count_alike_is_equal_and_what_never_came_is_told_apart() {
    let counted = Counted::of(&good());
    assert!(counted.is_equal(), "{:?}", counted.differences);
    let never_came = BTreeMap::from([("connect".to_owned(), 1)]);
    let expected =
        Counted { calls: 4, dropped: 1, attempts: 5, arrived: 4, never_came, ..Counted::default() };
    assert_eq!(counted, expected);
    let said = "4 calls, 5 attempts, 4 of them in user-service's log; never taken up: 1 connect; \
                1 calls without a report";
    assert_eq!(counted.figures(), said);
}

#[test]
fn every_planted_difference_is_found() {
    type Spoiler = fn(&mut Evidence);
    let spoilers: [(&str, Spoiler); 14] = [
        ("calls that ended with 200", |it| {
            it.metrics = Page::read(&PAGE.replacen("code=\"200\"} 2", "code=\"200\"} 3", 1));
        }),
        ("calls that ended with dropped", |it| it.calls[2].end = "timeout".into()),
        ("attempts for reason retry", |it| {
            it.metrics = Page::read(&PAGE.replace("\"retry\"} 2", "\"retry\"} 1"));
        }),
        ("attempts for reason first", |it| drop(it.calls.remove(0))),
        ("retries declined for", |it| it.calls[3].declined.clear()),
        ("status 503: 1 on", |it| it.calls[1].attempts[0].status = Some(500)),
        ("attempts: 5 sent", |it| {
            it.metrics = Page::read(&PAGE.replace("active_requests 0", "active_requests 1"));
        }),
        ("2-1 was answered 503 and never came", |it| drop(it.arrivals.drain(2..4))),
        ("2-1 was answered 503, and Some(200) there", |it| it.arrivals[3].answered = Some(200)),
        ("1-1 came 2 times", |it| it.arrivals.push(arrival("1-1", None))),
        ("9-1 came and is in no report", |it| it.arrivals.push(arrival("9-1", None))),
        ("3-1 is in two reports", |it| it.calls[2].attempts.push(attempt(1, None, "timeout"))),
        ("1 requests are nobody's", |it| it.arrivals.push(arrival("", None))),
        ("5 attempts on /metrics, 4 came and 0", |it| drop(it.calls[1].attempts.remove(1))),
    ];
    for (expected, spoil) in spoilers {
        let mut evidence = good();
        spoil(&mut evidence);
        let differences = Counted::of(&evidence).differences;
        assert!(differences.iter().any(|it| it.starts_with(expected)), "{expected}: {differences:?}");
    }
}

#[test]
fn a_stream_that_is_being_read_is_active_and_a_copys_requests_are_told_apart() {
    let mut evidence = good();
    let page = PAGE.replace("http_client_active_requests 0", "http_client_active_requests 1");
    let ended = "http_client_request_duration_seconds_count{http_response_status_code=\"200\"}";
    evidence.metrics = Page::read(&page.replace(&format!("{ended} 2"), &format!("{ended} 1")));
    evidence.arrivals.push(arrival("", None));
    evidence.others = true;
    let counted = Counted::of(&evidence);
    assert!(counted.is_equal(), "{:?}", counted.differences);
    assert_eq!(counted.of_others, 1);
}
