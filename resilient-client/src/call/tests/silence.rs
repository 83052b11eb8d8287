//! What a silent upstream does to calls: who waits for word of it, who goes to find out, and that
//! nobody is refused for it.

use std::time::Duration;

use super::script::{Step, answer, ms};
use super::*;
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
    // is twice as long.
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
