//! What is sent as it was written, where it goes, and what is repeated.

use super::*;

#[tokio::test]
async fn every_verb_arrives_as_it_was_written() {
    let server = Server::start(echo).await;
    let client = Client::builder().deadline_header(None).build().unwrap();
    let url = server.url("/a%20b?x=1");
    for (request, expected) in [
        (client.get(&url), "GET /a%20b?x=1  "),
        (client.post(url.clone()).body("hello"), "POST /a%20b?x=1  hello"),
        (client.put(url.parse::<http::Uri>().unwrap()).body(vec![104, 105]), "PUT /a%20b?x=1  hi"),
        (client.patch(&url).header("x-a", "1").header("x-a", "2"), "PATCH /a%20b?x=1 x-a=1,x-a=2 "),
        (client.delete(&url).query(&[("y", "a b")]), "DELETE /a%20b?x=1&y=a+b  "),
        (client.get(server.url("")).query(&[("y", "1")]), "GET /?y=1  "),
        (client.request(Method::OPTIONS, server.url("/")), "OPTIONS /  "),
        (client.post(&url).json(&[1, 2]), "POST /a%20b?x=1 content-type=application/json [1,2]"),
        (
            client.post(&url).form(&[("a", "b c")]),
            "POST /a%20b?x=1 content-type=application/x-www-form-urlencoded a=b+c",
        ),
        (
            client
                .get(&url)
                .header("x-a", "1")
                .headers(HeaderMap::from_iter([("x-a".parse().unwrap(), HeaderValue::from_static("3"))])),
            "GET /a%20b?x=1 x-a=3 ",
        ),
    ] {
        assert_eq!(call(request).await.unwrap().0, expected);
    }
    let authorised =
        [client.get(&url).basic_auth("alice", Some("pass")), client.get(&url).bearer_auth("abc")];
    for (request, expected) in authorised.into_iter().zip(["Basic YWxpY2U6cGFzcw==", "Bearer abc"]) {
        call(request).await.unwrap();
        assert_eq!(server.requests().last().unwrap().header("authorization"), Some(expected));
    }
    let head = within(SOON, client.head(&url).send()).await;
    // The server writes a body whatever the method, which spoils the connection and not the answer.
    assert_eq!(head.unwrap().status(), 200);
}

#[tokio::test]
async fn a_response_has_all_that_reqwests_has() {
    let server = Server::start(|_| Reply::answer_with(404, &[("x-a", "1")], r#"{"a":[1,2]}"#)).await;
    let client = Client::builder().build().unwrap();
    let url = server.url("/users/7?token=s3cret");
    let mut response = within(SOON, client.get(&url).send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (404, http::Version::HTTP_11));
    assert_eq!((response.headers()["x-a"].as_bytes(), response.content_length()), (&b"1"[..], Some(11)));
    assert_eq!(response.uri(), url.as_str());
    assert_eq!(response.remote_addr(), Some(server.address()));
    assert_eq!(response.report().attempts().len(), 1);
    let error = response.error_for_status_ref().unwrap_err();
    assert_eq!((error.kind(), error.status().unwrap().as_u16()), (ErrorKind::Status, 404));
    let said = format!("{}{response:?}", everything_it_says(&error));
    assert!(said.contains("/users/7?token") && !said.contains("s3cret"), "{said}");
    assert_eq!(response.chunk().await.unwrap().unwrap(), r#"{"a":[1,2]}"#);
    assert_eq!(response.chunk().await.unwrap(), None);

    let json: HashMap<String, Vec<u8>> = client.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(json["a"], [1, 2]);
    assert_eq!(client.get(&url).fetch_bytes().await.unwrap_err().kind(), ErrorKind::Status);
    let small = Client::builder().max_body(5).build().unwrap();
    let error = small.get(&url).send().await.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BodyTooLarge);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_anything_is_sent() {
    let heard = Heard::new();
    let client = client_of(&heard);
    for url in
        ["/users", "users", "ftp://users/", "http://alice:hunter2@users/", "http://a b/", "", "http:///x"]
    {
        let error = call(client.get(url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{url}");
        assert!(!everything_it_says(&error).contains("hunter2"));
    }
    let bad = client.get("http://users/").header("bad name", "x").header("fine", "x");
    assert_eq!(call(bad).await.unwrap_err().kind(), ErrorKind::Request);
    let bad = client.get("http://users/").bearer_auth("s3cret\n");
    let error = call(bad).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Request && !everything_it_says(&error).contains("s3cret"));
    assert_eq!(heard.attempts(), 0);
}

#[tokio::test]
async fn a_503_is_tried_again_and_a_post_is_not() {
    let server =
        Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, "done")).await;
    let heard = Heard::new();
    let client = client_of(&heard);
    let (text, report) = call(client.get(server.url("/"))).await.unwrap();
    assert_eq!(
        (text.as_str(), outcomes(&report)),
        ("done", vec![failure(FailureKind::Status), Outcome::Success])
    );
    assert_eq!(server.requests()[1].header("x-envoy-attempt-count"), Some("2"));
    assert!(server.requests()[0].header("x-envoy-expected-rq-timeout-ms").is_some());

    server.now(|_| Reply::answer(503, "no"));
    let before = server.count();
    let (text, report) = call(client.post(server.url("/")).body("an order")).await.unwrap();
    assert_eq!((text.as_str(), outcomes(&report)), ("no", vec![failure(FailureKind::Status)]));
    assert_eq!((server.count() - before, report.declined()), (1, &[Decline::NotSafe][..]));
    // The last real answer, whole, once there is no other attempt left.
    let (text, report) =
        call(client.post(server.url("/")).body("x").generate_idempotency_key()).await.unwrap();
    assert_eq!((text.as_str(), report.attempts().len()), ("no", 4));
    let keys: Vec<_> = server.requests()[before + 1..]
        .iter()
        .map(|r| r.header("idempotency-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys, vec![keys[0].clone(); 4]);
    assert_eq!(server.count(), heard.attempts());
}

#[tokio::test]
async fn a_stream_is_sent_once_and_with_a_replay_buffer_again() {
    let server =
        Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, "done")).await;
    let client = Client::builder().build().unwrap();
    let body = || {
        let pieces = ["hel", "lo"].map(|piece| Ok::<_, std::io::Error>(Frame::data(piece.into())));
        Body::wrap(StreamBody::new(stream::iter(pieces)))
    };
    let kept = client.put(server.url("/")).body(body()).replay_buffer(1024);
    let (_, report) = call(kept).await.unwrap();
    assert_eq!(report.attempts().len(), 2);
    assert_eq!(server.requests().iter().map(|r| r.body.clone()).collect::<Vec<_>>(), ["hello", "hello"]);

    server.now(|_| Reply::answer(503, "no"));
    let (_, report) = call(client.put(server.url("/")).body(body())).await.unwrap();
    assert_eq!((report.attempts().len(), report.declined()), (1, &[Decline::BodyIsStream][..]));
}

#[tokio::test]
async fn a_hook_sees_each_attempt_with_its_body_and_signs_it() {
    let server =
        Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, "done")).await;
    let client = Client::builder()
        .on_attempt(|attempt: &Attempt<'_>| {
            let signature = format!("{}-{}", attempt.number(), attempt.body().unwrap_or_default().len());
            assert!(attempt.url().ends_with("/orders?x=1"));
            let value = HeaderValue::try_from(signature).unwrap();
            Prepared::now(HeaderMap::from_iter([("x-signature".parse().unwrap(), value)]))
        })
        .build()
        .unwrap();
    call(client.put(server.url("/orders?x=1")).body("an order")).await.unwrap();
    let signed: Vec<_> =
        server.requests().iter().map(|r| r.header("x-signature").unwrap().to_owned()).collect();
    assert_eq!(signed, ["1-8", "2-8"]);
}

#[tokio::test]
async fn every_request_says_whom_it_is_for_and_what_its_author_says_instead() {
    let server = Server::start(|_| Reply::answer(200, "hello")).await;
    let client = Client::builder().build().unwrap();
    let get = || client.get(server.url("/"));
    for request in [get(), get(), get().header("host", "users.internal"), get().header("x-own", "1"), get()] {
        call(request).await.unwrap();
    }
    let address = server.address().to_string();
    let hosts: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.header("host").unwrap_or_default().to_owned())
        .collect();
    assert_eq!(hosts, [&*address, &*address, "users.internal", &*address, &*address]);
}

/// One name, two servers, and a `Host` that says which of them was meant.
#[tokio::test]
async fn attempts_go_to_the_endpoints_of_a_name() {
    let (failing, working) = (
        Server::start(|_| Reply::answer(503, "no")).await,
        Server::start(|_| Reply::answer(200, "yes")).await,
    );
    let endpoints = resilient_client::Endpoints::fixed([failing.url(""), working.url("")]);
    let policy = Policy::standard().breaker(None);
    let client = Client::builder().policy(policy).endpoints("http://users", endpoints).build().unwrap();
    for _ in 0..20 {
        let (text, report) = call(client.get("http://users/a?x=1")).await.unwrap();
        assert_eq!((text.as_str(), report.upstream()), ("yes", "http://users"));
    }
    for server in [&failing, &working] {
        let address = server.address().to_string();
        let named =
            |request: &Request| request.header("host") == Some(&address) && request.target == "/a?x=1";
        assert!(server.count() > 0 && server.requests().iter().all(named), "{:?}", server.requests());
    }
    assert_eq!(working.count(), 20);
}

#[tokio::test]
async fn a_url_is_given_as_text_or_as_what_has_been_read_from_it() {
    let server = Server::start(|request| Reply::answer(200, request.target.clone())).await;
    let client = Client::builder().base_url(server.url("/v1")).build().unwrap();
    let text = server.url("/a");
    let (uri, url): (http::Uri, resilient_client::Url) = (text.parse().unwrap(), text.parse().unwrap());
    let read = [
        client.get(&*text),
        client.get(&text),
        client.get(text.clone()),
        client.get(&uri),
        client.get(uri.clone()),
        client.get(&url),
        client.get(url),
    ];
    for request in read {
        assert_eq!(request.send().await.unwrap().text().await.unwrap(), "/a");
    }
    // A path that has been read goes below the base; a host without a scheme is neither.
    assert_eq!(client.get(http::Uri::from_static("/a")).fetch_text().await.unwrap(), "/v1/a");
    assert_eq!(client.get(http::Uri::from_static("a")).send().await.unwrap_err().kind(), ErrorKind::Request);
}
