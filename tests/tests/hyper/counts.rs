//! What becomes of connections is counted: made or not, closed and why, pinged.

use super::*;
use resilient_client::Connections;

/// Waits until the counts are these, for what ends a moment later.
async fn until(client: &Client, what: &str, holds: impl Fn(Connections) -> bool) {
    let waiting = async {
        while !holds(client.connections()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(SOON, waiting).await;
    assert!(ended.is_ok(), "{what}: {:?}", client.connections());
}

#[tokio::test]
async fn connections_are_counted_as_they_are_made_used_again_and_closed() {
    let server = Server::start(|request| match request.nth {
        3 => Reply::answer(200, "bye").then_close(),
        _ => Reply::answer(200, "hi"),
    })
    .await;
    let client = client_of(&Heard::new());
    for _ in 0..3 {
        call(client.get(server.url("/"))).await.unwrap();
    }
    until(&client, "one, closed by the server", |it| (it.begun, it.made, it.closed, it.open) == (1, 1, 1, 0))
        .await;
    call(client.get(server.url("/"))).await.unwrap();
    let now = client.connections();
    assert_eq!((now.begun, now.made, now.open, now.failed, now.retired), (2, 2, 1, 0, 0), "{now:?}");
    drop(server);
}

#[tokio::test]
async fn a_connection_that_is_not_made_has_failed_or_had_no_time() {
    let (nobody, heard) = (NobodyHome::new(), Heard::new());
    let policy = Policy::standard().timeout(TimeoutPolicy::standard()).breaker(None).retry(None);
    let client = Client::builder().policy(policy).observer(heard).build().unwrap();
    call(client.get(nobody.url())).await.unwrap_err();
    let now = client.connections();
    assert_eq!((now.begun, now.made, now.failed, now.timed_out), (1, 0, 1, 0), "{now:?}");
}

#[tokio::test]
async fn a_connection_that_has_lost_its_voice_is_retired() {
    let server = H2Server::start(|request| match request.connection {
        1 => Act::Nothing,
        _ => Act::Answer("done"),
    })
    .await;
    let timeout = TimeoutPolicy::standard().attempt(SHORT);
    let client = builder(timeout, &Heard::new()).http2_prior_knowledge().build().unwrap();
    call(client.get(server.url("/"))).await.unwrap();
    until(&client, "one is retired", |it| (it.retired, it.made, it.open) == (1, 2, 1)).await;
    assert_eq!(client.connections().sent_away, 0);
}

#[tokio::test]
async fn a_connection_that_the_server_sends_away_says_so() {
    let server = H2Server::start(|request| match request.nth {
        1 => Act::GoAway { last: 0, code: NO_ERROR },
        _ => Act::Answer("done"),
    })
    .await;
    let client = builder(TimeoutPolicy::standard(), &Heard::new()).http2_prior_knowledge().build().unwrap();
    call(client.get(server.url("/"))).await.unwrap();
    until(&client, "one is sent away", |it| (it.sent_away, it.made, it.open) == (1, 2, 1)).await;
    assert_eq!(client.connections().retired, 0);
}
