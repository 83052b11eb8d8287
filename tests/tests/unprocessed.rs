//! "Never processed" is said on proof only: whatever a client says so of wasn't taken by the
//! server, and nothing that must not be repeated is taken twice. The servers count.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Decline, Policy, ResilienceLayer};
use resilient_client_tests::crowd::{Any, Tally, Work};
use resilient_client_tests::h2_peer::{H2Peer, Manners};
use resilient_client_tests::h2_server::{Act, H2Server, INTERNAL_ERROR};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Heard, SOON, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::{Layer as _, ServiceExt as _};

/// A server that leaves each connection after a few streams, thousands of requests, several
/// threads.
async fn nothing_is_taken_twice(client: Any, body: &'static str) -> Tally {
    let server = H2Peer::start(Manners { leaves_after: Some(5), ..Manners::default() }).await;
    let work = Work::of(Method::POST, 16, 150).body(body);
    let tally = work.over(&client, &server.url("/")).await;
    let twice = server.taken_twice();
    let taken = server.seen().read(|seen| seen.taken.len());
    println!("{} {body:?}: {taken} taken, {} twice; {}", client.name(), twice.len(), tally.said());
    assert!(client.is_bare() || twice.is_empty(), "{}: {twice:?}", client.name());
    let lied = server
        .seen()
        .read(|seen| tally.unsent.iter().filter(|id| seen.taken.contains_key(&id.to_string())).count());
    assert_eq!(lied, 0, "{}: said to be unsent, and taken", client.name());
    tally
}

fn without_breaker() -> Policy {
    Policy::standard().breaker(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_bodyless_post_is_taken_twice_through_goaways_over_hyper_and_none_is_lost_but_those_in_doubt() {
    let tally = nothing_is_taken_twice(Any::hyper(true, &without_breaker()), "").await;
    assert!(tally.served >= 2_300, "{}", tally.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_bodyless_post_is_taken_twice_through_goaways_over_reqwest_and_none_is_lost_but_those_in_doubt() {
    let tally = nothing_is_taken_twice(Any::reqwest(true, &without_breaker()), "").await;
    assert!(tally.served >= 2_300, "{}", tally.said());
}

/// The standard policy as it is. GOAWAYs are housekeeping: no breaker hears of them, and no fewer
/// are served than bare reqwest serves, but those in doubt. (Bare repeats what its pool hands back,
/// and may report as lost what was taken.)
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn goaways_every_few_streams_open_no_breaker_and_cost_no_more_than_what_is_in_doubt() {
    for body in ["", "an order"] {
        let mut bare = 0;
        // Bare may wait for ever: a request given to a connection that is going away is now and
        // then neither sent nor refused.
        let patient =
            reqwest::Client::builder().no_proxy().http2_prior_knowledge().timeout(Duration::from_secs(3));
        let [_, reqwest, hyper] = Any::all(true, &Policy::standard());
        for client in [Any::Bare(patient.build().unwrap()), reqwest, hyper] {
            let tally = nothing_is_taken_twice(client.clone(), body).await;
            let in_doubt = tally.failed.len() - tally.unsent.len();
            if client.is_bare() {
                bare = tally.served;
                continue;
            }
            assert!(tally.served + in_doubt >= bare, "{}: {}, bare {bare}", client.name(), tally.said());
            assert_eq!(client.transitions(), 0, "{}: {}", client.name(), tally.said());
            assert!(in_doubt <= 100, "{}: {}", client.name(), tally.said());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_post_with_a_body_is_taken_twice_through_goaways_or_lost() {
    for client in [Any::hyper(true, &without_breaker()), Any::reqwest(true, &without_breaker())] {
        let tally = nothing_is_taken_twice(client, "an order").await;
        assert!(tally.served >= 2_300, "{}", tally.said());
    }
}

/// The same by frames: a server that reads nothing above the last stream its GOAWAY named.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_by_frames_takes_as_many_requests_as_there_are_calls() {
    for client in [Any::hyper(true, &without_breaker()), Any::reqwest(true, &without_breaker())] {
        let server = H2Server::start(|request| match request.stream {
            ..9 => Act::Answer("done"),
            _ => Act::AnswerLast("done"),
        })
        .await;
        let work = Work::of(Method::POST, 16, 100);
        let tally = work.over(&client, &server.url("/")).await;
        let (taken, excluded) = server.seen().read(|seen| (seen.requests.len(), seen.excluded));
        println!("{}: {taken} taken, {excluded} excluded; {}", client.name(), tally.said());
        let in_doubt = tally.failed.len() - tally.unsent.len();
        assert!(taken >= tally.served && taken <= tally.served + in_doubt, "{}", tally.said());
        assert!(tally.served >= 1_400, "{}: {}", client.name(), tally.said());
    }
}

/// RFC 9113, section 6.8: what a GOAWAY excludes was not processed, whatever its code.
#[tokio::test]
async fn a_post_excluded_by_a_goaway_with_an_error_is_sent_once_more() {
    for client in [Any::hyper(true, &without_breaker()), Any::reqwest(true, &without_breaker())] {
        let server = H2Server::start(|request| match request.nth {
            1 => Act::GoAway { last: 0, code: INTERNAL_ERROR },
            _ => Act::Answer("done"),
        })
        .await;
        client.call(Method::POST, &server.url("/"), 0, "an order").await.unwrap();
        assert_eq!(server.count(), 2, "{}", client.name());
    }
}

/// Answers each POST with a redirect to where nobody is.
async fn redirecting() -> (String, NobodyHome, Arc<AtomicUsize>) {
    let (nobody, executed) = (NobodyHome::new(), Arc::new(AtomicUsize::new(0)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pay", listener.local_addr().unwrap());
    let (to, count) = (nobody.url(), Arc::clone(&executed));
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = connection.read(&mut request).await.unwrap_or(0);
            if request[..read].starts_with(b"POST") {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let head = format!(
                "HTTP/1.1 303 See Other\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let _ = connection.write_all(head.as_bytes()).await;
        }
    });
    (url, nobody, executed)
}

#[tokio::test]
async fn a_given_client_that_follows_redirects_proves_nothing_by_a_failed_connect() {
    let theirs = || reqwest::Client::builder().no_proxy().build().unwrap();
    let replaced = Client::builder()
        .transport(|transport| transport.no_proxy().redirect(reqwest::redirect::Policy::limited(3)))
        .build()
        .unwrap();
    for client in [Client::from(theirs()), Client::builder().build_over(theirs()).unwrap(), replaced] {
        let (url, _nobody, executed) = redirecting().await;
        let error = within(SOON, client.post(url).body("7 euros").send()).await.unwrap_err();
        assert_eq!(executed.load(Ordering::SeqCst), 1);
        assert!(!error.is_unsent(), "{error:?}");
        assert_eq!(error.report().unwrap().declined(), [Decline::NotSafe]);
    }
}

#[tokio::test]
async fn a_client_that_follows_no_redirects_proves_by_a_failed_connect_that_nothing_was_sent() {
    let none = reqwest::redirect::Policy::none;
    let theirs = reqwest::Client::builder().no_proxy().redirect(none()).build().unwrap();
    let given = Client::builder().follows_no_redirects().build_over(theirs).unwrap();
    let own = Client::builder().follows_no_redirects().build().unwrap();
    for client in [given, own, Client::builder().build().unwrap()] {
        let nobody = NobodyHome::new();
        let error = within(SOON, client.post(nobody.url()).body("7 euros").send()).await.unwrap_err();
        assert_eq!(error.report().unwrap().attempts().len(), 4, "{error:?}");
        assert!(error.is_connect() && error.is_unsent(), "{error:?}");
    }
}

type Client11 = hyper_util::client::legacy::Client<
    hyper_util::client::legacy::connect::HttpConnector,
    http_body_util::Full<bytes::Bytes>,
>;

fn post(url: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    http::Request::post(url).body("7 euros".into()).unwrap()
}

/// A tower service that follows redirects, as some do.
#[tokio::test]
async fn a_tower_service_that_follows_redirects_proves_nothing_by_a_failed_connect() {
    let client: Client11 =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let following = tower::service_fn(move |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
        let client = client.clone();
        async move {
            let answer = client.request(request).await?;
            let Some(to) = answer.headers().get("location") else { return Ok(answer) };
            let hop = http::Request::get(to.to_str().unwrap()).body(http_body_util::Full::default()).unwrap();
            client.request(hop).await
        }
    });
    let (url, _nobody, executed) = redirecting().await;
    let service = ResilienceLayer::new(Policy::standard()).unwrap().layer(following.clone());
    let error = within(SOON, service.oneshot(post(&url))).await.unwrap_err();
    assert_eq!(executed.load(Ordering::SeqCst), 1);
    assert!(error.is_connect() && !error.is_unsent(), "{error:?}");
    assert_eq!(error.report().unwrap().declined(), [Decline::NotSafe]);

    let nobody = NobodyHome::new();
    let direct = ResilienceLayer::builder().follows_no_redirects().build().unwrap();
    let error = within(SOON, direct.layer(following).oneshot(post(&nobody.url()))).await.unwrap_err();
    assert!(error.is_unsent() && error.report().unwrap().attempts().len() == 4, "{error:?}");
}

/// tower's load-shed inside a layer of ours turns requests away on this side.
#[tokio::test]
async fn a_load_shed_inside_the_layer_says_nothing_about_the_server() {
    let nothing = tower::service_fn(|_: http::Request<http_body_util::Full<bytes::Bytes>>| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok::<_, Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    });
    let limited = tower::ServiceBuilder::new().load_shed().concurrency_limit(1).service(nothing);
    let heard = Heard::new();
    let layer = ResilienceLayer::builder().observer(heard.clone()).build().unwrap();
    let service = layer.layer(limited);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..40 {
        calls.spawn(service.clone().oneshot(post("http://users:3000/")));
    }
    let mut served = 0;
    while let Some(call) = within(SOON, calls.join_next()).await {
        served += usize::from(call.unwrap().is_ok());
    }
    assert!(served >= 1);
    let snapshot = layer.snapshot();
    let open = snapshot[0].breaker.state != resilient_client::policy::breaker::State::Closed;
    assert!(!open && snapshot[0].breaker.failures == 0, "{:?}", snapshot[0].breaker);
    assert_eq!(heard.ended_as(Outcome::Failure(FailureKind::Transport)), 40 - served);
    assert_eq!(heard.attempts(), 40, "and isn't tried again");
}

/// A runtime that ends takes its connections along, whoever uses them.
#[test]
fn a_call_whose_connection_ran_on_a_runtime_that_ended_goes_over_another() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (servers, second) = (runtime(), runtime());
    let server = servers.block_on(H2Server::start(|request| match request.body.as_ref() {
        b"hang" if request.connection % 2 == 1 => Act::Nothing,
        _ => Act::Answer("done"),
    }));
    let url = server.url("/");
    for client in [Any::hyper(true, &Policy::standard()), Any::reqwest(true, &Policy::standard())] {
        let first = runtime();
        first.block_on(client.call(Method::GET, &url, 0, "")).unwrap();
        let begun = server.count();
        // One is in flight when the runtime ends, others come after.
        let (hung, its) = (client.clone(), url.clone());
        let hung = second.spawn(async move { hung.call(Method::PUT, &its, 1, "hang").await });
        second.block_on(within(SOON, server.seen().until(|seen| seen.begun > begun)));
        first.shutdown_background();
        second.block_on(async {
            within(SOON, hung).await.unwrap().unwrap();
            for _ in 0..5 {
                within(SOON, client.call(Method::POST, &url, 2, "an order")).await.unwrap();
            }
        });
        assert_eq!(client.transitions(), 0, "{}", client.name());
    }
}

/// Of this machine's own descriptors there are too few. In a process of its own, because all of a
/// process shares them.
#[test]
fn a_want_of_descriptors_of_our_own_is_not_the_servers_failure() {
    const URL: &str = "RESILIENT_CLIENT_TEST_URL";
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(url) = std::env::var(URL) {
        return runtime.block_on(short_of_descriptors(&url));
    }
    let server = runtime.block_on(resilient_client_tests::Server::start(|_| {
        resilient_client_tests::Reply::answer(200, "ok").delayed(Duration::from_millis(50))
    }));
    let name = "a_want_of_descriptors_of_our_own_is_not_the_servers_failure";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(URL, server.url("/"))
        .output()
        .unwrap();
    let said = [String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr)].concat();
    assert!(child.status.success(), "{said}");
    println!("{said}");
}

async fn short_of_descriptors(url: &str) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(48), maximum }).unwrap();
    let timeout = TimeoutPolicy::standard().total(Duration::from_secs(1)).attempt(Duration::from_secs(1));
    let policy = Policy::standard().timeout(timeout);
    for client in Any::all(false, &policy) {
        let tally = Work::of(Method::GET, 200, 1).over(&client, url).await;
        println!("{}: {}", client.name(), tally.said());
        assert!(tally.failed.iter().any(|said| said.contains("os error 24")), "or this shows nothing");
        let after = Work::of(Method::GET, 1, 20).over(&client, url).await;
        assert_eq!((after.served, client.transitions()), (20, 0), "{}: {}", client.name(), after.said());
    }
}
