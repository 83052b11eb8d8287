//! What a silent upstream does to calls: who waits for word of it, who goes to find out, and that
//! nobody is refused for it.

use std::time::Duration;

use super::script::{Step, answer, ms};
use super::*;
use crate::event::{EventKinds, WaitsFor};
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::overload::OverloadPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::{Tick, now};

fn answers(after: Duration) -> Step {
    Step::Answer { after, status: 200, retry_after: None, body: Vec::new() }
}

/// Quick calls, and then an upstream that answers nothing until then.
async fn stalled(policy: &Policy, until: Duration) -> (Rig, Tick) {
    let rig = Rig::new(policy, [answers(ms(20))]);
    for _ in 0..200 {
        rig.get().await.unwrap();
    }
    let ends = now().after(until);
    rig.script.follow(move || answers(now().until(ends) + ms(20)));
    (rig, ends)
}

/// So many calls, 5 ms apart.
async fn calls(rig: &Rig, count: usize, options: &CallOptions) -> Vec<tokio::task::JoinHandle<Answer>> {
    let mut calls = Vec::new();
    for _ in 0..count {
        calls.push(tokio::spawn(rig.start(Method::GET, options.clone())));
        tokio::time::sleep(ms(5)).await;
    }
    calls
}

async fn served(calls: Vec<tokio::task::JoinHandle<Answer>>) -> usize {
    let mut served = 0;
    for call in calls {
        served += usize::from(call.await.unwrap().is_ok());
    }
    served
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_answered_calls_wait_and_go_at_the_first_answer() {
    let (rig, ends) = stalled(&Policy::standard(), ms(400)).await;
    let before = rig.script.count();
    let waiting = calls(&rig, 60, &CallOptions::new()).await;
    // The first 20, those of the 50 ms after the fourth among them, and one each time the silence
    // is four times as long.
    let sent = rig.script.count() - before;
    assert!((20..=24).contains(&sent), "{sent}");
    assert_eq!(rig.queued(), 60 - sent);
    assert_eq!(served(waiting).await, 60);
    assert!(now().since(ends) <= ms(45), "they went at the first answer: {:?}", now().since(ends));
    assert_eq!((rig.queued(), rig.in_use()), (0, 0));
}

/// Silence longer than anybody waits: they go all the same, and are answered in their time.
#[tokio::test(start_paused = true)]
async fn nobody_is_refused_for_silence() {
    let (rig, _) = stalled(&Policy::standard(), ms(2_400)).await;
    let waiting = calls(&rig, 250, &CallOptions::new()).await;
    assert_eq!(served(waiting).await, 250);
    // Not even where nobody may wait.
    let alone = Policy::standard().overload(OverloadPolicy::standard().max_waiting(0));
    let (rig, _) = stalled(&alone, ms(400)).await;
    let going = calls(&rig, 60, &CallOptions::new()).await;
    assert_eq!((rig.queued(), served(going).await), (0, 60));
}

#[tokio::test(start_paused = true)]
async fn who_has_little_time_keeps_half_of_it_for_the_attempt() {
    let (rig, _) = stalled(&Policy::standard(), ms(5_000)).await;
    let _patient = calls(&rig, 30, &CallOptions::new()).await;
    let (before, begun) = (rig.script.count(), now());
    let hasty = tokio::spawn(rig.start(Method::GET, CallOptions::new().timeout(ms(100))));
    tokio::time::sleep(ms(40)).await;
    assert_eq!(rig.script.count(), before, "it waits");
    assert!(hasty.await.unwrap().is_err_and(|error| error.is_timeout()));
    assert_eq!(now().since(begun), ms(100));
    assert!(rig.script.launches().into_iter().any(|at| at.since(begun) == ms(50)));
}

/// Who has waited enough for an answer waits for a slot then, where there is a queue for that.
#[tokio::test(start_paused = true)]
async fn who_has_waited_enough_still_stands_in_the_bulkheads_queue() {
    use crate::policy::bulkhead::BulkheadPolicy;
    let bulkhead = BulkheadPolicy::standard().max_in_flight(32).max_queued(500).queue_wait(ms(5_000));
    let (rig, _) = stalled(&Policy::standard().bulkhead(bulkhead), ms(2_000)).await;
    let waiting = calls(&rig, 250, &CallOptions::new()).await;
    assert_eq!(served(waiting).await, 250);
}

/// Slow calls that begin together are a silence of their own making.
#[tokio::test(start_paused = true)]
async fn a_batch_of_slow_calls_keeps_no_quick_one_waiting() {
    let rig = Rig::new(&Policy::standard(), [answers(ms(20))]);
    for _ in 0..200 {
        rig.get().await.unwrap();
    }
    rig.script.then([answers(ms(2_000))]);
    let batch = calls(&rig, 25, &CallOptions::new()).await;
    tokio::time::sleep(ms(300)).await;
    rig.script.then([answers(ms(20))]);
    let begun = now();
    let quick = calls(&rig, 3, &CallOptions::new()).await;
    assert_eq!(served(quick).await, 3);
    assert!(now().since(begun) <= ms(45), "{:?}", now().since(begun));
    assert_eq!(served(batch).await, 25);
}

/// Who waits is told at once when the first timeouts open the breaker.
#[tokio::test(start_paused = true)]
async fn an_opening_breaker_ends_the_wait() {
    let policy = Policy::standard().timeout(TimeoutPolicy::standard().attempt(ms(500)));
    let (rig, _) = stalled(&policy, Duration::from_secs(60)).await;
    let begun = now();
    let waiting = calls(&rig, 100, &CallOptions::new()).await;
    tokio::time::sleep(ms(150)).await;
    assert!(now().since(begun) < ms(660));
    // All but those that went to find out.
    let ended = waiting.iter().filter(|call| call.is_finished()).count();
    assert!(ended >= 90 && rig.queued() == 0, "{ended}");
    assert_eq!(served(waiting).await, 0);
    assert_eq!((rig.queued(), rig.in_use()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_leaves_nothing_behind() {
    let (rig, _) = stalled(&Policy::standard(), ms(2_000)).await;
    let waiting = calls(&rig, 60, &CallOptions::new()).await;
    for call in &waiting {
        call.abort();
    }
    tokio::time::sleep(ms(1)).await;
    assert_eq!((rig.queued(), rig.in_use()), (0, 0));
    rig.script.then([answer(200)]);
    rig.get().await.unwrap();
}

/// One of three answers nothing any more. It gets the few attempts that show it, and the next calls
/// go to the others, long before the first has timed out.
#[tokio::test(start_paused = true)]
async fn a_silent_replica_of_three_is_left_alone_before_anything_has_timed_out() {
    use super::network::{Network, Replica, layer, start, three};
    let network = Network::of(&["a:1", "b:2", "c:3"].map(|authority| (authority, Replica::Answers(5))));
    let layer = layer(Policy::standard().hedge(None), three());
    let mut running = tokio::task::JoinSet::new();
    let mut before = 0;
    for n in 0..900 {
        if n == 300 {
            network.set("c:3", Replica::Answers(2_900));
            before = network.count("c:3");
        }
        running.spawn(start(&layer, &network, Method::GET, CallOptions::new()));
        tokio::time::sleep(ms(2)).await;
    }
    let mute = network.count("c:3") - before;
    assert!(mute <= 40, "a third of 600 calls, were it not for that: {mute}");
    assert!(running.join_all().await.iter().all(Result::is_ok));
}

/// Whether it fell silent or answered, and for how long it hadn't.
fn silences(rig: &Rig) -> Vec<(bool, Duration)> {
    let silence = |event: &Event| match event {
        Event::Silence { silent, duration } => Some((*silent, *duration)),
        _ => None,
    };
    rig.events.lock().unwrap().iter().filter_map(silence).collect()
}

fn count(rig: &Rig, which: impl Fn(&Event) -> bool) -> usize {
    rig.events.lock().unwrap().iter().filter(|event| which(event)).count()
}

fn silent_for(rig: &Rig) -> Option<Duration> {
    rig.snapshot()[0].overload.unwrap().silent_for
}

fn would_wait(event: &Event) -> bool {
    matches!(event, Event::WouldReject { rejection: crate::Rejection::Silent })
}

/// Calls waited, and nobody was told why.
#[tokio::test(start_paused = true)]
async fn who_looks_is_told_that_it_is_silent_that_calls_wait_for_that_and_that_it_answers() {
    let (rig, _) = stalled(&Policy::standard(), ms(400)).await;
    assert_eq!(silent_for(&rig), None);
    let waiting = calls(&rig, 60, &CallOptions::new()).await;
    let [(true, after)] = *silences(&rig) else { panic!("{:?}", silences(&rig)) };
    assert!((ms(50)..ms(100)).contains(&after), "{after:?}");
    let for_now = silent_for(&rig).expect("it is");
    assert!((ms(250)..ms(300)).contains(&for_now), "{for_now:?}");
    let queued = count(&rig, |event| matches!(event, Event::AttemptQueued { .. }));
    let for_answer =
        |event: &Event| matches!(event, Event::AttemptQueued { waits_for: WaitsFor::Answer, .. });
    assert_eq!(count(&rig, for_answer), queued);
    assert!(queued >= rig.queued() && rig.queued() > 30, "{queued}");
    assert_eq!(served(waiting).await, 60);
    let [(true, _), (false, lasted)] = *silences(&rig) else { panic!("{:?}", silences(&rig)) };
    assert!((ms(380)..ms(430)).contains(&lasted), "{lasted:?}");
    assert_eq!((silent_for(&rig), count(&rig, would_wait)), (None, 0));
}

/// It said nothing at all.
#[tokio::test(start_paused = true)]
async fn a_policy_that_only_observes_says_what_it_would_have_kept_waiting() {
    let observing = Policy::standard().overload(OverloadPolicy::standard().observe_only(true));
    let (rig, _) = stalled(&observing, ms(400)).await;
    let going = calls(&rig, 60, &CallOptions::new()).await;
    assert_eq!((rig.queued(), served(going).await), (0, 60));
    // One fewer may have gone to find out at each time that one would.
    let would = count(&rig, would_wait);
    assert!((36..=40).contains(&would), "{would}");
    assert!(matches!(*silences(&rig), [(true, _), (false, _)]), "{:?}", silences(&rig));
    // Where nobody would wait nobody is said to.
    let alone = OverloadPolicy::standard().observe_only(true).max_waiting(0);
    let (rig, _) = stalled(&Policy::standard().overload(alone), ms(400)).await;
    served(calls(&rig, 60, &CallOptions::new()).await).await;
    assert_eq!((silences(&rig).len(), count(&rig, would_wait)), (2, 0));
}

/// "0 attempts in flight are all it can answer in time", it said.
#[tokio::test(start_paused = true)]
async fn a_hedge_is_refused_for_silence_and_says_so() {
    let hedged = Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(150))).burst(1000));
    let (rig, _) = stalled(&hedged, ms(400)).await;
    assert_eq!(served(calls(&rig, 30, &CallOptions::new()).await).await, 30);
    let refused = count(
        &rig,
        |event| matches!(event, Event::Rejected { rejection, .. } if rejection.as_str() == "silent"),
    );
    assert!(refused >= 10, "{refused}");
    assert_eq!(count(&rig, |event| event.kind() == EventKinds::REJECTED), refused);
}

/// Ten at a stalled server are too few to say that it is silent; their hedges would wait there.
#[tokio::test(start_paused = true)]
async fn a_hedge_is_refused_where_all_answers_are_late_and_sent_where_one_is() {
    let hedged = Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(70))).burst(1000));
    let (rig, _) = stalled(&hedged, ms(400)).await;
    let before = rig.script.count();
    assert_eq!(served(calls(&rig, 10, &CallOptions::new()).await).await, 10);
    assert_eq!((rig.script.count() - before, silences(&rig)), (10, vec![]));

    let rig = Rig::new(&hedged, [answers(ms(20))]);
    for _ in 0..200 {
        rig.get().await.unwrap();
    }
    rig.script.then([answers(ms(400)), answers(ms(20))]);
    let begun = now();
    assert_eq!(served(calls(&rig, 30, &CallOptions::new()).await).await, 30);
    assert_eq!((rig.script.count(), now().since(begun) < ms(180)), (200 + 31, true));
}

#[tokio::test(start_paused = true)]
async fn a_silence_ends_with_its_policy_and_the_next_is_another() {
    let (rig, _) = stalled(&Policy::standard(), ms(2_000)).await;
    let waiting = calls(&rig, 60, &CallOptions::new()).await;
    rig.reload(Policy::standard().overload(None));
    assert!(matches!(*silences(&rig), [(true, _), (false, _)]), "{:?}", silences(&rig));
    assert_eq!(served(waiting).await, 60);
    rig.reload(Policy::standard());
    rig.script.then([answers(ms(20))]);
    for _ in 0..200 {
        rig.get().await.unwrap();
    }
    let ends = now().after(ms(400));
    rig.script.follow(move || answers(now().until(ends) + ms(20)));
    assert_eq!(served(calls(&rig, 60, &CallOptions::new()).await).await, 60);
    let told: Vec<_> = silences(&rig).into_iter().map(|(silent, _)| silent).collect();
    assert_eq!(told, [true, false, true, false]);
}

/// A key's call finds it, another's ends it: what is told is told of the host, whose silence it is.
#[tokio::test(start_paused = true)]
async fn a_silence_that_keys_share_is_told_of_their_host() {
    let told = Arc::<Mutex<Vec<(String, bool)>>>::default();
    let heard = Arc::clone(&told);
    let (rig, _) = stalled(&Policy::standard(), ms(400)).await;
    let hears: Arc<dyn Observer> = Arc::new(move |upstream: &str, event: &Event| {
        if let Event::Silence { silent, .. } = event {
            heard.lock().unwrap().push((upstream.to_owned(), *silent));
        }
    });
    rig.core.observe(&hears);
    let mut all = Vec::new();
    for key in ["a", "b", "c"] {
        all.extend(calls(&rig, 20, &CallOptions::new().key(key)).await);
    }
    assert_eq!(served(all).await, 60);
    let host = "http://users:3000".to_owned();
    assert_eq!(*told.lock().unwrap(), [(host.clone(), true), (host, false)]);
}

/// Of several endpoints each has its own silence.
#[tokio::test(start_paused = true)]
async fn a_silent_replica_is_told_by_its_own_name() {
    use super::network::{Network, Replica, start, three};
    let all = ["a:1", "b:2", "c:3"];
    for observes in [false, true] {
        let network = Network::of(&all.map(|authority| (authority, Replica::Answers(5))));
        let told = Arc::<Mutex<Vec<(String, Event)>>>::default();
        let heard = Arc::clone(&told);
        let layer = ResilienceLayer::builder()
            .policy(
                Policy::standard().hedge(None).overload(OverloadPolicy::standard().observe_only(observes)),
            )
            .endpoints("http://users:3000", three())
            .seed(7)
            .observer(move |upstream: &str, event: &Event| {
                heard.lock().unwrap().push((upstream.to_owned(), event.clone()));
            })
            .build()
            .unwrap();
        let mut running = tokio::task::JoinSet::new();
        let mut silent = Vec::new();
        for n in 0..500 {
            if n == 300 {
                for authority in all {
                    network.set(authority, Replica::Answers(450));
                }
            }
            running.spawn(start(&layer, &network, Method::GET, CallOptions::new()));
            tokio::time::sleep(ms(2)).await;
            if n == 499 {
                let endpoints = layer.snapshot()[0].endpoints.clone();
                let is_silent = |endpoint: &crate::EndpointSnapshot| {
                    endpoint.overload.silent_for.map(|_| endpoint.origin.to_string())
                };
                silent = endpoints.iter().filter_map(is_silent).collect();
            }
        }
        assert!(running.join_all().await.iter().all(Result::is_ok));
        let told = told.lock().unwrap();
        let names = |which: bool| {
            let it = |(name, event): &(String, Event)| match event {
                Event::Silence { silent, .. } if *silent == which => Some(name.clone()),
                _ => None,
            };
            let mut names: Vec<_> = told.iter().filter_map(it).collect();
            names.sort();
            names
        };
        let expected: Vec<_> = all.iter().map(|authority| format!("http://{authority}")).collect();
        assert_eq!((names(true), names(false), silent), (expected.clone(), expected.clone(), expected));
        let would = told.iter().filter(|(_, event)| would_wait(event)).count();
        assert_eq!(would > 20, observes, "{would}");
    }
}
