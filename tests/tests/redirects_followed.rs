//! Redirects that somebody asked to be followed: each hop is a call to the origin it leads to, with
//! nothing of what was meant for the first. Over both transports.

use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue};
use resilient_client::policy::PolicySet;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::redirects::Unfollowed;
use resilient_client::{Attempt, Client, ErrorKind, Policy, Prepared, Redirects};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Gate, Reply, SOON, Server, within};

fn to(location: &str, status: u16) -> Reply {
    Reply::answer_with(status, &[("location", location)], "moved")
}

/// A server that sends everybody to another with this status.
async fn sends_to(other: &Server, status: u16) -> Server {
    let other = other.url("/there");
    Server::start(move |_| to(&other, status)).await
}

/// Which of what nobody else is to see a request bears.
fn secrets(request: &resilient_client_tests::server::Request) -> Vec<String> {
    let names = ["authorization", "cookie", "host-of-mine", "x-api-key", "x-signed", "referer"];
    names.into_iter().filter(|name| request.header(name).is_some()).map(str::to_owned).collect()
}

macro_rules! over {
    ($door:ident, $client:ty, $builder:expr, $stream:expr) => {
        mod $door {
            use super::*;

            fn client(redirects: Redirects) -> $client {
                $builder.redirects(redirects).build().unwrap()
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_hop_is_a_call_of_its_own_with_its_origins_breaker_and_retries() {
                let other = Server::start(|request| match request.nth {
                    1 => Reply::answer(503, "not now"),
                    _ => Reply::answer(200, "there"),
                })
                .await;
                let first = sends_to(&other, 302).await;
                let client = client(Redirects::any());
                let response = within(SOON, client.get(first.url("/")).send()).await.unwrap();
                let report = response.report().clone();
                assert_eq!((report.attempts().len(), report.redirected_from().len()), (2, 1), "{report}");
                assert_eq!(report.upstream(), other.url(""));
                assert_eq!(report.redirected_from()[0].upstream(), first.url(""));
                assert!(report.to_string().contains("redirected:"), "{report}");
                assert_eq!(response.text().await.unwrap(), "there");
                assert_eq!((first.count(), other.count()), (1, 2));
                let failures = |of: &Server| {
                    let upstreams = client.snapshot();
                    upstreams.iter().find(|upstream| *upstream.name == of.url("")).unwrap().breaker.failures
                };
                assert_eq!((failures(&first), failures(&other)), (0, 1));
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn an_open_breaker_of_the_other_origin_refuses_the_hop_and_the_first_stays_closed() {
                let other = Server::start(|_| Reply::answer(200, "there")).await;
                let first = sends_to(&other, 302).await;
                let client = client(Redirects::any());
                client.breaker(&other.url("")).unwrap().force_open().unwrap();
                let error = within(SOON, client.get(first.url("/")).send()).await.unwrap_err();
                assert!(error.is_circuit_open() && !error.is_unsent(), "{error:?}");
                assert_eq!(error.report().unwrap().redirected_from().len(), 1);
                assert_eq!((first.count(), other.count()), (1, 0));
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn nothing_that_was_meant_for_the_first_origin_goes_to_another() {
                let other = Server::start(|_| Reply::answer(200, "there")).await;
                let first = sends_to(&other, 307).await;
                let hook = |_: &Attempt<'_>| {
                    let signed = (http::HeaderName::from_static("x-signed"), HeaderValue::from_static("1"));
                    Prepared::now(HeaderMap::from_iter([signed]))
                };
                let client = $builder.redirects(Redirects::any()).on_attempt(hook).build().unwrap();
                let mut key = HeaderValue::from_static("s3cret");
                key.set_sensitive(true);
                let call = client.post(first.url("/")).bearer_auth("s3cret").header(COOKIE, "a=s3cret");
                let call = call.header("x-api-key", key).header("x-mine", "1").body("an order");
                assert_eq!(within(SOON, call.send()).await.unwrap().status(), 200);
                let (one, two) = (&first.requests()[0], &other.requests()[0]);
                assert_eq!(secrets(one), ["authorization", "cookie", "x-api-key", "x-signed"]);
                assert_eq!(secrets(two), [""; 0]);
                assert_eq!((two.method.as_str(), &two.body[..]), ("POST", &b"an order"[..]));
                assert_eq!((two.target.as_str(), two.header("x-mine")), ("/there", Some("1")));
                assert_eq!(two.header("host"), Some(&*other.address().to_string()));
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_the_way_within_an_origin_everything_goes_along() {
                let server = Server::start(|request| match &*request.target {
                    "/old" => to("/new", 308),
                    _ => Reply::answer(200, "here"),
                })
                .await;
                let client = client(Redirects::same_origin());
                let call = client.put(server.url("/old")).bearer_auth("s3cret").body("an order");
                let response = within(SOON, call.send()).await.unwrap();
                assert_eq!(response.report().redirected_from().len(), 1);
                let there = server.requests().pop().unwrap();
                assert_eq!((there.method.as_str(), &there.body[..]), ("PUT", &b"an order"[..]));
                assert_eq!(secrets(&there), ["authorization"]);
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn the_endpoint_of_a_name_is_home() {
                let server = Server::start(|request| match &*request.target {
                    "/old" => to("/new", 308),
                    _ => Reply::answer(200, "here"),
                })
                .await;
                let endpoints = resilient_client::endpoints::Endpoints::fixed([server.url("")]);
                let client = $builder.redirects(Redirects::same_origin()).endpoints("http://users", endpoints);
                let call = client.build().unwrap().put("http://users/old").bearer_auth("s3cret").body("7");
                assert_eq!(within(SOON, call.send()).await.unwrap().status(), 200);
                let there = server.requests().pop().unwrap();
                assert_eq!((&*there.target, &there.body[..]), ("/new", &b"7"[..]));
                assert_eq!(secrets(&there), ["authorization"]);
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_post_that_is_sent_elsewhere_becomes_a_get_without_its_body() {
                for status in [301, 302, 303] {
                    let other = Server::start(|_| Reply::answer(200, "there")).await;
                    let first = sends_to(&other, status).await;
                    let call = client(Redirects::any()).post(first.url("/")).body("an order");
                    assert_eq!(within(SOON, call.send()).await.unwrap().status(), 200);
                    let there = &other.requests()[0];
                    assert_eq!((there.method.as_str(), there.body.len()), ("GET", 0), "{status}");
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_stream_is_not_sent_twice() {
                let other = Server::start(|_| Reply::answer(200, "there")).await;
                let first = sends_to(&other, 307).await;
                let call = client(Redirects::any()).post(first.url("/")).body($stream);
                let response = within(SOON, call.send()).await.unwrap();
                assert_eq!((response.status().as_u16(), other.count()), (307, 0));
                assert_eq!(response.report().unfollowed().unwrap().1, Unfollowed::BodyIsStream);
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_circle_ends_at_the_limit() {
                let server = Server::start(|_| to("/round", 302)).await;
                let client = client(Redirects::any().limit(3));
                let error = within(SOON, client.get(server.url("/")).send()).await.unwrap_err();
                assert_eq!((error.kind(), server.count()), (ErrorKind::Redirect, 4), "{error:?}");
                assert!(error.to_string().contains("more than 3"), "{error}");
                assert_eq!(error.report().unwrap().redirected_from().len(), 3);
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn all_hops_share_the_time_of_the_call() {
                let other = Server::start(|_| Reply::nothing().then_hang()).await;
                let first = sends_to(&other, 302).await;
                let timeout = TimeoutPolicy::standard().total(Duration::from_millis(400));
                let client = $builder.redirects(Redirects::any());
                let client = client.policy(Policy::standard().timeout(timeout)).build().unwrap();
                let begun = resilient_client_tests::clock::now();
                let error = within(SOON, client.get(first.url("/")).send()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Deadline, "{error:?}");
                assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
                assert_eq!(error.report().unwrap().redirected_from().len(), 1);
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_hop_has_what_is_left_of_the_time_that_its_caller_gave_the_call() {
                let other = Server::start(|_| Reply::answer(200, "there")).await;
                let there = other.url("/there");
                let late = Duration::from_millis(300);
                let first = Server::start(move |_| to(&there, 307).delayed(late)).await;
                let call = client(Redirects::any()).post(first.url("/"));
                let call = call.header("content-type", "application/grpc").header("grpc-timeout", "2S");
                within(SOON, call.body("").send()).await.unwrap();
                let request = other.requests().remove(0);
                let left = request.header("grpc-timeout").unwrap();
                let micros = left.strip_suffix('u').and_then(|left| left.parse::<u64>().ok());
                assert!(micros.is_some_and(|left| left <= 1_700_000), "{left}");
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_hop_that_cannot_connect_was_sent_as_far_as_the_caller_is_concerned() {
                let nobody = NobodyHome::new();
                let there = nobody.url();
                let first = Server::start(move |_| to(&there, 307)).await;
                let client = client(Redirects::any());
                let call = client.post(first.url("/")).body("7 euros");
                let error = within(SOON, call.send()).await.unwrap_err();
                assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::Connect, false), "{error:?}");
                assert_eq!(first.count(), 1);
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_hop_that_never_begins_leaves_no_doubt_that_the_first_origin_was_asked() {
                let other = Server::start(|_| Reply::answer(200, "there")).await;
                let first = sends_to(&other, 307).await;
                let short = TimeoutPolicy::standard().total(Duration::from_millis(900));
                let policies = PolicySet::new(Policy::standard());
                let policies = policies.host(other.url(""), move |policy| policy.timeout(short));
                let client = $builder.redirects(Redirects::any()).policy(policies).build().unwrap();
                let call = client.post(first.url("/")).attempt_timeout(Duration::from_secs(1));
                let error = within(SOON, call.body("7 euros").send()).await.unwrap_err();
                assert_eq!((error.kind(), first.count(), other.count()), (ErrorKind::Config, 1, 0));
                assert!(!error.is_unsent() && !error.is_builder(), "{error:?}");
                assert_eq!(error.report().unwrap().upstream(), first.url(""));
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_drain_waits_for_the_hops_of_a_call_that_was_begun_before() {
                let other = Server::start(|_| Reply::answer(200, "there")).await;
                let (gate, there) = (Gate::new(), other.url("/there"));
                let hold = gate.clone();
                let first = Server::start(move |_| to(&there, 302).after(&hold)).await;
                let client = client(Redirects::any());
                let call = tokio::spawn(client.get(first.url("/")).send());
                within(SOON, first.until_count(1)).await;
                let done = async {
                    let newcomer = client.get(other.url("/")).send().await.unwrap_err();
                    assert_eq!((newcomer.kind(), newcomer.is_unsent()), (ErrorKind::Draining, true));
                    gate.open();
                    within(SOON, call).await.unwrap().unwrap().text().await.unwrap()
                };
                let (left, text) = tokio::join!(biased; client.drain(SOON), done);
                assert_eq!((left, &*text), (0, "there"));
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_call_decides_for_itself_and_what_is_not_followed_is_told() {
                let other = Server::start(|_| Reply::answer(200, "there")).await;
                let first = sends_to(&other, 302).await;
                let follows = client(Redirects::any());
                let call = follows.get(first.url("/?token=s3cret")).redirects(Redirects::none());
                let response = within(SOON, call.send()).await.unwrap();
                let (url, why) = response.report().unfollowed().unwrap();
                assert_eq!((url.as_str(), why), (&*other.url("/there"), Unfollowed::Off));
                let says = format!("redirect to {} not followed: redirects are off", other.url("/there"));
                assert!(response.report().to_string().ends_with(&says), "{}", response.report());

                let stays = client(Redirects::same_origin());
                let response = within(SOON, stays.get(first.url("/")).send()).await.unwrap();
                assert_eq!(response.report().unfollowed().unwrap().1, Unfollowed::OtherOrigin);
                let call = stays.get(first.url("/")).redirects(Redirects::origins([other.url("")]));
                assert_eq!(within(SOON, call.send()).await.unwrap().text().await.unwrap(), "there");
                assert_eq!(other.count(), 1);
            }
        }
    };
}

over!(
    reqwest_,
    Client,
    Client::builder(),
    reqwest::Body::wrap(http_body_util::Full::new(bytes::Bytes::from("an order")))
);
over!(
    hyper_,
    resilient_client::hyper::Client,
    resilient_client::hyper::Client::builder(),
    resilient_client::hyper::Body::wrap(http_body_util::Full::new(bytes::Bytes::from("an order")))
);

/// Nobody chose anything: the answer is handed over, and not in silence.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_choice_a_redirect_to_another_origin_is_told() {
    let other = Server::start(|_| Reply::answer(200, "there")).await;
    let first = sends_to(&other, 302).await;
    let client = Client::builder().build().unwrap();
    let response = within(SOON, client.get(first.url("/")).send()).await.unwrap();
    let says = format!("redirect to {} not followed: other origin", other.url("/there"));
    assert!(response.report().to_string().ends_with(&says), "{}", response.report());
    let whole = within(SOON, client.get(first.url("/")).send_buffered()).await.unwrap();
    assert_eq!(whole.report().unfollowed().unwrap().1, Unfollowed::OtherOrigin);
    let client = resilient_client::hyper::Client::builder().build().unwrap();
    let response = within(SOON, client.get(first.url("/")).send()).await.unwrap();
    assert_eq!(response.report().unfollowed().unwrap().1, Unfollowed::Off);
}

/// reqwest follows it inside the attempt, unless the call says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_keep_the_redirect_that_its_client_would_follow() {
    let server = Server::start(|request| match &*request.target {
        "/old" => to("/new", 302),
        _ => Reply::answer(200, "here"),
    })
    .await;
    let client = Client::builder().build().unwrap();
    let call = client.get(server.url("/old")).redirects(Redirects::none());
    assert_eq!(within(SOON, call.send()).await.unwrap().status(), 302);
    assert_eq!(within(SOON, client.get(server.url("/old")).send()).await.unwrap().status(), 200);
}

/// A reqwest client that follows the first redirect by itself, and hands over the next.
fn follows_one() -> reqwest::Client {
    let policy = reqwest::redirect::Policy::custom(|attempt| match attempt.previous().len() {
        1 => attempt.follow(),
        _ => attempt.stop(),
    });
    reqwest::Client::builder().no_proxy().redirect(policy).build().unwrap()
}

/// It was reqwest that went there, and left the credentials behind.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_transport_was_led_by_itself_is_not_home() {
    let other = Server::start(|request| match &*request.target {
        "/there" => to("/further", 302),
        _ => Reply::answer(200, "there"),
    })
    .await;
    let first = sends_to(&other, 302).await;
    for (rules, status) in [(Redirects::any(), 200), (Redirects::same_origin(), 302)] {
        let hook = |_: &Attempt<'_>| {
            let signed = (http::HeaderName::from_static("x-signed"), HeaderValue::from_static("1"));
            Prepared::now(HeaderMap::from_iter([signed]))
        };
        let client = Client::builder().redirects(rules.clone()).on_attempt(hook);
        let client = client.build_over(follows_one()).unwrap();
        let call = client.get(first.url("/")).bearer_auth("s3cret").header(COOKIE, "a=s3cret");
        let response = within(SOON, call.header("host", "first.example").send()).await.unwrap();
        assert_eq!(response.status(), status, "{rules:?}");
        if status == 302 {
            assert_eq!(response.report().unfollowed().unwrap().1, Unfollowed::OtherOrigin);
        }
    }
    let seen = other.requests();
    let further: Vec<_> = seen.iter().filter(|request| request.target == "/further").collect();
    assert_eq!(further.len(), 1);
    assert_eq!(secrets(further[0]), [""; 0]);
    assert_eq!(further[0].header("host"), Some(&*other.address().to_string()));
}

/// reqwest made a `GET` of it on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_not_sent_again_for_the_sake_of_what_the_transport_made_of_it() {
    let other = Server::start(|_| to("/further", 307)).await;
    let first = sends_to(&other, 303).await;
    let client = Client::builder().redirects(Redirects::any()).build_over(follows_one()).unwrap();
    let response = within(SOON, client.post(first.url("/")).body("7 euros").send()).await.unwrap();
    assert_eq!(response.report().unfollowed().unwrap().1, Unfollowed::Transport);
    assert_eq!((first.count(), other.count()), (1, 1));
}

/// They would be put on every request that lacks them, and can't be taken off again.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_among_the_transports_default_headers_stay_at_home() {
    let other = Server::start(|_| Reply::answer(200, "there")).await;
    let first = sends_to(&other, 302).await;
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"))]);
    let client = Client::builder().redirects(Redirects::any());
    let client = client.transport(move |reqwest| reqwest.default_headers(headers.clone())).build().unwrap();
    let response = within(SOON, client.get(first.url("/")).send()).await.unwrap();
    assert_eq!(response.report().unfollowed().unwrap().1, Unfollowed::Credentials);
    assert_eq!(other.count(), 0);
}
