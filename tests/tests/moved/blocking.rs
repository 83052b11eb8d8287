//! The client for code that isn't async.

use std::io::Read as _;
use std::thread;
use std::time::Duration;

use resilient_client::multipart::Form;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{ErrorKind, Policy, blocking};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Gate, Reply, Server, clock};
use tokio::runtime::Runtime;

/// Where servers live, apart from the threads that wait.
fn elsewhere() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn server(
    runtime: &Runtime,
    script: impl Fn(&resilient_client_tests::server::Request) -> Reply + Send + Sync + 'static,
) -> Server {
    runtime.block_on(Server::start(script))
}

#[test]
fn a_call_is_retried_and_tells_how_it_went() {
    let runtime = elsewhere();
    let failing_once = |nth| if nth == 1 { 503 } else { 200 };
    let server = server(&runtime, move |it| Reply::answer(failing_once(it.nth), r#"{"id": 7}"#));
    let client = blocking::Client::new();
    let response = client.get(server.url("/users/7")).send().unwrap();
    assert_eq!((response.status().as_u16(), response.report().attempts().len()), (200, 2));
    assert_eq!(response.url().path(), "/users/7");
    assert_eq!(response.json::<serde_json::Value>().unwrap()["id"], 7);
    assert_eq!(client.get(server.url("/")).fetch_text().unwrap(), r#"{"id": 7}"#);
    assert_eq!(client.snapshot().len(), 1);
}

#[test]
fn the_builders_settings_and_a_forms_parts_are_the_async_ones() {
    let runtime = elsewhere();
    let failing_once = |nth| if nth == 1 { 503 } else { 200 };
    let server = server(&runtime, move |it| Reply::answer(failing_once(it.nth), &it.body));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    std::fs::write(&path, "<p>tea</p>").unwrap();
    let client =
        blocking::Client::builder().base_url(server.url("/v1")).user_agent("orders/1.0").build().unwrap();
    let form = Form::new().blocking_file("page", &path).unwrap();
    let response = client.post("/pages").multipart(form).generate_idempotency_key().send().unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert!(response.text().unwrap().contains("<p>tea</p>"));
    let seen = server.requests();
    assert_eq!(
        (seen.len(), &*seen[1].target, seen[1].header("user-agent")),
        (2, "/v1/pages", Some("orders/1.0"))
    );
    let refused = blocking::Client::builder().base_url("users").build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
}

#[test]
fn errors_are_the_async_ones() {
    let client = blocking::Client::new();
    let refused = client.get(NobodyHome::new().url()).send().unwrap_err();
    assert!(refused.is_connect() && refused.report().is_some(), "{refused:?}");
    assert_eq!(client.get("no url").send().unwrap_err().kind(), ErrorKind::Request);
    let (client, request) = client.post("http://users/").body("tea").build_split();
    assert_eq!(request.unwrap().body().unwrap().as_bytes(), Some(&b"tea"[..]));
    client.breaker("http://users").unwrap().force_open().unwrap();
    assert_eq!(client.get("http://users/").send().unwrap_err().kind(), ErrorKind::CircuitOpen);
}

#[test]
fn a_server_that_hangs_is_waited_for_as_long_as_the_call_may_take() {
    let runtime = elsewhere();
    let server = server(&runtime, |_| Reply::nothing().then_hang());
    let client = blocking::Client::new();
    let began = clock::now();
    let error = client.get(server.url("/")).timeout(Duration::from_millis(200)).send().unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let policy = Policy::standard().timeout(TimeoutPolicy::standard().total(Duration::from_millis(100)));
    client.reload(policy).unwrap();
    assert!(client.get(server.url("/")).send().unwrap_err().is_timeout());
}

#[test]
fn a_body_is_read_piece_by_piece_and_outlives_its_client() {
    let runtime = elsewhere();
    let long = "tea ".repeat(50_000);
    let expected = long.clone();
    let server = server(&runtime, move |_| Reply::answer(200, &long));
    let client = blocking::Client::builder().max_body(1000).build().unwrap();
    let get = || client.get(server.url("/")).send().unwrap();
    assert_eq!(get().bytes().unwrap_err().kind(), ErrorKind::BodyTooLarge);
    let (mut read, mut copied) = (String::new(), Vec::new());
    let (mut first, mut second, mut third) = (get(), get(), get());
    drop(client);
    let mut begin = [0; 3];
    first.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"tea");
    first.read_to_string(&mut read).unwrap();
    assert_eq!(read, expected[3..]);
    assert_eq!(second.copy_to(&mut copied).unwrap(), expected.len() as u64);
    assert_eq!(copied, expected.as_bytes());
    assert!(third.chunk().unwrap().is_some());
}

#[test]
fn what_read_has_left_is_in_the_rest() {
    let runtime = elsewhere();
    let server = server(&runtime, |_| Reply::answer(200, "[1, 2, 3]"));
    let client = blocking::Client::new();
    let begun = |read: usize| {
        let mut response = client.get(server.url("/")).send().unwrap();
        response.read_exact(&mut vec![0; read]).unwrap();
        response
    };
    assert_eq!(begun(3).text().unwrap(), " 2, 3]");
    assert_eq!(&*begun(3).bytes().unwrap(), b" 2, 3]");
    assert_eq!(begun(9).text().unwrap(), "");
    assert_eq!(begun(3).json::<u8>().unwrap_err().kind(), ErrorKind::Decode);
}

#[test]
fn a_response_that_is_dropped_gives_its_place_back_and_ends_its_exchange() {
    let runtime = elsewhere();
    let never = Gate::default();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\ntea";
    let server = server(&runtime, move |_| Reply::raw(head).then_wait(&never).then_hang());
    let client = blocking::Client::new();
    let mut response = client.get(server.url("/")).send().unwrap();
    assert_eq!(&*response.chunk().unwrap().unwrap(), b"tea");
    assert_eq!(client.snapshot()[0].in_flight, 1);
    drop(response);
    assert_eq!(client.snapshot()[0].in_flight, 0);
    assert_eq!(client.drain(Duration::from_secs(1)).unwrap(), 0);
    assert_eq!(client.get(server.url("/")).send().unwrap_err().kind(), ErrorKind::Draining);
}

#[test]
fn a_thread_that_panics_while_it_holds_a_response_gives_its_place_back() {
    let runtime = elsewhere();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\ntea";
    let server = server(&runtime, move |_| Reply::raw(head).then_hang());
    let client = blocking::Client::new();
    let (other, url) = (client.clone(), server.url("/"));
    let panics = thread::spawn(move || {
        let _response = other.get(url).send().unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panics.join().is_err());
    assert_eq!(client.snapshot()[0].in_flight, 0);
}

#[test]
fn threads_share_a_client() {
    let runtime = elsewhere();
    let server = server(&runtime, |it| Reply::answer(200, &it.target));
    let client = blocking::Client::new();
    thread::scope(|scope| {
        for n in 0..8 {
            let (client, url) = (client.clone(), server.url(&format!("/{n}")));
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(client.get(&url).fetch_text().unwrap(), format!("/{n}"));
                }
            });
        }
    });
    assert_eq!((server.count(), client.upstreams()), (160, 1));
}

/// In a task, whatever the runtime: refused, with nothing sent, and nothing panics when it is
/// dropped there.
async fn is_refused(url: String) {
    let client = blocking::Client::new();
    let error = client.get(&url).send().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.is_unsent() && error.to_string().contains("spawn_blocking"), "{error}");
    assert_eq!(client.drain(Duration::ZERO).unwrap_err().kind(), ErrorKind::WouldBlock);
    // Where a thread may wait, the same client serves.
    let (other, there) = (client.clone(), url.clone());
    let text = tokio::task::spawn_blocking(move || other.get(there).fetch_text());
    assert_eq!(text.await.unwrap().unwrap(), "tea");
    let (other, there) = (client.clone(), url.clone());
    let response = tokio::task::spawn_blocking(move || other.get(there).send()).await.unwrap().unwrap();
    drop((client.get(url), response));
    drop(client);
}

#[tokio::test]
async fn in_a_task_of_one_thread_it_is_refused() {
    let server = Server::start(|_| Reply::answer(200, "tea")).await;
    is_refused(server.url("/")).await;
    assert_eq!(server.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_task_of_many_threads_it_is_refused_unless_the_task_says_that_it_blocks() {
    let server = Server::start(|_| Reply::answer(200, "tea")).await;
    let url = server.url("/");
    tokio::spawn(is_refused(url.clone())).await.unwrap();
    let blocks = async move {
        let client = blocking::Client::new();
        let text = tokio::task::block_in_place(|| client.get(&url).fetch_text());
        assert_eq!(text.unwrap(), "tea");
        let mut held = tokio::task::block_in_place(|| client.get(&url).send()).unwrap();
        assert_eq!(held.chunk().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(&*tokio::task::block_in_place(|| held.chunk()).unwrap().unwrap(), b"tea");
    };
    tokio::spawn(blocks).await.unwrap();
}

/// A program with both has one breaker.
#[test]
fn a_client_over_an_async_one_shares_its_state() {
    let runtime = elsewhere();
    let server = server(&runtime, |_| Reply::answer(200, "tea"));
    let client = resilient_client::Client::new();
    let blocking = blocking::Client::over(client.clone()).unwrap();
    let asked = runtime.block_on(client.get(server.url("/")).fetch_text());
    assert_eq!(
        (asked.unwrap(), blocking.get(server.url("/")).fetch_text().unwrap()),
        ("tea".into(), "tea".into())
    );
    client.breaker(&server.url("")).unwrap().force_open().unwrap();
    assert_eq!(blocking.get(server.url("/")).send().unwrap_err().kind(), ErrorKind::CircuitOpen);
    assert_eq!(blocking.as_async().upstreams(), 1);
}
