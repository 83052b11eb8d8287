//! What becomes of connections is counted: made or not, closed and why, pinged.

use super::*;
use resilient_client::{Connections, Metrics};
use service_kit::meters::Meters;

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

/// What a page of metrics says: how many connections are idle and active; nothing before any host
/// was met.
fn told(metrics: &Metrics, meters: &Meters, clients: &[&Client]) -> Option<(u64, u64)> {
    metrics.record_snapshot(&clients.iter().flat_map(|client| client.snapshot()).collect::<Vec<_>>());
    let page = meters.render();
    let of = |state: &str| {
        let mut lines = page.lines().filter(|line| line.starts_with("http_client_open_connections{"));
        let line = lines.find(|line| line.contains(&format!("http_connection_state=\"{state}\"")))?;
        assert!(line.contains("server_address=\"127.0.0.1\"") && !line.contains("url_template"), "{line}");
        line.rsplit_once(' ')?.1.parse().ok()
    };
    Some((of("idle")?, of("active")?))
}

#[tokio::test]
async fn open_connections_are_told_by_host_and_by_whether_attempts_are_on_them() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Server::start(move |request| match request.target.as_str() {
        "/bye" => Reply::answer(200, "bye").then_close(),
        _ => Reply::answer(200, "hi").after(&held),
    })
    .await;
    let (meters, origin) = (Meters::default(), server.url(""));
    let metrics = Metrics::with_recorder(meters.recorder());
    // A route has state of its own, and its host's connections.
    let policies = PolicySet::new(Policy::standard()).route(&origin, "GET", "/slow/{n}", |policy| policy);
    let client = Client::builder().policy(policies).observer(metrics.clone()).build().unwrap();
    let told = || told(&metrics, &meters, &[&client]);
    assert_eq!(told(), None, "nobody was met");
    let mut calls = JoinSet::new();
    for path in ["/slow/1", "/slow/2", "/other"] {
        let request = client.get(server.url(path));
        calls.spawn(async move { call(request).await.unwrap() });
    }
    within(SOON, server.until_count(3)).await;
    assert_eq!(told(), Some((0, 3)));
    gate.open();
    within(SOON, calls.join_all()).await;
    assert_eq!(told(), Some((3, 0)));
    assert!(client.snapshot().iter().all(|upstream| upstream.open_connections == Some(3)));
    call(client.get(server.url("/bye"))).await.unwrap();
    until(&client, "the server closed one", |it| it.open == 2).await;
    assert_eq!(told(), Some((2, 0)));
}

/// A process may have several, and one page of metrics.
#[tokio::test]
async fn open_connections_of_several_clients_to_a_host_are_told_together() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Server::start(move |_| Reply::answer(200, "hi").after(&held)).await;
    let (meters, origin) = (Meters::default(), server.url(""));
    let metrics = Metrics::with_recorder(meters.recorder());
    let policies = PolicySet::new(Policy::standard()).route(&origin, "GET", "/slow/{n}", |policy| policy);
    let made = || Client::builder().policy(policies.clone()).observer(metrics.clone()).build().unwrap();
    let [two, three] = [made(), made()];
    let mut calls = JoinSet::new();
    for (client, path) in [(&two, "/slow/1"), (&two, "/"), (&three, "/slow/1"), (&three, "/"), (&three, "/")]
    {
        let request = client.get(server.url(path));
        calls.spawn(async move { call(request).await.unwrap() });
    }
    within(SOON, server.until_count(5)).await;
    let told = |of: &[&Client]| told(&metrics, &meters, of);
    assert_eq!(told(&[&two, &three]), Some((0, 5)));
    gate.open();
    within(SOON, calls.join_all()).await;
    assert_eq!(told(&[&two, &three.clone(), &three]), Some((5, 0)), "a clone is the same client");
    drop(two);
    assert_eq!(told(&[&three]), Some((3, 0)));
}
