//! Heads and bodies, and failures with one cause.

use super::*;

#[test]
fn a_server_that_answers_and_then_stalls_opens_it_although_heads_keep_coming() {
    let breaker = breaker(BreakerPolicy::standard());
    let mut bodies = std::collections::VecDeque::new();
    for second in 0..60_u64 {
        let now = START.after(Duration::from_secs(second));
        if second >= 5 {
            let (body, at) = bodies.pop_front().unwrap();
            if let Some(opened) = body_fails(&breaker, body, at, now) {
                assert_eq!((opened.cause, second), (Cause::ColdFailures(5), 9));
                return;
            }
        }
        bodies.push_back((head(&breaker, now), now));
    }
    panic!("a minute of stalled bodies did not open it");
}

#[test]
fn a_body_that_fails_takes_the_success_of_its_head_back() {
    let breaker = breaker(BreakerPolicy::standard());
    let body = head(&breaker, START);
    body_fails(&breaker, body, START, START.after(ms(3500)));
    let snapshot = breaker.snapshot(START.after(ms(3500)));
    assert_eq!((snapshot.failures, snapshot.successes), (1, 0));
}

/// Heads whose bodies were put down to an event went on counting as successes: three stalled bodies
/// of four opened nothing.
#[test]
fn bodies_that_one_cause_explains_do_not_speak_for_the_server() {
    for cause in [FailureCause::Own, FailureCause::Lost] {
        let breaker = breaker(BreakerPolicy::standard());
        let mut bodies = VecDeque::new();
        let mut calls = 0_u64;
        while breaker.state() == State::Closed && calls < 18_000 {
            let now = START.after_nanos(calls * 3_333_333);
            let body = head(&breaker, now);
            if calls % 4 == 1 {
                breaker.record_body(body, BodyResult::new(Verdict::Success, now), now, MIDDLE);
            } else {
                bodies.push_back((calls + 150, now, body));
            }
            while bodies.front().is_some_and(|(due, ..)| *due <= calls) {
                let (_, at, body) = bodies.pop_front().unwrap();
                breaker.record_body(
                    body,
                    BodyResult::new(Verdict::Failure, at).caused_by(cause),
                    now,
                    MIDDLE,
                );
            }
            calls += 1;
        }
        assert!(calls < 18_000, "75 % of bodies stall: {cause:?}");
    }
}

#[test]
fn half_of_all_bodies_failing_opens_it_as_half_of_all_heads_would() {
    let breaker = breaker(BreakerPolicy::standard());
    for n in 0..100 {
        let body = head(&breaker, START);
        let opened = if n % 2 == 0 {
            breaker.record_body(body, BodyResult::new(Verdict::Success, START), START, MIDDLE);
            None
        } else {
            body_fails(&breaker, body, START, START)
        };
        if let Some(opened) = opened {
            assert_eq!((opened.cause, n), (Cause::FailureRate { failures: 25, calls: 50 }, 49));
            return;
        }
    }
    panic!("it did not open");
}

#[test]
fn scattered_failures_among_streams_that_are_well_do_not_open_it() {
    let breaker = breaker(BreakerPolicy::standard());
    let streams: Vec<_> = (0..98).map(|_| head(&breaker, START)).collect();
    for n in 0..5 {
        assert_eq!(call(&breaker, Verdict::Failure, START.after(ms(n * 100))), None);
    }
    drop(streams);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn probes_are_decided_by_their_heads_however_long_their_bodies_take() {
    let (breaker, now) = opened(BreakerPolicy::standard());
    let bodies = [(); 3].map(|()| {
        let probe = probe(&breaker, now);
        let body = probe.body();
        (body, breaker.record(probe, CallResult::new(Verdict::Success, QUICK), now, MIDDLE))
    });
    assert_eq!(bodies[2].1.unwrap().to, State::Closed);
    let [(first, _), ..] = bodies;
    let later = now.after(ms(20_000));
    assert_eq!(body_fails(&breaker, first, now, later), None, "of another generation");
}

#[test]
fn bodies_that_failed_before_it_opened_are_remembered_until_one_ends_well() {
    let breaker = breaker(BreakerPolicy::standard());
    let mut now = START;
    let mut lasts = Vec::new();
    for _ in 0..6 {
        let opened = loop {
            let body = head(&breaker, now);
            let at = now;
            now = now.after(ms(5000));
            if let Some(opened) = body_fails(&breaker, body, at, now) {
                break opened;
            }
        };
        assert!(matches!(opened.cause, Cause::ColdFailures(_)));
        let lasts_for = shut_for(&breaker, now).unwrap();
        lasts.push(lasts_for.as_millis() as u64);
        now = now.after(lasts_for);
        assert_eq!(recover(&breaker, now).to, State::Closed);
    }
    assert_eq!(lasts, [250, 500, 1000, 2000, 4000, 5000], "each time by a single body, and for longer");
    let body = head(&breaker, now);
    breaker.record_body(body, BodyResult::new(Verdict::Success, now), now, MIDDLE);
    let body = head(&breaker, now);
    assert_eq!(body_fails(&breaker, body, now, now), None);
}

#[test]
fn what_one_restart_ended_is_one_failure() {
    let breaker = breaker(BreakerPolicy::standard());
    call(&breaker, Verdict::Success, START);
    for _ in 0..48 {
        let permit = breaker.try_acquire(START).unwrap().permit;
        let lost = breaker.record(
            permit,
            CallResult::new(Verdict::Failure, QUICK).caused_by(FailureCause::Lost),
            START,
            MIDDLE,
        );
        assert_eq!(lost, None);
    }
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.failures, snapshot.streak), (1, 1));
}

#[test]
fn a_server_that_refuses_every_connection_opens_it_within_its_first_second() {
    let breaker = breaker(BreakerPolicy::standard());
    call(&breaker, Verdict::Success, START);
    let opened_after = (0..1000).map(|n| n * 3).find(|n| {
        let now = START.after(ms(*n));
        let permit = breaker.try_acquire(now).unwrap().permit;
        breaker
            .record(
                permit,
                CallResult::new(Verdict::Failure, QUICK).caused_by(FailureCause::Lost),
                now,
                MIDDLE,
            )
            .is_some()
    });
    assert!(opened_after.is_some_and(|after| after <= 200), "{opened_after:?}");
}
