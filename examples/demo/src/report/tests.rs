use clap::Parser as _;

use super::*;
use crate::cli::Cli;
use crate::naive::Naive;
use crate::results::Other;
use crate::scenario::ISOLATION;
use crate::verdict::Verdict;
use crate::verdict::tests::results;

const WIDTH: usize = 80;

/// A second as wide as any: hundreds of everything, and slow.
fn busy(user_services: usize) -> Second {
    let mut tally = Tally { settled: 499, accepted: 499, failed: 2499, reads: 500, ..Tally::default() };
    tally.post.record(Duration::from_millis(9999));
    tally.read.record(Duration::from_millis(9999));
    let calls = if user_services == 1 { vec![49_999] } else { vec![199; user_services] };
    Second { tally, calls, in_vain: 99, streams: Some(4), waiting: 1000 }
}

#[test]
fn a_second_stands_under_its_head_in_a_plain_terminal() {
    for (which, user_services) in
        [(Columns::Reads, 1), (Columns::Calls, 1), (Columns::Calls, 3), (Columns::Streams, 1)]
    {
        let seconds = [busy(user_services), busy(user_services)];
        let phase = &ISOLATION.phases[1];
        let said = Line { at: 100, phase, seconds: &seconds, breaker: Breaker::HalfOpen };
        let line = second(Colours::plain(), which, &said);
        let header = header(Colours::plain(), which);
        for head in header.lines() {
            assert_eq!(head.len(), line.len(), "\n{header}\n{line}");
        }
        assert!(line.len() <= WIDTH, "{} columns", line.len());
        let bars = |text: &str| text.match_indices('|').map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(bars(header.lines().next().expect("a head")), bars(&line));
        assert!(!line.contains('\x1b'));
    }
}

#[test]
fn a_second_without_requests_has_no_latency() {
    let nothing =
        || Second { tally: Tally::default(), calls: vec![0], in_vain: 0, streams: None, waiting: 0 };
    let (seconds, phase) = ([nothing(), nothing()], &ISOLATION.phases[2]);
    let said = Line { at: 1, phase, seconds: &seconds, breaker: Breaker::Closed };
    let line = second(Colours::plain(), Columns::Reads, &said);
    assert_eq!(line.matches(" - ").count(), 4, "{line}");
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    let mut said = list() + "\n";
    for scenario in SCENARIOS {
        for also in [None, Some("--unprotected"), Some("--without=hedging,breaker")] {
            let naive = if also.is_none() { "--naive=all" } else { "--naive=reqwest-retry" };
            let typed = ["demo", scenario.name, "--seed=18446744073709551615", naive];
            let options = Cli::try_parse_from(typed.into_iter().chain(also)).expect("well-formed").options;
            said.push_str(&introduction(&options));
        }
        let mut results = results(scenario);
        for client in [Naive::Loop, Naive::ReqwestRetry] {
            let mut twin = results.naive.clone();
            (twin.post_p99_ms, twin.full_service_after_ms) = (9_999.0, Some(99_999.0));
            results.others.push(Other { client, twin });
        }
        said.push_str(&summary(Colours::plain(), scenario, &results, &Verdict::of(scenario, &results)));
        said.extend(scenario.phases.iter().map(|phase| event(Colours::plain(), phase.says) + "\n"));
    }
    for line in said.lines() {
        assert!(line.len() <= WIDTH, "{} columns: {line}", line.len());
    }
}

#[test]
fn who_breaks_it_by_hand_is_told_where_everything_is() {
    let held = Held {
        users: vec![(7, "http://127.0.0.1:1".into())],
        orders: vec![(Client::Naive, 8, "http://127.0.0.1:2".into())],
        gateways: Vec::new(),
        directory: "/tmp/x".into(),
        handle: Some(Handle {
            pid: 9,
            token: "a token of it".into(),
            faults: vec!["http://127.0.0.1:1/faults".into()],
            toxics: "http://127.0.0.1:3".into(),
        }),
    };
    let said = super::held(&ISOLATION, &held, "some-id");
    for part in [
        "pid 7",
        "pid 8",
        "cargo demo fault user-service delay",
        "cargo demo toxic latency 200ms --upstream",
        "curl -X PUT http://127.0.0.1:1/faults -H 'authorization: Bearer a token of it' --json '{",
        "curl http://127.0.0.1:3/proxies",
        "kill -STOP 7",
        "some-id",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for json in said.lines().filter_map(|line| line.split_once('{')).map(|(_, json)| json) {
        let json = format!("{{{}", json.trim_end_matches('\''));
        serde_json::from_str::<serde_json::Value>(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
    }
}
