//! Connections that can't be made, and how long that may take.

use super::*;

/// Nothing was sent in any of these, so a POST is repeated like a GET.
async fn assert_never_sent(name: &str, client: &Client, heard: &Heard, url: &str) {
    for method in [Method::GET, Method::POST] {
        let before = heard.attempts();
        let error = call(client.request(method, url)).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Connect, "{name}: {error:?}");
        assert_eq!(failed(&error), [failure(FailureKind::Connect); 4], "{name}: {error:?}");
        assert_eq!(heard.attempts() - before, 4, "{name}");
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_was_never_sent_on() {
    let heard = Heard::new();
    let client = builder(TimeoutPolicy::standard().connect(CONNECT), &heard).build().unwrap();
    assert_never_sent("refused", &client, &heard, &NobodyHome::new().url()).await;

    let (listener, _queued) = blackhole().await;
    let address = listener.local_addr().unwrap();
    assert_never_sent("blackhole", &client, &heard, &format!("http://{address}/")).await;
}

/// A listener whose queue is full, with what fills it: packets to it vanish.
async fn blackhole() -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let (address, mut queued) = (listener.local_addr().unwrap(), Vec::new());
    let connect = || tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address));
    while let Ok(connected) = within(SOON, connect()).await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue never fills");
    }
    (listener, queued)
}

/// The client's, 1 s, held for every host.
#[tokio::test]
async fn a_hosts_own_connect_timeout_is_that_of_its_connections() {
    let (listener, _queued) = blackhole().await;
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let policies = PolicySet::new(Policy::standard().retry(None))
        .host(url.as_str(), |policy| policy.timeout(TimeoutPolicy::standard().connect(CONNECT)));
    let client = Client::builder().policy(policies.clone()).build().unwrap();
    let error = call(client.get(url.as_str())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let took = error.report().unwrap().elapsed();
    assert!(took >= CONNECT && took < Duration::from_millis(900), "{took:?}");

    // reqwest has one for all hosts.
    let refused = resilient_client::Client::builder().policy(policies).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
}

/// The connector was told the endpoint's address, and knew of no host that has that.
#[tokio::test]
async fn a_hosts_own_connect_timeout_is_that_of_its_endpoints_connections() {
    use resilient_client::endpoints::Endpoints;

    let (listener, _queued) = blackhole().await;
    let policies = PolicySet::new(Policy::standard().retry(None))
        .host("http://users", |policy| policy.timeout(TimeoutPolicy::standard().connect(CONNECT)));
    let endpoints = Endpoints::fixed([format!("http://{}", listener.local_addr().unwrap())]);
    let client = Client::builder().policy(policies).endpoints("http://users", endpoints).build().unwrap();
    let error = call(client.get("http://users/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let took = error.report().unwrap().elapsed();
    assert!(took >= CONNECT && took < Duration::from_millis(900), "{took:?}");
}
