//! Forms of several parts, sent again after a failure.

use resilient_client::multipart::{Form, Part};
use resilient_client::{Body, Client, Decline, hyper};
use resilient_client_tests::{Reply, SOON, Server, within};

/// Fails once, and says then what it was sent.
async fn failing_once() -> Server {
    Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, &request.body)).await
}

macro_rules! sent_twice {
    ($client:expr, $form:expr) => {
        within(SOON, async {
            let server = failing_once().await;
            let request = $client.post(server.url("/")).multipart($form).idempotency_key("7");
            let response = request.send().await.unwrap();
            assert_eq!((response.status().as_u16(), response.report().attempts().len()), (200, 2));
            let seen = server.requests();
            assert_eq!((seen.len(), &seen[0].body), (2, &seen[1].body));
            let kind = seen[1].header("content-type").unwrap();
            let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
            assert!(seen[1].header("content-length").is_some(), "{:?}", seen[1].headers);
            String::from_utf8(seen[1].body.to_vec()).unwrap().replace(boundary, "B")
        })
        .await
    };
}

fn texts() -> Form {
    Form::new().text("title", "Invoice").part("page", Part::bytes(&b"tea"[..]).file_name("a.txt"))
}

const TEXTS: &str = "--B\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nInvoice\r\n\
     --B\r\nContent-Disposition: form-data; name=\"page\"; filename=\"a.txt\"\r\n\r\ntea\r\n--B--\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_of_texts_and_bytes_is_sent_again() {
    assert_eq!(sent_twice!(Client::new(), texts()), TEXTS);
    assert_eq!(sent_twice!(hyper::Client::new(), texts()), TEXTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_with_a_file_opens_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    // More than one read of it, and more than is kept of a stream.
    let long = "<p>tea</p>".repeat(20_000);
    std::fs::write(&path, &long).unwrap();
    let expected = format!(
        "--B\r\nContent-Disposition: form-data; name=\"page\"; filename=\"page.html\"\r\n\
         Content-Type: text/html\r\n\r\n{long}\r\n--B--\r\n"
    );
    let form = async || Form::new().file("page", &path).await.unwrap();
    assert_eq!(sent_twice!(Client::new(), form().await), expected);
    assert_eq!(sent_twice!(hyper::Client::new(), form().await), expected);
    assert!(Form::new().file("page", folder.path().join("none")).await.is_err());
}

/// A generator's way: build, then execute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_of_bytes_is_sent_again_when_it_is_built_before() {
    let server = failing_once().await;
    let client = Client::new();
    let (client, request) = client.put(server.url("/")).multipart(texts()).build_split();
    let response = within(SOON, client.execute(request.unwrap())).await.unwrap();
    assert_eq!((response.status().as_u16(), server.count()), (200, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_with_a_stream_is_sent_once_and_the_report_says_so() {
    macro_rules! once {
        ($client:expr) => {
            within(SOON, async {
                let server = failing_once().await;
                let stream = Part::stream_with_length(Body::from("tea"), 3);
                let form = Form::new().text("title", "Invoice").part("page", stream);
                let request = $client.put(server.url("/")).multipart(form);
                assert!(request.try_clone().is_none());
                let response = request.send().await.unwrap();
                assert_eq!((response.status().as_u16(), server.count()), (503, 1));
                assert_eq!(response.report().declined(), [Decline::BodyIsStream]);
                assert!(server.requests()[0].header("content-length").is_some());
            })
            .await
        };
    }
    once!(Client::new());
    once!(hyper::Client::new());
}

/// Kept as it is sent, it goes out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_with_a_stream_that_is_kept_is_sent_again() {
    macro_rules! kept {
        ($client:expr) => {
            within(SOON, async {
                let server = failing_once().await;
                let form = Form::new().part("page", Part::stream(Body::from("tea")));
                let response =
                    $client.put(server.url("/")).multipart(form).replay_buffer(1024).send().await.unwrap();
                assert_eq!((response.status().as_u16(), server.count()), (200, 2));
            })
            .await
        };
    }
    kept!(Client::new());
    kept!(hyper::Client::new());
}

/// The last body that is set is the one that is sent.
#[tokio::test]
async fn a_body_takes_the_place_of_a_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    std::fs::write(&path, "tea").unwrap();
    let server = Server::start(|_| Reply::answer(200, "")).await;
    let form = Form::new().file("page", &path).await.unwrap();
    within(SOON, Client::new().post(server.url("/")).multipart(form).body("own").send()).await.unwrap();
    assert_eq!(&*server.requests()[0].body, b"own");
}
