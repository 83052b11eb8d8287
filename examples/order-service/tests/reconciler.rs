//! How pending orders are settled: each once, oldest first, and never all at once.

mod fake;

use std::{sync::atomic::Ordering, time::Duration};

use fake::{ADA, BOB, LATER, Says, Service};
use futures_util::future::join_all;
use order_service::{OrderStatus, reconciler::Round};
use service_kit::testing::{TestDatabase, get, post};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_pending_order_is_confirmed_or_rejected_once_user_service_answers() {
    let service = Service::new(Says::Down).await;
    let (of_ada, of_bob) = (service.place_pending(ADA).await, service.place_pending(BOB).await);
    service.users.now_says(Says::Exists);
    service.users.says_about(BOB, Says::Unknown);
    service.clock.advance(LATER);
    let round = service.state.reconciler().round(32).await.unwrap();
    assert_eq!(round, Round { resolved: 2, ..Round::default() });

    assert_eq!(service.status(&of_bob).await, "rejected");
    let order = get(&service.app, &format!("/orders/{of_ada}")).await.json();
    assert_eq!((order["status"].as_str(), order["resolutions"].as_i64()), (Some("confirmed"), Some(1)));
    assert_eq!(order["resolved_at_ms"].as_i64(), Some(service.clock.now_ms()));

    let again = service.state.reconciler().round(32).await.unwrap();
    assert_eq!(again, Round::default());
}

#[tokio::test]
async fn an_order_is_not_checked_before_it_is_due() {
    let service = Service::new(Says::Down).await;
    service.place_pending(ADA).await;
    let reconciler = service.state.reconciler();
    let early = reconciler.round(32).await.unwrap();
    assert_eq!(early, Round { next_due: Some(Duration::from_millis(200)), ..Round::default() });
    assert_eq!(service.users.calls(), 1);

    service.clock.advance(Duration::from_millis(200));
    let vain = reconciler.round(32).await.unwrap();
    assert_eq!(vain.unanswered, 1);
    // The next check is twice as far away, less at most half of jitter.
    let next = vain.next_due.unwrap();
    assert!((Duration::from_millis(200)..=Duration::from_millis(400)).contains(&next), "{next:?}");
}

#[tokio::test]
async fn the_oldest_come_first_in_rounds_of_bounded_size_and_concurrency() {
    let service = Service::new(Says::Down).await;
    let mut placed = Vec::new();
    for _ in 0..20 {
        placed.push(service.place_pending(ADA).await);
    }
    service.users.now_says(Says::Exists);
    service.clock.advance(LATER);
    service.users.asked.lock().unwrap().clear();
    let round = service.state.reconciler().round(12).await.unwrap();
    assert_eq!((round.resolved, round.next_due), (12, Some(Duration::ZERO)));
    let asked: Vec<String> =
        service.users.asked.lock().unwrap().iter().map(|(_, request)| request.clone()).collect();
    let oldest: Vec<String> = placed[..12].iter().map(|id| format!("reconcile-{id}")).collect();
    assert_eq!(asked, oldest);
    assert!(service.users.most_in_flight.load(Ordering::SeqCst) <= 8);
}

#[tokio::test]
async fn a_round_stops_asking_at_the_first_failure() {
    let service = Service::new(Says::Down).await;
    for _ in 0..30 {
        service.place_pending(ADA).await;
    }
    service.clock.advance(LATER);
    let before = service.users.calls();
    let round = service.state.reconciler().round(32).await.unwrap();
    let asked = service.users.calls() - before;
    assert_eq!((round.resolved, round.unanswered), (0, asked));
    assert!((1..=8).contains(&asked), "{asked}");
}

#[tokio::test]
async fn an_order_that_cannot_be_settled_does_not_hold_up_the_younger() {
    for trouble in [Says::Down, Says::Hang, Says::Panic] {
        let service = Service::new(Says::Down).await;
        let stuck = service.place_pending(BOB).await;
        let younger = service.place_pending(ADA).await;
        service.users.now_says(Says::Exists);
        service.users.says_about(BOB, trouble);
        service.clock.advance(LATER);
        // One order a round, as while backing off.
        let reconciler = service.state.reconciler();
        assert_eq!(reconciler.round(1).await.unwrap().unanswered, 1);
        assert_eq!(reconciler.round(1).await.unwrap().resolved, 1);
        assert_eq!(service.status(&younger).await, "confirmed");
        assert_eq!(service.status(&stuck).await, "pending_verification", "{trouble:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_reconcilers_settle_each_order_exactly_once() {
    let service = Service::new(Says::Down).await;
    for _ in 0..40 {
        service.place_pending(ADA).await;
    }
    service.users.now_says(Says::Exists);
    service.clock.advance(LATER);
    // Two instances, two tasks in each.
    let other = service.another().await;
    let reconcilers =
        [service.state.reconciler(), service.state.reconciler(), other.reconciler(), other.reconciler()];
    let rounds = join_all(reconcilers.map(|reconciler| {
        tokio::spawn(async move {
            let mut resolved = 0;
            loop {
                let round = reconciler.round(32).await.unwrap();
                resolved += round.resolved;
                if round.next_due.is_none() {
                    return resolved;
                }
            }
        })
    }));
    let resolved: usize = rounds.await.into_iter().map(Result::unwrap).sum();
    assert_eq!(resolved, 40);
    let confirmed = service.with_status(OrderStatus::Confirmed).await;
    assert_eq!(confirmed.len(), 40);
    assert!(confirmed.iter().all(|order| order["resolutions"] == 1), "{confirmed:?}");
}

#[tokio::test]
async fn a_clock_turned_back_does_not_hold_pending_orders_up() {
    let service = Service::new(Says::Down).await;
    let id = service.place_pending(ADA).await;
    service.clock.turn_back(Duration::from_hours(1));
    let young = service.place_pending(ADA).await;
    service.users.now_says(Says::Exists);
    let reconciler = service.state.reconciler();
    let round = reconciler.round(32).await.unwrap();
    assert_eq!((round.resolved, round.next_due), (1, Some(Duration::from_millis(200))));
    assert_eq!(
        (service.status(&id).await, service.status(&young).await),
        ("confirmed".into(), "pending_verification".into())
    );
    service.clock.advance(Duration::from_millis(200));
    assert_eq!(reconciler.round(32).await.unwrap(), Round { resolved: 1, ..Round::default() });
}

#[tokio::test]
async fn pending_orders_survive_a_restart() {
    let service = Service::new(Says::Down).await;
    let id = service.place_pending(ADA).await;
    let Service { app, state, users, clock, database } = service;
    drop((app, state));

    users.now_says(Says::Exists);
    clock.advance(LATER);
    let config = fake::config(&database);
    let restarted = order_service::AppState::open_at(&config, users, clock).await.unwrap();
    assert_eq!(restarted.reconciler().round(32).await.unwrap().resolved, 1);
    let order = get(&order_service::app(restarted), &format!("/orders/{id}")).await.json();
    assert_eq!((order["status"].as_str(), order["resolutions"].as_i64()), (Some("confirmed"), Some(1)));
}

#[tokio::test]
async fn a_database_error_ends_the_round_not_the_reconciler() {
    let service = Service::new(Says::Down).await;
    let id = service.place_pending(ADA).await;
    service.users.now_says(Says::Exists);
    service.clock.advance(LATER);
    let reconciler = service.state.reconciler();
    service.database.execute("ALTER TABLE orders RENAME TO elsewhere").await;
    assert!(reconciler.round(32).await.is_err());
    service.database.execute("ALTER TABLE elsewhere RENAME TO orders").await;
    assert_eq!(reconciler.round(32).await.unwrap().resolved, 1);
    assert_eq!(service.status(&id).await, "confirmed");
}

/// The loop itself runs on the real clock here: the database's threads don't know a virtual one.
#[tokio::test]
async fn the_loop_is_woken_by_a_new_pending_order_and_stops_when_told() {
    let database = TestDatabase::new().await;
    let users = fake::FakeUsers::new(Says::Exists);
    let state = order_service::AppState::open(&fake::config(&database), users.clone()).await.unwrap();
    let app = order_service::app(state.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn(state.reconciler().run_until(stop.clone()));

    // Twice: the first time it may still be starting, the second time it is idle.
    for _ in 0..2 {
        users.now_says(Says::Down);
        let placed = post(&app, "/orders", &fake::order(ADA)).await;
        users.now_says(Says::Exists);
        let settled = async {
            // An idle reconciler would look only after 5 s; woken, it needs about 200 ms.
            while get(&app, placed.header("location")).await.text("status") != "confirmed" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(4), settled).await.expect("woken, not polled");
        // The end of the round that settled it comes a moment after the order's own update.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(1), running).await.expect("stops at once").unwrap();
}
