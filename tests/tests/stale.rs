//! A server that answers and then doesn't: who asks again gets the last answer, marked, if the
//! server allowed it; and nobody gets another's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use resilient_client::endpoints::{Resolve, Resolving};
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::stale::StaleIfError;
use resilient_client::{Attempt, Client, Endpoints, ErrorKind, Policy, Prepared, Response};
use resilient_client_tests::server::Accept;
use resilient_client_tests::{Reply, SOON, Server, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const WINDOW: (&str, &str) = ("cache-control", "max-age=0, stale-if-error=600");

fn client_with(stale: StaleIfError) -> Client {
    let timeout = TimeoutPolicy::standard().total(Duration::from_secs(5)).attempt(Duration::from_secs(2));
    let policy = Policy::standard().timeout(timeout).retry(None).breaker(None);
    let builder = Client::builder().policy(policy).transport(reqwest::ClientBuilder::no_proxy);
    builder.stale_if_error(stale).build().unwrap()
}

fn client() -> Client {
    client_with(StaleIfError::new())
}

/// Answers with `headers`, and its count of requests as the body.
async fn counting(headers: &'static [(&'static str, &'static str)]) -> Server {
    Server::start(move |request| Reply::answer_with(200, headers, request.nth.to_string())).await
}

fn gone(server: &Server) {
    server.on_accept(Accept::Reset);
    server.now(|_| Reply::nothing().then_reset());
}

fn entries(client: &Client) -> usize {
    client.stale_snapshot().unwrap().entries
}

async fn text(response: Response) -> String {
    within(SOON, response.text()).await.unwrap()
}

#[tokio::test]
async fn the_last_answer_stands_in_for_a_dead_server_and_says_so() {
    let server = Server::start(|request| {
        let tags = [WINDOW, ("x-tag", "a"), ("set-cookie", "sid=1"), ("age", "7")];
        Reply::answer_with(200, &tags, format!("answer {}", request.nth))
    })
    .await;
    let client = client();
    let url = server.url("/users/7");

    for nth in 1..=2 {
        let response = client.get(&url).send().await.unwrap();
        assert!(!response.is_degraded(), "every call goes to the server first");
        assert_eq!(text(response).await, format!("answer {nth}"));
    }
    gone(&server);
    let response = within(SOON, client.get(&url).send()).await.unwrap();
    assert!(response.is_degraded());
    assert_eq!((response.status().as_u16(), response.url().as_str()), (200, url.as_str()));
    assert_eq!(response.headers()["x-tag"], "a");
    assert!(!response.headers().contains_key("set-cookie"));
    let age: u64 = response.headers()["age"].to_str().unwrap().parse().unwrap();
    assert!((7..60).contains(&age), "{age}");
    let degraded = response.degraded().unwrap().clone();
    assert_eq!(degraded.age().as_secs(), age);
    let error = degraded.error().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Transport | ErrorKind::Connect), "{error:?}");
    assert_eq!(response.report().attempts().len(), 1);
    println!("{}", response.report());
    assert!(!response.report().to_string().contains("success"), "the report is the failed call's");
    assert_eq!(text(response).await, "answer 2");

    // It's there as often as it is needed, whole or in pieces, and marked as what it is to whoever
    // wants reqwest's type.
    assert_eq!(within(SOON, client.get(&url).fetch_text()).await.unwrap(), "answer 2");
    let plain = reqwest::Response::from(within(SOON, client.get(&url).send()).await.unwrap());
    assert!(plain.extensions().get::<resilient_client::stale::Degraded>().is_some());
    assert_eq!(plain.text().await.unwrap(), "answer 2");
}

#[tokio::test]
async fn a_final_503_is_replaced_and_named_and_a_404_is_not() {
    let server = counting(&[WINDOW]).await;
    let client = client();
    assert_eq!(client.get(server.url("/")).fetch_text().await.unwrap(), "1");
    for status in [500, 502, 503, 504] {
        server.now(move |_| Reply::answer(status, "down"));
        let response = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(response.degraded().unwrap().status().unwrap().as_u16(), status);
        assert_eq!(response.report().attempts()[0].status().unwrap().as_u16(), status);
        assert_eq!(text(response).await, "1");
    }
    for status in [501, 429, 304] {
        server.now(move |_| Reply::answer_with(status, &[], ""));
        let response = client.get(server.url("/")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.is_degraded()), (status, false));
    }
    assert_eq!(entries(&client), 1, "none of these says anything of what is stored");
    server.now(|_| Reply::answer(404, "gone for good"));
    assert_eq!(client.get(server.url("/")).send().await.unwrap().status(), 404);
    gone(&server);
    within(SOON, client.get(server.url("/")).send()).await.unwrap_err();
}

#[tokio::test]
async fn an_open_breaker_a_timeout_and_a_broken_body_are_failures_too() {
    let server = counting(&[WINDOW]).await;
    let timeout = TimeoutPolicy::standard().total(Duration::from_secs(5)).attempt(Duration::from_millis(200));
    let policy = Policy::standard().timeout(timeout).retry(None);
    let client = Client::builder()
        .policy(policy)
        .transport(reqwest::ClientBuilder::no_proxy)
        .stale_if_error(StaleIfError::new())
        .build()
        .unwrap();
    let url = server.url("/");
    assert_eq!(client.get(&url).fetch_text().await.unwrap(), "1");

    server.now(|_| Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").then_close());
    let cut = client.get(&url).send_buffered().await.unwrap();
    assert_eq!(cut.degraded().unwrap().error().unwrap().kind(), ErrorKind::Body);
    server.now(|_| Reply::nothing().then_hang());
    let slow = client.get(&url).send().await.unwrap();
    assert_eq!(slow.degraded().unwrap().error().unwrap().kind(), ErrorKind::Timeout);
    gone(&server);
    for _ in 0..200 {
        let response = within(SOON, client.get(&url).send()).await.unwrap();
        let degraded = response.degraded().unwrap();
        if degraded.error().unwrap().kind() == ErrorKind::CircuitOpen {
            assert!(response.report().attempts().is_empty());
            assert_eq!(text(response).await, "1");
            return;
        }
    }
    panic!("the breaker never opened");
}

#[tokio::test]
async fn past_its_window_the_error_is_an_error() {
    for control in ["max-age=10, stale-if-error=50", "max-age=10, stale-if-error=20, x"] {
        let server = Server::start(move |request| {
            let age = if request.target == "/old" { "58" } else { "5" };
            Reply::answer_with(200, &[("cache-control", control), ("age", age)], "x")
        })
        .await;
        let client = client();
        assert_eq!(client.get(server.url("/old")).fetch_text().await.unwrap(), "x");
        assert_eq!(client.get(server.url("/new")).fetch_text().await.unwrap(), "x");
        gone(&server);
        assert!(within(SOON, client.get(server.url("/new")).send()).await.unwrap().is_degraded());
        // The one that came at 58 s of its 60 s has two left, the other none.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let error = within(SOON, client.get(server.url("/old")).send()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Transport | ErrorKind::Connect), "{error:?}");
    }
}

#[tokio::test]
async fn what_the_server_forbids_is_never_stored() {
    for control in [
        "no-store, stale-if-error=600",
        "No-Store, stale-if-error=600",
        "no-cache, stale-if-error=600",
        "must-revalidate, stale-if-error=600",
        "max-age=0",
    ] {
        let server =
            Server::start(move |_| Reply::answer_with(200, &[("cache-control", control)], "x")).await;
        let client = client();
        assert_eq!(client.get(server.url("/")).fetch_text().await.unwrap(), "x");
        assert_eq!(entries(&client), 0, "{control}");
        gone(&server);
        within(SOON, client.get(server.url("/")).send()).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_call_can_refuse_and_can_ask() {
    let server = Server::start(|_| Reply::answer(200, "x")).await;
    let client = client();
    let ask = |control: &str| client.get(server.url("/")).header("cache-control", control);
    assert_eq!(ask("stale-if-error=600").fetch_text().await.unwrap(), "x");
    gone(&server);
    assert!(within(SOON, ask("stale-if-error=600").send()).await.unwrap().is_degraded());
    for control in ["no-cache, stale-if-error=600", "no-store, stale-if-error=600", "max-age=600"] {
        within(SOON, ask(control).send()).await.unwrap_err();
    }
}

/// The security point: whatever could say who is asking keeps answers apart.
#[tokio::test]
async fn two_users_never_see_each_others_answers() {
    let server = Server::start(|request| {
        let user = ["authorization", "cookie", "x-user-id"].iter().find_map(|name| request.header(name));
        Reply::answer_with(200, &[WINDOW], format!("secret of {}", user.unwrap_or("nobody")))
    })
    .await;
    let client = client();
    let url = server.url("/me");
    let as_user = |header: &'static str, user: &str| client.get(&url).header(header, user);
    for header in ["authorization", "cookie", "x-user-id"] {
        for user in ["ann", "bob"] {
            as_user(header, user).fetch_text().await.unwrap();
        }
    }
    gone(&server);
    for header in ["authorization", "cookie", "x-user-id"] {
        for user in ["ann", "bob"] {
            let request =
                as_user(header, user).header("x-request-id", "another").header("traceparent", "00-2");
            assert_eq!(within(SOON, request.fetch_text()).await.unwrap(), format!("secret of {user}"));
        }
        within(SOON, as_user(header, "eve").send()).await.unwrap_err();
        within(SOON, as_user(header, "ann").header("x-more", "1").send()).await.unwrap_err();
    }
    within(SOON, client.get(&url).send()).await.unwrap_err();
    within(SOON, client.get(&url).bearer_auth("ann").send()).await.unwrap_err();
    within(SOON, as_user("authorization", "ann").key("tenant").send()).await.unwrap_err();
    within(SOON, as_user("authorization", "ann").body("another question").send()).await.unwrap_err();
    within(SOON, as_user("authorization", "ann").header("range", "bytes=0-1").send()).await.unwrap_err();
}

#[tokio::test]
async fn a_hook_must_be_vouched_for() {
    let hook = |_: &Attempt<'_>| Prepared::now(HeaderMap::new());
    let built = Client::builder().on_attempt(hook).stale_if_error(StaleIfError::new()).build();
    let error = built.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("hook_names_nobody"), "{error}");
    let vouched = StaleIfError::new().hook_names_nobody();
    Client::builder().on_attempt(hook).stale_if_error(vouched).build().unwrap();
}

#[tokio::test]
async fn vary_tells_apart_what_the_key_does_not() {
    let server = Server::start(|request| {
        let agent = request.header("user-agent").unwrap_or_default().to_owned();
        Reply::answer_with(200, &[WINDOW, ("vary", "User-Agent")], agent)
    })
    .await;
    let client = client();
    let ask = |agent: &str| client.get(server.url("/")).header("user-agent", agent);
    assert_eq!(ask("one").fetch_text().await.unwrap(), "one");
    gone(&server);
    assert_eq!(within(SOON, ask("one").fetch_text()).await.unwrap(), "one");
    within(SOON, ask("two").send()).await.unwrap_err();
}

#[tokio::test]
async fn a_change_makes_everybodys_answers_obsolete() {
    let server = counting(&[WINDOW]).await;
    let client = client();
    for user in ["ann", "bob"] {
        for path in ["/a", "/b"] {
            client.get(server.url(path)).bearer_auth(user).fetch_text().await.unwrap();
        }
    }
    assert_eq!(entries(&client), 4);
    server.now(|_| Reply::answer(409, "no"));
    let _ = client.put(server.url("/a")).bearer_auth("ann").send().await.unwrap();
    assert_eq!(entries(&client), 4, "nothing has changed");
    server.now(|_| Reply::answer(204, ""));
    let _ = client.put(server.url("/a")).bearer_auth("ann").send().await.unwrap();
    assert_eq!(entries(&client), 2);
    gone(&server);
    within(SOON, client.get(server.url("/a")).bearer_auth("bob").send()).await.unwrap_err();
    assert!(
        within(SOON, client.get(server.url("/b")).bearer_auth("bob").send()).await.unwrap().is_degraded()
    );
}

#[tokio::test]
async fn only_what_was_read_whole_and_is_small_enough_is_stored() {
    let server = Server::start(|request| match request.target.as_str() {
        "/large" => Reply::answer_with(200, &[WINDOW], vec![b'x'; 5000]),
        "/chunked" => {
            let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000)).repeat(5);
            Reply::raw(
                "HTTP/1.1 200 OK\r\ncache-control: stale-if-error=60\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .then(chunk)
            .then("0\r\n\r\n")
        }
        "/stream" => Reply::answer_with(200, &[WINDOW, ("content-type", "text/event-stream")], "data: 1\n\n"),
        "/empty" => Reply::answer_with(200, &[WINDOW], ""),
        _ => Reply::answer_with(200, &[WINDOW], "small"),
    })
    .await;
    let client = client_with(StaleIfError::new().max_entry_bytes(4096));
    for path in ["/large", "/chunked", "/stream"] {
        let body = client.get(server.url(path)).fetch_bytes().await.unwrap();
        assert!(!body.is_empty());
        assert_eq!(entries(&client), 0, "{path}");
    }
    drop(client.get(server.url("/small")).send().await.unwrap());
    assert_eq!(entries(&client), 0, "nobody has read it");
    let _ = client.get(server.url("/streaming")).streaming().send().await.unwrap().bytes().await.unwrap();
    assert_eq!(entries(&client), 0, "asked for live");
    let mut response = client.get(server.url("/small")).send().await.unwrap();
    while let Some(chunk) = response.chunk().await.unwrap() {
        assert_eq!(chunk, "small");
    }
    assert_eq!(entries(&client), 1);
    client.get(server.url("/empty")).fetch_bytes().await.unwrap();
    assert!(client.head(server.url("/small")).send().await.unwrap().status().is_success());
    assert_eq!(entries(&client), 3, "an empty body has been read, and HEAD is another question than GET");
}

#[tokio::test]
async fn without_it_nothing_is_stored_and_errors_stay_errors() {
    let server = counting(&[WINDOW]).await;
    let client = Client::builder().transport(reqwest::ClientBuilder::no_proxy).build().unwrap();
    client.get(server.url("/")).fetch_text().await.unwrap();
    assert_eq!(client.stale_snapshot(), None);
    gone(&server);
    within(SOON, client.get(server.url("/")).send()).await.unwrap_err();
}

fn resident_kib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// A server that remembers nothing, so that what memory grows by is the client's.
async fn forgetful() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (control, body) = (WINDOW.1, "x".repeat(400));
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncache-control: {control}\r\netag: \"1\"\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let mut end = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer[end..]).await {
                    end += read;
                    if buffer[..end].ends_with(b"\r\n\r\n") {
                        end = 0;
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    (url, serving)
}

/// 20,000 URLs through one client (100,000 were tried: the same bound, 45 s): entries and bytes
/// stay within their limits, and so does memory. In a process of its own, whose memory no other
/// test adds to.
#[test]
fn any_number_of_urls_fits_in_the_bound() {
    const CHILD: &str = "RESILIENT_CLIENT_TEST_ALONE";
    if std::env::var_os(CHILD).is_some() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(many_urls());
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["any_number_of_urls_fits_in_the_bound", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = [String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr)].concat();
    assert!(child.status.success(), "{said}");
    println!("{said}");
}

async fn many_urls() {
    const URLS: usize = 20_000;
    const CALLERS: usize = 16;
    const BYTES: usize = 16 * 1024 * 1024;
    let (base, serving) = forgetful().await;
    let client = client_with(StaleIfError::new().max_entries(URLS).max_bytes(BYTES));
    let most = Arc::new(AtomicUsize::new(0));
    let callers = |urls: usize| {
        (0..CALLERS).map(move |caller| (caller..urls).step_by(CALLERS)).map(|mine| {
            let (client, base, most) = (client.clone(), base.clone(), Arc::clone(&most));
            tokio::spawn(async move {
                for nth in mine {
                    client.get(format!("{base}/users/{nth:06}")).fetch_bytes().await.unwrap();
                    most.fetch_max(client.stale_snapshot().unwrap().bytes, Ordering::Relaxed);
                }
            })
        })
    };
    // Connections and the runtime have their memory first.
    for caller in callers(CALLERS * 10).collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let before = resident_kib();
    for caller in callers(URLS).collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let grown = resident_kib().saturating_sub(before);
    let stored = client.stale_snapshot().unwrap();
    println!("{URLS} URLs: {stored:?}, at most {most:?} bytes; resident memory grew by {grown} KiB");
    assert!(most.load(Ordering::Relaxed) <= BYTES && stored.entries < URLS);
    assert!(stored.bytes > BYTES - 64 * 1024, "the bound is used");
    assert!(grown <= 2 * BYTES / 1024, "grew by {grown} KiB");
    serving.abort();
}

/// The server has taken the POST, whatever comes of where it redirects to.
#[tokio::test]
async fn a_change_whose_answer_leads_to_nobody_makes_the_older_answer_obsolete() {
    let nobody = resilient_client_tests::server::NobodyHome::new();
    let there = nobody.url();
    let server = Server::start(move |request| match &*request.method {
        "POST" => Reply::answer_with(303, &[("location", &there)], "see there"),
        _ => Reply::answer_with(200, &[WINDOW], "an answer"),
    })
    .await;
    let timeout = TimeoutPolicy::standard().total(Duration::from_secs(5)).attempt(Duration::from_secs(2));
    let policy = Policy::standard().timeout(timeout).retry(None).breaker(None);
    let builder = Client::builder().policy(policy).transport(reqwest::ClientBuilder::no_proxy);
    let builder = builder.redirects(resilient_client::Redirects::any()).stale_if_error(StaleIfError::new());
    let (client, url) = (builder.build().unwrap(), server.url("/users/7"));
    text(client.get(&url).send().await.unwrap()).await;
    assert_eq!(entries(&client), 1);
    client.post(&url).body("new").send().await.unwrap_err();
    assert_eq!(entries(&client), 0);
}

/// Its answers were nobody's: they bear the name, and came from an address.
#[tokio::test]
async fn the_answers_of_a_name_that_is_resolved_stand_in_too() {
    struct At(std::net::SocketAddr);
    impl Resolve for At {
        fn resolve(&self, _host: &str, _port: u16) -> Resolving {
            let address = self.0;
            Box::pin(async move { Ok(vec![address]) })
        }
    }
    let server = counting(&[WINDOW]).await;
    let name = "http://users.internal:3000";
    let dns = Endpoints::dns(name).resolver(At(server.address()));
    let builder = Client::builder().endpoints(name, dns).transport(reqwest::ClientBuilder::no_proxy);
    let client = builder.stale_if_error(StaleIfError::new()).build().unwrap();
    let url = format!("{name}/users/7");
    assert_eq!(text(client.get(&url).send().await.unwrap()).await, "1");
    assert_eq!(entries(&client), 1);
    gone(&server);
    let response = within(SOON, client.get(&url).send()).await.unwrap();
    assert!(response.is_degraded());
    assert_eq!(text(response).await, "1");
}
