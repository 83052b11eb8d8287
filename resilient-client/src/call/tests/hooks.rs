//! What a hook says before each attempt reaches the wire, or ends the call.

use std::sync::atomic::{AtomicU32, Ordering};

use http::{HeaderMap, HeaderValue};

use super::script::{Step, answer, ms};
use super::*;
use crate::policy::timeout::TimeoutPolicy;
use crate::{Attempt, ErrorKind, Prepared};

fn rig(hook: impl crate::AttemptHook, steps: impl IntoIterator<Item = Step>) -> Rig {
    Rig::with(Policy::standard().into(), Some(Hook::new(hook)), steps)
}

fn token(n: u32) -> HeaderMap {
    HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from(n))])
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_sent_with_what_the_hook_says_for_it() {
    let asked = AtomicU32::new(0);
    let rig = rig(
        move |attempt: &Attempt<'_>| {
            assert_eq!((attempt.url(), attempt.method()), (URL, &Method::GET));
            let n = asked.fetch_add(1, Ordering::Relaxed) + 1;
            assert_eq!(attempt.number(), n);
            if n == 1 {
                Prepared::now(token(n))
            } else {
                Prepared::later(async move {
                    tokio::time::sleep(ms(10)).await;
                    Ok::<_, std::io::Error>(token(n))
                })
            }
        },
        [answer(503), answer(503), answer(200)],
    );
    assert_eq!(rig.get().await.unwrap().status(), 200);
    let seen: Vec<_> = rig
        .script
        .headers()
        .iter()
        .map(|headers| {
            let get = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            (get("authorization"), get("x-envoy-attempt-count"))
        })
        .collect();
    let expected = [("1", None), ("2", Some("2")), ("3", Some("3"))];
    assert_eq!(seen, expected.map(|(token, count)| (Some(token.to_owned()), count.map(str::to_owned))));
}

#[tokio::test(start_paused = true)]
async fn a_hook_knows_which_call_it_is_asked_for_as_the_report_does() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    let hook = move |attempt: &Attempt<'_>| {
        told.lock().unwrap().push((attempt.call(), attempt.number()));
        Prepared::now(HeaderMap::new())
    };
    let rig = rig(hook, [answer(503), answer(200), answer(200)]);
    let (first, second) = (rig.get().await.unwrap(), rig.get().await.unwrap());
    let [first, second] = [first, second].map(|response| response.body().report().call());
    assert_eq!(*asked.lock().unwrap(), [(first, 1), (first, 2), (second, 1)]);
    assert_ne!(first, second);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_ends_the_call_and_nothing_is_sent() {
    for later in [false, true] {
        let rig = rig(
            move |_: &Attempt<'_>| {
                let error = std::io::Error::other("no token");
                if later { Prepared::later(async { Err(error) }) } else { Prepared::failed(error) }
            },
            [answer(200)],
        );
        let error = rig.get().await.unwrap_err();
        assert_eq!((error.kind(), rig.script.count()), (ErrorKind::Request, 0));
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no token");
        assert_eq!((rig.in_use(), rig.upstream().breaker_snapshot(crate::time::now()).failures), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_hangs_costs_attempts_and_not_for_ever() {
    let policy = Policy::standard().timeout(TimeoutPolicy::standard().attempt(ms(100))).retry(None);
    let hook = |_: &Attempt<'_>| Prepared::later(std::future::pending::<Result<HeaderMap, std::io::Error>>());
    let rig = Rig::with(policy.into(), Some(Hook::new(hook)), [answer(200)]);
    assert!(rig.get().await.unwrap_err().is_timeout());
    assert_eq!((rig.script.count(), rig.in_use()), (0, 0));
    assert_eq!(rig.upstream().breaker_snapshot(crate::time::now()).failures, 0, "the server was never asked");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_costs_no_slot() {
    let rig = rig(|_: &Attempt<'_>| -> Prepared { panic!("a bug in the user's closure") }, [answer(200)]);
    for _ in 0..10 {
        let mut service = rig.service.clone();
        let call =
            tokio::spawn(async move { service.call(Rig::request(Method::GET, CallOptions::new())).await });
        assert!(call.await.unwrap_err().is_panic());
    }
    assert_eq!((rig.in_use(), rig.upstream().unfinished()), (0, 0));
}

/// The hook and the timer were ready in the same instant, and the attempt was sent for nobody.
#[tokio::test(start_paused = true)]
async fn a_hook_that_takes_all_the_time_there_is_sends_nothing() {
    let timeout = TimeoutPolicy::standard().total(ms(100)).attempt(ms(100));
    let hook = |_: &Attempt<'_>| {
        Prepared::later(async {
            tokio::time::sleep(ms(100)).await;
            Ok::<_, std::io::Error>(token(1))
        })
    };
    let rig = Rig::with(Policy::standard().timeout(timeout).into(), Some(Hook::new(hook)), [answer(200)]);
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::Deadline);
    assert_eq!((rig.script.count(), rig.in_use()), (0, 0));
    assert_eq!(rig.upstream().breaker_snapshot(crate::time::now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_server_is_told_of_the_deadline_is_what_the_hook_left() {
    let hook = |_: &Attempt<'_>| {
        Prepared::later(async {
            tokio::time::sleep(ms(40)).await;
            Ok::<_, std::io::Error>(token(1))
        })
    };
    let timeout = TimeoutPolicy::standard().total(ms(100)).attempt(ms(100));
    let rig = Rig::with(Policy::standard().timeout(timeout).into(), Some(Hook::new(hook)), [answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.script.headers()[0]["x-envoy-expected-rq-timeout-ms"], "60");
}

#[tokio::test(start_paused = true)]
async fn an_extra_attempt_whose_hook_fails_gets_its_token_back() {
    let hook = |attempt: &Attempt<'_>| match attempt.number() {
        1 => Prepared::now(token(1)),
        _ => Prepared::later(async { Err(std::io::Error::other("no token")) }),
    };
    let rig = rig(hook, [answer(503)]);
    let before = rig.tokens();
    assert_eq!(rig.get().await.unwrap().status(), 503);
    assert!((rig.tokens() - before).abs() < 1e-9);
}

/// What failed was ours; the server is asked by whoever comes next, and not 250 ms later.
#[tokio::test(start_paused = true)]
async fn a_probe_whose_hook_fails_holds_nobody_back() {
    let fails = Arc::new(AtomicU32::new(0));
    let hook = {
        let fails = Arc::clone(&fails);
        move |_: &Attempt<'_>| match fails.load(Ordering::Relaxed) {
            0 => Prepared::now(token(1)),
            _ => Prepared::failed(std::io::Error::other("no token")),
        }
    };
    let policy = Policy::standard().retry(None);
    let rig = Rig::with(policy.into(), Some(Hook::new(hook)), [answer(500)]);
    while rig.state() != State::Open {
        assert_eq!(rig.get().await.unwrap().status(), 500);
    }
    rig.script.then([answer(200)]);
    tokio::time::sleep(ms(5_000)).await;
    fails.store(1, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::Request);
    }
    fails.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(rig.get().await.unwrap().status(), 200);
    }
    assert_eq!(rig.state(), State::Closed);
}

/// A hedge that fails here, before anything is sent, ended the call although the first attempt was
/// well.
#[tokio::test(start_paused = true)]
async fn a_hedge_whose_hook_fails_leaves_the_call_to_the_first_attempt() {
    use crate::policy::hedge::{Delay, HedgePolicy};

    for later in [false, true] {
        let hook = move |attempt: &Attempt<'_>| {
            let error = std::io::Error::other("no token");
            match attempt.number() {
                1 => Prepared::now(token(1)),
                _ if later => Prepared::later(async { Err(error) }),
                _ => Prepared::failed(error),
            }
        };
        let policy = Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(50))));
        let slow = Step::Answer { after: ms(100), status: 200, retry_after: None, body: Vec::new() };
        let rig = Rig::with(policy.into(), Some(Hook::new(hook)), [slow]);
        let before = rig.tokens();
        assert_eq!(rig.get().await.unwrap().status(), 200, "later: {later}");
        assert_eq!((rig.script.count(), rig.in_use()), (1, 0));
        assert!(rig.tokens() >= before, "what it was granted has come back");
    }
}

/// It was due and came to nothing, and no event said so.
#[tokio::test(start_paused = true)]
async fn a_hedge_whose_hook_fails_at_once_is_told_of_and_ends_nothing() {
    use crate::event::{Event, HedgeEnd};
    use crate::policy::hedge::{Delay, HedgePolicy};

    let hook = |attempt: &Attempt<'_>| match attempt.number() {
        1 => Prepared::now(HeaderMap::new()),
        _ => Prepared::failed(std::io::Error::other("no token")),
    };
    let slow = Step::Answer { after: ms(80), status: 200, retry_after: None, body: Vec::new() };
    let hedged = Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(50))));
    let rig = Rig::with(hedged.into(), Some(Hook::new(hook)), [slow]);
    let tokens = rig.tokens();
    assert_eq!(rig.get().await.unwrap().status(), 200);
    let events = rig.events.lock().unwrap();
    let ends = events.iter().filter_map(|event| match event {
        Event::HedgeEnded { number, end, .. } => Some((*number, *end)),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [(2, HedgeEnd::Rejected)]);
    assert_eq!((rig.script.count(), rig.in_use()), (1, 0));
    assert!(rig.tokens() >= tokens, "what it was granted has gone back");
}

#[tokio::test(start_paused = true)]
async fn of_two_hooks_both_are_asked_and_the_later_stands_over_the_earlier() {
    for later in [false, true] {
        let first = move |_: &Attempt<'_>| {
            let mut headers = token(1);
            headers.insert(http::header::FROM, HeaderValue::from_static("trace"));
            if later {
                Prepared::later(async { Ok::<_, std::io::Error>(headers) })
            } else {
                Prepared::now(headers)
            }
        };
        let second = |_: &Attempt<'_>| Prepared::now(token(2));
        let hook = Hook::new(first).and(Hook::new(second));
        let rig = Rig::with(Policy::standard().into(), Some(hook), [answer(200)]);
        assert_eq!(rig.get().await.unwrap().status(), 200);
        let sent = &rig.script.headers()[0];
        assert_eq!(
            (&sent["authorization"], &sent["from"]),
            (&HeaderValue::from(2), &HeaderValue::from_static("trace"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_either_of_two_hooks_ends_the_call() {
    for (first_fails, second_fails) in [(true, false), (false, true)] {
        let hook = |fails| {
            Hook::new(move |_: &Attempt<'_>| {
                if fails {
                    Prepared::failed(std::io::Error::other("no token"))
                } else {
                    Prepared::now(token(1))
                }
            })
        };
        let hook = hook(first_fails).and(hook(second_fails));
        let rig = Rig::with(Policy::standard().into(), Some(hook), [answer(200)]);
        assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::Request);
        assert_eq!(rig.script.count(), 0);
    }
}

/// It was counted and reported like one that had been sent, unless its hook had failed at once.
#[tokio::test(start_paused = true)]
async fn what_its_hook_held_back_was_no_attempt() {
    use crate::event::{Event, HedgeEnd};
    use crate::policy::hedge::{Delay, HedgePolicy};

    enum Holds {
        Fails,
        FailsLater,
        Hangs,
    }
    let slow = || Step::Answer { after: ms(80), status: 200, retry_after: None, body: Vec::new() };
    for holds in [Holds::Fails, Holds::FailsLater, Holds::Hangs].map(Arc::new) {
        for (held, hedged, dropped) in
            [(1, false, false), (2, false, false), (2, true, false), (1, false, true), (2, true, true)]
        {
            let how = Arc::clone(&holds);
            let hook = move |attempt: &Attempt<'_>| match *how {
                _ if attempt.number() < held => Prepared::now(token(1)),
                Holds::Fails => Prepared::failed(std::io::Error::other("no token")),
                Holds::FailsLater => Prepared::later(async {
                    tokio::time::sleep(ms(5)).await;
                    Err(std::io::Error::other("no token"))
                }),
                Holds::Hangs => Prepared::later(std::future::pending::<Result<_, std::io::Error>>()),
            };
            let timeout = TimeoutPolicy::standard().attempt(ms(100));
            let policy = Policy::standard().timeout(timeout);
            let hedge = HedgePolicy::standard().delay(Delay::Fixed(ms(50)));
            let policy = if hedged { policy.hedge(hedge) } else { policy };
            let first = if hedged { slow() } else { answer(503) };
            let rig = Rig::with(policy.into(), Some(Hook::new(hook)), [first, answer(200)]);
            let patience = if dropped { ms(60) } else { ms(60_000) };
            let ended = tokio::time::timeout(patience, rig.get()).await;
            let story = format!("{held} {hedged} {dropped} {:?}", ended.as_ref().map(Result::is_ok));
            let sent = rig.script.count();
            assert!(sent < 2, "{story}");
            if let Ok(ended) = ended {
                let report = match &ended {
                    Ok(response) => response.body().report(),
                    Err(error) => error.report().unwrap(),
                };
                assert_eq!(report.attempts().len(), sent, "{story}: {report}");
                drop(ended);
            }
            let events = rig.events.lock().unwrap();
            let count = |which: fn(&Event) -> bool| events.iter().filter(|event| which(event)).count();
            assert_eq!(count(|it| matches!(it, Event::AttemptStarted { .. })), sent, "{story}");
            assert_eq!(count(|it| matches!(it, Event::AttemptFinished { .. })), sent, "{story}");
            assert_eq!(count(|it| matches!(it, Event::CallFinished { .. })), 1, "{story}");
            let rejected = |it: &Event| matches!(it, Event::HedgeEnded { end: HedgeEnd::Rejected, .. });
            let hedges = count(|it| matches!(it, Event::HedgeEnded { .. }));
            assert_eq!((hedges, count(rejected)), (usize::from(hedged), usize::from(hedged)), "{story}");
            assert_eq!(rig.in_use(), 0, "{story}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempts_time_runs_while_its_hook_is_at_it() {
    use crate::event::Event;

    let hook = |_: &Attempt<'_>| {
        Prepared::later(async {
            tokio::time::sleep(ms(30)).await;
            Ok::<_, std::io::Error>(token(1))
        })
    };
    let rig = rig(hook, [answer(200)]);
    let call = rig.start(Method::GET, CallOptions::new());
    let begun = crate::time::now();
    let call = tokio::spawn(call);
    tokio::time::sleep(ms(10)).await;
    let started = |event: &Event| matches!(event, Event::AttemptStarted { .. });
    assert!(!rig.events.lock().unwrap().iter().any(started), "it isn't with the transport");
    let response = call.await.unwrap().unwrap();
    let attempt = &response.body().report().attempts()[0];
    assert_eq!((attempt.started(), attempt.duration()), (ms(0), ms(31)));
    let events = rig.events.lock().unwrap();
    let at = events.iter().find_map(|event| match event {
        Event::AttemptStarted { at, .. } => Some(at.since(begun)),
        _ => None,
    });
    assert_eq!(at, Some(ms(0)));
}
