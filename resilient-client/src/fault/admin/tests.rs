//! Who may change faults, and what is told to those who can't, or got it wrong.

use http::HeaderValue;
use http::header::{CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http_body_util::BodyExt as _;

use super::super::connection::BreakableStream;
use super::super::rule::Asked;
use super::super::{Faults, Kind, Settings};
use super::*;

const TOKEN: &str = "open sesame";

fn request(method: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri("/faults");
    let usual = [
        ("host", "localhost:3100"),
        ("authorization", "Bearer open sesame"),
        ("content-type", "application/json"),
    ];
    for (name, value) in usual {
        if !headers.iter().any(|(own, _)| *own == name) {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    request.extensions_mut().insert(peer("127.0.0.1:1"));
    request
}

fn peer(address: &str) -> super::super::Connection {
    BreakableStream::new((), address.parse().unwrap()).connection().clone()
}

fn admin(options: Access) -> Admin {
    let faults = Faults::new(Settings::new().rule(Rule::new(Kind::Hang))).unwrap();
    Admin::new(faults, options).unwrap()
}

async fn ask(admin: &Admin, request: Request<Full<Bytes>>) -> (u16, Value) {
    let response = admin.clone().call(request).await.unwrap();
    let (head, body) = response.into_parts();
    let media = head.headers[CONTENT_TYPE].to_str().unwrap();
    assert_eq!(media == "application/json", head.status.is_success(), "{media}");
    assert_eq!(head.status == 401, head.headers.contains_key(WWW_AUTHENTICATE));
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap())
}

async fn status(admin: &Admin, headers: &[(&str, &str)]) -> u16 {
    ask(admin, request("GET", headers, "")).await.0
}

#[tokio::test]
async fn without_the_token_nothing_is_shown_or_changed() {
    let admin = admin(Access::token(TOKEN));
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer open",
        "Bearer open sesame!",
        "Bearer open sesamf",
        "open sesame",
        "Basic open sesame",
        "Bearer open sesameopen sesame",
    ] {
        let (status, answer) = ask(&admin, request("DELETE", &[("authorization", wrong)], "")).await;
        assert_eq!((status, answer.get("rules")), (401, None), "{wrong}");
    }
    assert_eq!(status(&admin, &[("authorization", "bearer open sesame")]).await, 200);
    let mut twice = request("GET", &[], "");
    twice.headers_mut().append(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer another one"));
    assert_eq!(ask(&admin, twice).await.0, 401);
    assert_eq!(admin.faults.snapshot().rules.len(), 1);
}

#[tokio::test]
async fn other_hosts_and_unknown_ones_are_refused_unless_allowed() {
    let here = admin(Access::token(TOKEN));
    for (address, expected) in [
        ("127.8.8.8:1", 200),
        ("[::1]:1", 200),
        ("[::ffff:127.0.0.1]:1", 200),
        ("10.0.0.1:1", 403),
        ("[2001:db8::1]:1", 403),
    ] {
        let mut request = request("GET", &[], "");
        request.extensions_mut().insert(peer(address));
        assert_eq!(ask(&here, request).await.0, expected, "{address}");
    }
    let mut unknown = request("GET", &[], "");
    unknown.extensions_mut().clear();
    assert_eq!(ask(&here, unknown).await.0, 403);
    let there = admin(Access::token(TOKEN).anywhere(["users.internal"]));
    for (host, expected) in [("users.internal:3100", 200), ("evil.example", 403)] {
        let mut request = request("GET", &[("host", host)], "");
        request.extensions_mut().clear();
        assert_eq!(ask(&there, request).await.0, expected, "{host}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_whatever_name_it_gives_this_host() {
    let admin = admin(Access::without_token());
    for (headers, expected) in [
        (&[("host", "localhost")][..], 200),
        (&[("host", "LOCALHOST:3100")], 200),
        (&[("host", "127.0.0.1:3100")], 200),
        (&[("host", "[::1]:3100")], 200),
        (&[("host", "[::1]")], 200),
        (&[("host", "rebound.example:3100")], 403),
        (&[("host", "localhost.evil.example")], 403),
        (&[("host", "10.0.0.1")], 403),
        (&[("host", "")], 403),
        (&[("origin", "http://localhost:3100")], 200),
        (&[("origin", "http://localhost:3000")], 403),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "none")], 200),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "same-site")], 403),
    ] {
        assert_eq!(status(&admin, headers).await, expected, "{headers:?}");
    }
    let mut twice = request("GET", &[], "");
    twice.headers_mut().append(HOST, HeaderValue::from_static("evil.example"));
    assert_eq!(ask(&admin, twice).await.0, 403);
}

/// Behind a reverse proxy on this host, every peer is this host.
#[tokio::test]
async fn what_a_proxy_on_this_host_has_passed_on_is_refused_unless_it_may_be() {
    let (strict, open) = (admin(Access::token(TOKEN)), admin(Access::token(TOKEN).through_proxies()));
    for passed_on in [
        ("x-forwarded-for", "203.0.113.7"),
        ("Forwarded", "for=203.0.113.7;proto=https"),
        ("via", "1.1 gateway"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-host", "admin.example"),
    ] {
        assert_eq!((status(&strict, &[passed_on]).await, status(&open, &[passed_on]).await), (403, 200));
        // The rest is asked all the same.
        assert_eq!(status(&open, &[passed_on, ("host", "evil.example")]).await, 403);
        assert_eq!(status(&open, &[passed_on, ("authorization", "")]).await, 401);
    }
    let far = admin(Access::token(TOKEN).anywhere(["admin.example"]));
    assert_eq!(status(&far, &[("via", "1.1 gateway"), ("host", "admin.example")]).await, 200);
    let nobodys =
        Admin::new(Faults::new(Settings::new()).unwrap(), Access::without_token().through_proxies());
    assert!(nobodys.unwrap_err().to_string().contains("token"));
}

#[tokio::test]
async fn rules_are_shown_replaced_and_cleared() {
    let admin = admin(Access::token(TOKEN));
    let (_, shown) = ask(&admin, request("GET", &[], "")).await;
    assert_eq!(shown["rules"], json!([{ "kind": "hang", "percentage": 100.0 }]));
    assert_eq!(shown["limits"], json!({ "max_active": 100, "max_delay": "30s", "max_bytes": 65536 }));
    let list = r#"[{"kind": "garbage"}, {"kind": "delay", "delay": "2s", "path": "/users/{id}"}]"#;
    let (status, replaced) = ask(&admin, request("PUT", &[], list)).await;
    let kinds = [&replaced["rules"][0]["kind"], &replaced["rules"][1]["kind"]];
    assert_eq!((status, kinds), (200, [&json!("garbage"), &json!("delay")]));
    assert_eq!(replaced["counts"][1], json!({ "matched": 0, "injected": 0, "capped": 0 }));
    // What is shown can be put back.
    let (status, again) = ask(&admin, request("PUT", &[], &replaced["rules"].to_string())).await;
    assert_eq!((status, &again["rules"]), (200, &replaced["rules"]));
    let (status, one) = ask(&admin, request("PUT", &[], r#" {"kind": "hang"}"#)).await;
    assert_eq!((status, one["rules"].as_array().unwrap().len()), (200, 1));
    let (status, none) = ask(&admin, request("DELETE", &[], "")).await;
    assert_eq!((status, &none["rules"]), (200, &json!([])));
}

/// Who read the rules and put them back with one more took away what others had added meanwhile.
#[test]
fn rules_that_many_add_at_a_time_are_all_in_force_and_those_before_them_go_on() {
    let admin = admin(Access::token(TOKEN));
    let hit = || admin.faults.snapshot().rules[0].1.injected;
    let (method, headers) = (Method::GET, http::HeaderMap::new());
    let (host, port, query, body) = (None, None, None, None);
    let asked = || Asked { method: &method, path: "/", host, port, query, headers: &headers, body };
    assert!(admin.faults.draw(asked).is_some());
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let (status, answer) =
                    runtime.block_on(ask(&admin, request("POST", &[], r#"{"kind":"garbage"}"#)));
                assert_eq!(status, 200, "{answer}");
            });
        }
    });
    assert_eq!((admin.faults.snapshot().rules.len(), hit()), (21, 1));
}

#[tokio::test]
async fn added_rules_are_all_or_none_and_there_are_never_more_than_a_hundred() {
    let admin = admin(Access::token(TOKEN));
    let many = |count: usize| Value::from(vec![json!({ "kind": "garbage" }); count]).to_string();
    for (body, field) in [
        (r#"[{"kind":"garbage"},{"kind":"delay","delay":"31s"}]"#.to_owned(), "rules[1].delay"),
        (many(100), "rules"),
    ] {
        let (status, problem) = ask(&admin, request("POST", &[], &body)).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!(field)), "{problem}");
    }
    assert_eq!(admin.faults.snapshot().rules.len(), 1);
    assert_eq!(ask(&admin, request("POST", &[], &many(99))).await.0, 200);
}

#[tokio::test]
async fn what_cannot_work_changes_nothing_and_names_its_field() {
    let admin = admin(Access::token(TOKEN));
    for (body, status, field) in [
        (r#"{"kind":"hang","percentage":101}"#, 422, "rules[0].percentage"),
        (r#"[{"kind":"hang"},{"kind":"delay","delay":"31s"}]"#, 422, "rules[1].delay"),
        (r#"{"kind":"hang","percentage":"half"}"#, 422, "rules[0].percentage"),
        (r#"{"kind":"hangs"}"#, 422, "rules[0].kind"),
        ("{}", 422, "rules[0].kind"),
        (r#"{"kind":"hang","status":200}"#, 422, "rules[0].status"),
        // As those that are read and can't be put in force.
        (r#"[{"kind":"hang"},{"kind":"delay","delay":"soon"}]"#, 422, "rules[1].delay"),
        (r#"[{"kind":"hang"},{"kind":"delay","delay":{"min":"1s","max":"soon"}}]"#, 422, "rules[1].delay"),
        (r#"[{"kind":"hang"},{"kind":"hang"},{}]"#, 422, "rules[2].kind"),
        (r#"[{"kind":"hang"},{"knid":"hang"}]"#, 422, "rules[1]"),
        (r#"[{"kind":"hang"},7]"#, 422, "rules[1]"),
        (r#"[{"kind":"hang"}"#, 422, "rules[1]"),
        (r#"{"kind":"hang"} trailing"#, 422, ""),
        ("", 422, ""),
        ("nonsense", 422, ""),
    ] {
        let (found, problem) = ask(&admin, request("PUT", &[], body)).await;
        assert_eq!(found, status, "{body} {problem}");
        assert_eq!(problem["errors"][0]["field"].as_str().unwrap_or_default(), field, "{body} {problem}");
    }
    let long = format!(r#"{{"kind":"abort","body":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(ask(&admin, request("PUT", &[], &long)).await.0, 413);
    for media in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let (found, _) =
            ask(&admin, request("PUT", &[("content-type", media)], r#"{"kind":"garbage"}"#)).await;
        assert_eq!(found, 415, "{media}");
    }
    let (found, _) = ask(&admin, request("PATCH", &[], "{}")).await;
    assert_eq!(found, 405);
    assert_eq!(admin.faults.snapshot().rules[0].0, Rule::new(Kind::Hang));
}

#[test]
fn a_token_that_can_be_guessed_or_sent_by_nobody_is_refused_and_never_shown() {
    let faults = || Faults::new(Settings::new()).unwrap();
    for token in ["", "short", "line\nbreaks in it", "für alle Fälle"] {
        let invalid = Admin::new(faults(), Access::token(token)).unwrap_err();
        assert!(token.is_empty() || !invalid.to_string().contains(token), "{invalid}");
    }
    assert!(!format!("{:?}", admin(Access::token(TOKEN))).contains(TOKEN));
}
