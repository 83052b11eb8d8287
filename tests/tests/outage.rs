//! E2 over real sockets: a total outage isn't multiplied, and the server's count is the client's,
//! exactly.

use std::time::Duration;

use resilient_client::{Client, Policy};
use resilient_client_tests::{Heard, Reply, Server, within};
use tokio::task::JoinSet;

const CALLS: usize = 600;
const EVERY: Duration = Duration::from_millis(5);
/// What the standard budget holds to begin with.
const TOKENS: usize = 10;

/// Calls at 200 a second to a server that refuses each with a 503; how many requests it saw, and
/// how many attempts the client made.
async fn outage(policy: Policy) -> (usize, usize) {
    let server = Server::start(|_| Reply::answer(503, "out of order")).await;
    let heard = Heard::new();
    let client = Client::builder().policy(policy).observer(heard.clone()).build().unwrap();
    let mut calls = JoinSet::new();
    let mut clock = tokio::time::interval(EVERY);
    for _ in 0..CALLS {
        clock.tick().await;
        let call = client.get(server.url("/")).send();
        calls.spawn(async move { assert_eq!(call.await.unwrap().status(), 503) });
    }
    calls.join_all().await;
    (server.count(), heard.attempts())
}

#[tokio::test]
async fn a_total_outage_costs_the_server_its_calls_and_the_first_ten_tokens() {
    within(Duration::from_secs(30), async {
        let policy = Policy::standard().breaker(None).bulkhead(None).overload(None);
        let (seen, made) = outage(policy.clone()).await;
        assert_eq!((seen, made), (CALLS + TOKENS, CALLS + TOKENS));

        let (naive, _) = outage(policy.budget(None)).await;
        println!("E2 over sockets: {CALLS} calls, {seen} requests; without a budget {naive}");
        assert_eq!(naive, 4 * CALLS, "the control multiplies by four");
    })
    .await;
}

#[tokio::test]
async fn with_the_breaker_on_an_outage_costs_next_to_nothing() {
    within(Duration::from_secs(30), async {
        let server = Server::start(|_| Reply::answer(503, "out of order")).await;
        let client = Client::builder().build().unwrap();
        let mut answered = 0;
        let mut clock = tokio::time::interval(EVERY);
        for _ in 0..CALLS {
            clock.tick().await;
            answered += usize::from(client.get(server.url("/")).send().await.is_ok());
        }
        println!("outage with the breaker on: {CALLS} calls in 3 s, {} requests", server.count());
        assert!(server.count() <= CALLS / 10, "{} requests", server.count());
        assert!(answered < CALLS / 10, "the rest were refused here");
    })
    .await;
}
