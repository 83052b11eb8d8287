//! The calls of reqwest's that aren't verbs.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, USER_AGENT};
use resilient_client::{Client, ErrorKind, Redirects, Request, hyper};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Reply, SOON, Server, within};
use tower::ServiceExt as _;

async fn echo() -> Server {
    Server::start(|request| Reply::answer(200, &request.target)).await
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-team", "orders".parse().unwrap());
    headers.insert(AUTHORIZATION, "Bearer secret".parse().unwrap());
    headers
}

/// The same words over either client.
macro_rules! over_both {
    ($($name:ident: $client:ident => $story:block)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_reqwest() {
                type $client = Client;
                within(SOON, async $story).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_hyper() {
                type $client = hyper::Client;
                within(SOON, async $story).await;
            }
        }
    )*};
}

over_both! {
    a_client_without_a_builder_makes_calls: C => {
        let server = echo().await;
        for client in [C::new(), C::default()] {
            let response = client.get(server.url("/users/7")).send().await.unwrap();
            assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (200, "/users/7".into()));
        }
    }

    a_path_goes_below_the_base_url: C => {
        let server = echo().await;
        let client = C::builder().base_url(server.url("/v1")).build().unwrap();
        // As the table of `base_url` has it. Over hyper a path had to begin with a `/`.
        for (path, asked) in [
            ("/users/7?x=1", "/v1/users/7?x=1"),
            ("users/7", "/v1/users/7"),
            ("7", "/v1/7"),
            ("//7", "/v1/7"),
            ("", "/v1"),
            ("?page=2", "/v1?page=2"),
            ("a/../b", "/v1/b"),
            ("@evil/x", "/v1/@evil/x"),
        ] {
            assert_eq!(client.get(path).fetch_text().await.unwrap(), asked, "{path}");
            assert_eq!(client.get(path.to_owned()).fetch_text().await.unwrap(), asked, "{path}");
        }
        assert_eq!(client.get(server.url("/health")).fetch_text().await.unwrap(), "/health");
        for outside in ["/../admin", "..", "users:3000/7", "http://"] {
            let outside = client.get(outside).send().await.unwrap_err();
            assert!(outside.is_builder() && outside.kind() == ErrorKind::Request, "{outside:?}");
        }
        assert_eq!(server.count(), 17);
        let refused = C::builder().base_url("users:3000").build().unwrap_err();
        assert!(refused.is_builder() && refused.kind() == ErrorKind::Config);
        assert!(refused.to_string().contains("base_url"), "{refused}");
    }

    default_headers_go_with_every_request_and_stand_below_its_own: C => {
        let server = echo().await;
        let client = C::builder().default_headers(headers()).user_agent("orders/1.0").build().unwrap();
        client.get(server.url("/a")).send().await.unwrap();
        client.get(server.url("/b")).header("x-team", "own").header(USER_AGENT, "own").send().await.unwrap();
        let seen = server.requests();
        let all = |nth: usize, name: &str| {
            let named = seen[nth].headers.iter().filter(|(known, _)| known == name);
            named.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        assert_eq!((all(0, "x-team"), all(1, "x-team")), (vec!["orders".to_owned()], vec!["own".to_owned()]));
        assert_eq!((all(0, "user-agent"), all(1, "user-agent")), (vec!["orders/1.0".to_owned()], vec!["own".to_owned()]));
        assert_eq!((all(0, "authorization"), all(1, "authorization")).0, vec!["Bearer secret".to_owned()]);
        let refused = C::builder().user_agent("a\nb").build().unwrap_err();
        assert!(refused.is_builder() && refused.to_string().contains("user_agent"), "{refused}");
    }

    a_credential_among_the_default_headers_stays_at_home: C => {
        let elsewhere = echo().await;
        let there = elsewhere.url("/there");
        let server = Server::start(move |request| match request.target.as_str() {
            "/away" => Reply::answer_with(302, &[("location", there.as_str())], ""),
            "/near" => Reply::answer_with(302, &[("location", "/home")], ""),
            _ => Reply::answer(200, ""),
        })
        .await;
        let client = C::builder().default_headers(headers()).redirects(Redirects::any()).build().unwrap();
        let response = client.get(server.url("/away")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        client.get(server.url("/near")).send().await.unwrap();
        let abroad = &elsewhere.requests()[0];
        assert_eq!((abroad.header("authorization"), abroad.header("x-team")), (None, Some("orders")));
        assert!(server.requests().iter().all(|at_home| at_home.header("authorization").is_some()));
    }

    a_default_header_is_what_a_hook_sees: C => {
        let server = echo().await;
        let hook = |attempt: &resilient_client::Attempt<'_>| {
            let signed = attempt.headers().get("x-team").cloned();
            resilient_client::Prepared::now(signed.map(|team| ("x-signed".parse().unwrap(), team)).into_iter().collect())
        };
        let client = C::builder().default_headers(headers()).on_attempt(hook).build().unwrap();
        client.get(server.url("/")).send().await.unwrap();
        assert_eq!(server.requests()[0].header("x-signed"), Some("orders"));
    }

    a_request_can_be_copied_split_and_put_together: C => {
        let server = echo().await;
        let request = C::new().post(server.url("/x")).header("x-a", "1").body("tea").idempotency_key("k");
        let copy = request.try_clone().unwrap();
        let (client, built) = copy.build_split();
        client.execute(built.unwrap()).await.unwrap();
        request.send().await.unwrap();
        let (client, built) = C::new().get(server.url("/y")).build_split();
        <C as Builds>::Builder::from_parts(client, built.unwrap()).header("x-b", "2").send().await.unwrap();
        let seen = server.requests();
        for request in &seen[..2] {
            assert_eq!((&*request.method, request.header("x-a"), &*request.body), ("POST", Some("1"), &b"tea"[..]));
            assert_eq!(request.header("idempotency-key"), Some("k"));
        }
        assert_eq!((&*seen[2].target, seen[2].header("x-b")), ("/y", Some("2")));
        assert!(C::new().get("no url").try_clone().is_none());
        let (_, bad) = C::new().get("no url").build_split();
        assert!(bad.unwrap_err().is_builder());
    }

    reqwests_questions_have_reqwests_answers: C => {
        let client = C::new();
        let refused = client.get(NobodyHome::new().url()).send().await.unwrap_err();
        assert!(refused.is_connect() && !refused.is_dns() && !refused.is_builder(), "{refused:?}");
        // A label of 64 characters: nobody is asked.
        let unknown = format!("http://{}.invalid/", "a".repeat(64));
        let unknown = client.get(unknown).send().await.unwrap_err();
        assert!(unknown.is_connect() && unknown.is_dns(), "{unknown:?}");
        let server = Server::start(|_| Reply::answer(404, "")).await;
        let status = client.get(server.url("/x?secret=1")).send().await.unwrap().error_for_status().unwrap_err();
        assert!(status.is_status() && !status.is_redirect() && !status.is_upgrade());
        assert_eq!(status.url().map(|url| url.path().to_owned()), Some("/x".into()));
        let without = status.without_url();
        assert!(without.url().is_none() && !without.to_string().contains("/x"), "{without}");
        let with = without.with_url("http://u:p@users/y?secret=1".parse().unwrap());
        assert!(with.url().unwrap().path() == "/y" && !format!("{with:?}").contains("secret=1"), "{with:?}");
        let upgrade = client.get(server.url("/")).send().await.unwrap().upgrade().await.unwrap_err();
        assert!(upgrade.is_upgrade(), "{upgrade:?}");
    }
}

trait Builds {
    type Builder;
}
impl Builds for Client {
    type Builder = resilient_client::RequestBuilder;
}
impl Builds for hyper::Client {
    type Builder = hyper::RequestBuilder;
}

/// Whatever is asked of a service of reqwest's.
async fn served<S>(service: S, url: String) -> String
where
    S: tower::Service<Request, Response = resilient_client::Response, Error = resilient_client::Error>,
{
    let request = Request::new(http::Method::GET, url.parse().unwrap());
    service.oneshot(request).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_client_is_a_service_of_requests() {
    let server = echo().await;
    let client = Client::new();
    assert_eq!(within(SOON, served(&client, server.url("/a"))).await, "/a");
    assert_eq!(within(SOON, served(client, server.url("/b"))).await, "/b");
}

#[tokio::test]
async fn a_response_is_made_of_anybodys_and_becomes_anybodys() {
    let made = || http::Response::builder().status(404).header("x-a", "1").body("tea").unwrap();
    let response = resilient_client::Response::from(made());
    assert_eq!((response.status().as_u16(), response.report().attempts().len()), (404, 0));
    assert!(response.error_for_status_ref().is_err_and(|error| error.is_status()));
    let theirs: http::Response<resilient_client::Body> = response.into();
    assert_eq!(theirs.headers()["x-a"], "1");
    assert_eq!(resilient_client::Response::from(theirs).text().await.unwrap(), "tea");

    let over_hyper = hyper::Response::from(made());
    assert_eq!((over_hyper.status().as_u16(), over_hyper.headers()["x-a"].to_str().unwrap()), (404, "1"));
    assert_eq!(over_hyper.bytes().await.unwrap(), Bytes::from_static(b"tea"));
}

/// A response that went through somebody's hands keeps its guard, and its body its place.
#[tokio::test]
async fn a_responses_body_keeps_its_place_in_anybodys_hands() {
    let server = echo().await;
    let client = Client::new();
    let response = within(SOON, client.get(server.url("/users/7")).send()).await.unwrap();
    let url = response.url().clone();
    let body = resilient_client::Body::from(response);
    assert_eq!(client.snapshot()[0].in_flight, 1);
    let whole = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    assert_eq!((&*whole, url.path()), (&b"/users/7"[..], "/users/7"));
    assert_eq!(client.snapshot()[0].in_flight, 0);
}

#[test]
fn the_names_beside_the_client_are_reqwests() {
    use resilient_client::{self as reqwest, Method, StatusCode, Url, header};

    let url: Url = "http://users/".parse().unwrap();
    let request = reqwest::Request::new(Method::GET, url);
    let same: &resilient_client::reqwest::Request = &request;
    assert!(same.headers().get(header::ACCEPT).is_none() && StatusCode::OK.is_success());
}
