//! Over HTTP/1.1: what is lost, what is sent again, and connections that are retired.

use super::*;

#[tokio::test]
async fn a_fault_is_classified_as_over_reqwest() {
    use FailureKind::{Body as BadBody, BodyIdle, Timeout, Transport};
    let heard = Heard::new();
    let timeout = TimeoutPolicy::standard().attempt(SHORT).body_idle(SHORT);
    let client = builder(timeout, &heard).build().unwrap();
    let head = |head: &str| Reply::raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
    for (name, fault, kind, failure_kind, during_call) in [
        ("closed", Reply::nothing().then_close(), ErrorKind::Transport, Transport, true),
        ("reset", Reply::nothing().then_reset(), ErrorKind::Transport, Transport, true),
        ("garbage", Reply::raw("hello?\r\n\r\n").then_hang(), ErrorKind::Transport, Transport, true),
        ("silent", Reply::nothing().then_hang(), ErrorKind::Timeout, Timeout, true),
        ("truncated", head("content-length: 9").then("x").then_close(), ErrorKind::Body, BadBody, false),
        ("stalled", head("content-length: 9").then("x").then_hang(), ErrorKind::BodyIdle, BodyIdle, false),
    ] {
        let server = Server::start(move |_| fault.clone()).await;
        let error = call(client.post(server.url("/")).body("x")).await.expect_err(name);
        assert_eq!((error.kind(), server.count()), (kind, 1), "{name}: {error:?}");
        let heard = heard.of(&server.url(""));
        assert_eq!(heard.outcomes(), [failure(failure_kind)], "{name}");

        let error = call(client.get(server.url("/"))).await.expect_err(name);
        let attempts = if during_call { 4 } else { 1 };
        assert_eq!((error.kind(), server.count() - 1), (kind, attempts), "{name}: {error:?}");
        assert_eq!(heard.attempts() - 1, attempts, "{name}");
    }
}

#[tokio::test]
async fn a_body_that_fails_inside_the_call_is_fetched_again() {
    let server = Server::start(|request| match request.nth {
        1 => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").then_close(),
        2 => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").then_hang(),
        _ => Reply::answer(200, "the whole"),
    })
    .await;
    let client = builder(TimeoutPolicy::standard().attempt(SHORT), &Heard::new()).build().unwrap();
    assert_eq!(within(SOON, client.get(server.url("/")).fetch_text()).await.unwrap(), "the whole");
    assert_eq!(server.count(), 3);
}

/// How often the server read each order.
fn executed(server: &Server) -> HashMap<Bytes, usize> {
    let mut executed = HashMap::new();
    for request in server.requests().into_iter().filter(|request| request.method == "POST") {
        *executed.entry(request.body).or_default() += 1;
    }
    executed
}

/// A server that closes its keep-alive connections without a word, right after an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_between_requests_costs_no_get_and_doubles_no_post() {
    let server = Server::start(|_| Reply::answer(200, "done").then_close()).await;
    let heard = Heard::new();
    let client = Client::builder().observer(heard.clone()).build().unwrap();
    let mut running = JoinSet::new();
    for n in 0..600 {
        let get = call(client.get(server.url("/users")));
        let post = call(client.post(server.url("/orders")).body(format!("order {n}")));
        // Half of them one by one, half in twenties.
        if n < 300 {
            get.await.unwrap();
            let _ = post.await;
        } else {
            running.spawn(async { get.await.map(drop) });
            running.spawn(async { post.await.map_or(Ok(()), |_| Ok(())) });
            while running.len() >= 20 {
                running.join_next().await.unwrap().unwrap().unwrap();
            }
        }
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap().unwrap();
    }
    let executed = executed(&server);
    assert!(executed.values().all(|times| *times == 1), "{executed:?}");
    assert!(executed.len() >= 300, "most of them did arrive: {}", executed.len());
    // What is written into a closed socket is never read; everything else is there, and nothing
    // hidden.
    assert_eq!(server.seen().read(|seen| seen.answered), heard.ended_as(Outcome::Success));
    assert!(server.count() <= heard.attempts());
}

/// A connection that is found closed before the request on it was written. Over reqwest the pool
/// repeats such a request unseen; here that is an attempt, and repeated because it was never sent.
#[tokio::test]
async fn a_request_that_the_pool_hands_back_unwritten_is_an_attempt_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let ((close, closing), (closed, is_closed)) = (mpsc::channel(), mpsc::channel());
    let server = std::thread::spawn(move || {
        let first = answer_one(&listener);
        closing.recv().unwrap();
        drop(first);
        closed.send(()).unwrap();
        answer_one(&listener)
    });
    let heard = Heard::new();
    let client = client_of(&heard);
    call(client.get(&url)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;

    // This task and the connection's must be woken by the same look at the clock and the sockets:
    // this one runs first, and the other then finds the end of its connection and a request that it
    // hasn't written.
    let mut timer = Box::pin(tokio::time::sleep(Duration::from_millis(1)));
    assert!(poll_fn(|cx| Poll::Ready(timer.as_mut().poll(cx))).await.is_pending());
    close.send(()).unwrap();
    is_closed.recv().unwrap();
    std::thread::sleep(Duration::from_millis(5));
    timer.await;
    let (_, report) = call(client.post(&url)).await.unwrap();
    assert_eq!(outcomes(&report), [failure(FailureKind::Unsent), Outcome::Success]);
    assert_eq!(heard.attempts(), 3, "and two requests were read");
    drop(server.join().unwrap());
}

fn answer_one(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").unwrap();
    stream
}

/// Each try is an attempt, so the counts are exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_swallows_every_second_request_sees_exactly_the_attempts() {
    within(3 * SOON, async {
        let server = Server::start(|request| match request.nth_on_connection {
            1 => Reply::answer(200, "done"),
            _ => Reply::nothing().then_close(),
        })
        .await;
        let heard = Heard::new();
        let retry = RetryPolicy::standard().initial(Duration::from_millis(1)).max_attempts(10);
        let policy = Policy::standard().breaker(None).budget(None).retry(retry);
        let client = Client::builder().policy(policy).observer(heard.clone()).build().unwrap();
        for n in 0..200 {
            for _ in 0..2 {
                call(client.get(server.url("/"))).await.unwrap_or_else(|error| panic!("call {n}: {error:?}"));
            }
            // Nearly always swallowed, and not repeated.
            let _ = call(client.post(server.url("/")).body("x")).await;
        }
        assert_eq!(server.count(), heard.attempts());
        assert_eq!(server.requests().iter().filter(|request| request.method == "POST").count(), 200);
        assert!(heard.attempts() > 700, "some were swallowed");
    })
    .await;
}

/// Over HTTP/1.1 the first timeout takes its connection along, and the next attempt has one of its
/// own, which isn't kept.
#[tokio::test]
async fn an_http1_connection_is_retired_by_its_first_timeout() {
    let server = Server::start(|request| match (request.connection, request.nth_on_connection) {
        (1, 2) => Reply::nothing().then_hang(),
        _ => Reply::answer(200, "done"),
    })
    .await;
    let client = builder(TimeoutPolicy::standard().attempt(SHORT), &Heard::new()).build().unwrap();
    for attempts in [1, 2, 1] {
        let (_, report) = call(client.get(server.url("/"))).await.unwrap();
        assert_eq!(report.attempts().len(), attempts);
    }
    let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 2, 3]);
}
