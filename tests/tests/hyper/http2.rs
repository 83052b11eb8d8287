//! Over HTTP/2: streams that are refused, and connections that are retired or kept.

use super::*;

fn http2(timeout: TimeoutPolicy, heard: &Heard) -> Client {
    builder(timeout, heard).http2_prior_knowledge().build().unwrap()
}

#[tokio::test]
async fn a_stream_that_was_refused_or_left_behind_is_sent_once_more_whatever_the_method() {
    for act in [Act::Reset(REFUSED_STREAM), Act::GoAway { last: 0, code: NO_ERROR }] {
        for method in [Method::GET, Method::POST] {
            let server =
                H2Server::start(move |request| if request.nth == 1 { act } else { Act::Answer("done") })
                    .await;
            let heard = Heard::new();
            let client = http2(TimeoutPolicy::standard(), &heard);
            let (text, report) = call(client.request(method, server.url("/")).body("x")).await.unwrap();
            assert_eq!(text, "done");
            assert_eq!(outcomes(&report), [failure(FailureKind::Refused), Outcome::Success], "{act:?}");
            assert_eq!((server.count(), heard.attempts()), (2, 2));
        }
    }
}

/// A connection that swallows requests. Over HTTP/2 the pool would send everything down it.
#[tokio::test]
async fn an_http2_connection_is_retired_after_two_timeouts() {
    let server = H2Server::start(|request| match request.connection {
        1 => Act::Nothing,
        _ => Act::Answer("done"),
    })
    .await;
    let heard = Heard::new();
    let client = http2(TimeoutPolicy::standard().attempt(SHORT), &heard);
    let (text, report) = call(client.get(server.url("/"))).await.unwrap();
    let timeout = failure(FailureKind::Timeout);
    assert_eq!((text.as_str(), outcomes(&report)), ("done", vec![timeout, timeout, Outcome::Success]));
    assert_eq!(connections(&server), [1, 1, 2]);
    call(client.get(server.url("/"))).await.unwrap();
    assert_eq!(server.seen().read(|seen| seen.connections), 2, "the new one is kept");
}

/// The same where HTTP/2 was chosen by the server.
#[tokio::test]
async fn an_https_server_that_chooses_http2_gets_it_and_its_dead_connection_is_retired() {
    let tls = Tls::new();
    let script = |request: &h2_server::Request| match request.nth {
        2 => Act::Nothing,
        _ => Act::Answer("done"),
    };
    let server = H2Server::start_tls(script, tls.acceptor("h2")).await;
    let timeout = TimeoutPolicy::standard().attempt(SHORT);
    let client = builder(timeout, &Heard::new()).tls_config(tls.trusted()).build().unwrap();
    let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert!(response.remote_addr().is_some());
    assert_eq!(response.text().await.unwrap(), "done");
    let (_, report) = call(client.get(server.url("/"))).await.unwrap();
    assert_eq!(report.attempts().len(), 2, "nothing at all had come since it set out");
    assert_eq!(connections(&server), [1, 1, 2]);
}

#[tokio::test]
async fn an_https_server_that_nobody_trusts_was_never_sent_to() {
    let tls = Tls::new();
    let server = H2Server::start_tls(|_| Act::Answer("done"), tls.acceptor("h2")).await;
    let heard = Heard::new();
    let error = call(client_of(&heard).get(server.url("/"))).await.unwrap_err();
    assert_eq!(failed(&error), [failure(FailureKind::Connect)], "its certificate would be the same again");
    assert_eq!((heard.attempts(), server.count()), (1, 0));
}

fn connections(server: &H2Server) -> Vec<usize> {
    server.seen().read(|seen| seen.requests.iter().map(|request| request.connection).collect())
}

/// The control: one timeout now and then is the request's fault, not the connection's, if others
/// are answered meanwhile.
#[tokio::test]
async fn an_http2_connection_that_answers_others_is_kept() {
    let server = H2Server::start(|request| match &request.body[..] {
        b"hang" => Act::Nothing,
        _ => Act::Answer("done"),
    })
    .await;
    let policy = Policy::standard().timeout(TimeoutPolicy::standard().attempt(SHORT)).retry(None);
    let client = Client::builder().policy(policy).http2_prior_knowledge().build().unwrap();
    let (answered, url) = (client.clone(), server.url("/"));
    let others = tokio::spawn(async move {
        loop {
            call(answered.get(&url)).await.unwrap();
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    for _ in 0..4 {
        let error = call(client.put(server.url("/")).body("hang")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    others.abort();
    assert_eq!(server.seen().read(|seen| seen.connections), 1);
}

/// A call that its caller gives up says nothing about the connection.
#[tokio::test]
async fn an_http2_connection_survives_calls_that_were_dropped() {
    let server =
        H2Server::start(|request| if request.nth <= 3 { Act::Nothing } else { Act::Answer("done") }).await;
    let client = http2(TimeoutPolicy::standard(), &Heard::new());
    for n in 1..=3 {
        let dropped = client.get(server.url("/")).send();
        tokio::select! {
            _ = dropped => panic!("nobody answers"),
            () = within(SOON, server.seen().until(|seen| seen.requests.len() == n)) => {}
        }
    }
    call(client.get(server.url("/"))).await.unwrap();
    assert_eq!(server.seen().read(|seen| seen.connections), 1);
}
