//! What follows a head: an upgrade, a body in pieces, and what a drain waits for.

use super::*;

#[tokio::test]
async fn an_upgraded_connection_is_handed_over() {
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt as _;

    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\nHELLO";
    let server = Server::start(move |_| Reply::raw(switch).then_hang()).await;
    let client = Client::builder().build().unwrap();
    let ask = client.get(server.url("/")).header("connection", "upgrade").header("upgrade", "shout");
    let response = within(SOON, ask.send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.report().is_streaming()), (101, true));
    let mut connection = TokioIo::new(within(SOON, response.upgrade()).await.unwrap());
    let mut greeting = [0; 5];
    within(SOON, connection.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"HELLO");

    server.now(|_| Reply::answer(200, "no"));
    let refused = within(SOON, client.get(server.url("/")).send()).await.unwrap().upgrade().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Transport);
}

/// Whoever stops waiting for a piece of the body may come back for it.
#[tokio::test]
async fn a_chunk_that_was_given_up_is_not_lost() {
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |_| {
        Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").then_wait(&hold).then("world")
    })
    .await;
    let heard = Heard::new();
    let client = client_of(&heard);
    let mut response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(within(SOON, response.chunk()).await.unwrap().unwrap(), "hello");
    tokio::time::timeout(Duration::from_millis(20), response.chunk()).await.unwrap_err();
    gate.open();
    assert_eq!(within(SOON, response.chunk()).await.unwrap().unwrap(), "world");
    assert_eq!(heard.outcomes(), [Outcome::Success], "its end is known without being asked for");
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_drain_waits_for_the_body_and_refuses_newcomers() {
    let server = Server::start(|_| Reply::answer(200, "done")).await;
    let client = Client::builder().build().unwrap();
    let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(client.drain(Duration::from_millis(20)).await, 1);
    assert_eq!(call(client.get(server.url("/"))).await.unwrap_err().kind(), ErrorKind::Draining);
    assert_eq!(response.text().await.unwrap(), "done");
    assert_eq!(client.drain(SOON).await, 0);
}
