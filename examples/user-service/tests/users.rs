//! What a client of user-service sees.

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Method, Request},
};
use serde_json::json;
use service_kit::testing::{TestDatabase, call, connect, get, post, post_request};
use user_service::{AppState, Clock, Config, app};

async fn service() -> (Router, TestDatabase) {
    let database = TestDatabase::new().await;
    let config = Config { database_url: database.url.clone(), ..Config::default() };
    (app(AppState::open(&config).await.unwrap()), database)
}

#[tokio::test]
async fn a_created_user_is_found_where_location_points() {
    let (app, _database) = service().await;
    let created = post(&app, "/users", &json!({ "name": " Ada ", "email": "ada@example.com" })).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.header("content-type"), "application/json");
    assert_eq!(created.text("name"), "Ada");
    assert_eq!(created.header("location"), format!("/users/{}", created.text("id")));

    let found = get(&app, created.header("location")).await;
    assert_eq!(found.status, 200);
    assert_eq!(found.json(), created.json());
}

#[tokio::test]
async fn an_unknown_id_is_404_and_a_malformed_one_400() {
    let (app, _database) = service().await;
    let path = "/users/01980000-0000-7000-8000-000000000000";
    let problem = get(&app, path).await.assert_problem(404);
    // By these a client knows that it is this service that knows no such user.
    assert_eq!(
        (&problem["type"], &problem["instance"]),
        (&json!("urn:problem:user-not-found"), &json!(path))
    );
    for bad in ["1", "-1", "ada", "%00", "%ff", "..%2f..", "01980000000070008000000000000000", "' OR 1=1--"] {
        let path = format!("/users/{}", bad.replace(' ', "%20"));
        get(&app, &path).await.assert_problem(400);
    }
}

#[tokio::test]
async fn a_broken_rule_is_422_and_names_every_field() {
    let (app, database) = service().await;
    let long = "x".repeat(201);
    for (body, fields) in [
        (json!({ "name": "", "email": "nope" }), &["name", "email"][..]),
        (json!({ "name": "   ", "email": "a@b" }), &["name"]),
        (json!({ "name": long, "email": "a@b" }), &["name"]),
        (json!({ "name": "a\u{0}b", "email": "a@b" }), &["name"]),
        (json!({ "name": "Ada", "email": "a b@c" }), &["email"]),
        (json!({ "name": "Ada" }), &["email"]),
        (json!({}), &["name", "email"]),
        (json!({ "name": 7, "email": "a@b" }), &["name"]),
        (json!({ "name": "Ada", "email": null }), &["email"]),
        (json!({ "name": "Ada", "email": "a@b", "admin": true }), &["admin"]),
    ] {
        post(&app, "/users", &body).await.assert_blames(422, fields);
    }
    for shape in [json!([]), json!(["Ada", "ada@example.com"]), json!("Ada"), json!(null), json!(1)] {
        post(&app, "/users", &shape).await.assert_problem(422);
    }
    assert_eq!(database.count("users").await, 0);
}

#[tokio::test]
async fn malformed_json_is_400() {
    let (app, _database) = service().await;
    for body in ["", "{", "nul", "{} {}", "{\"name\":\"\\ud800\"", "\u{feff}{}"] {
        call(&app, post_request("/users", None, body.to_owned())).await.assert_problem(400);
    }
    let deep = format!("{{\"name\":{}", "[".repeat(60_000));
    assert!(call(&app, post_request("/users", None, deep)).await.status.is_client_error());
    call(&app, post_request("/users", None, &b"{\"name\": \"\xff\"}"[..])).await.assert_problem(400);
}

#[tokio::test]
async fn another_content_type_is_415() {
    let (app, _database) = service().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "json", "application/jsonp"] {
        let request = Request::post("/users").header("content-type", content_type).body("{}".into()).unwrap();
        call(&app, request).await.assert_problem(415);
    }
    call(&app, Request::post("/users").body("{}".into()).unwrap()).await.assert_problem(415);
    let charset = Request::post("/users")
        .header("content-type", "Application/JSON; charset=utf-8")
        .body(json!({ "name": "Ada", "email": "a@b" }).to_string().into())
        .unwrap();
    assert_eq!(call(&app, charset).await.status, 201);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_announced_or_streamed() {
    let (app, database) = service().await;
    let name = "x".repeat(65 * 1024);
    post(&app, "/users", &json!({ "name": name, "email": "a@b" })).await.assert_problem(413);

    let endless =
        futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1024])));
    call(&app, post_request("/users", None, Body::from_stream(endless))).await.assert_problem(413);
    assert_eq!(database.count("users").await, 0);
}

#[tokio::test]
async fn pages_hold_every_user_once_in_order() {
    let (app, _database) = service().await;
    let mut created = Vec::new();
    for n in 0..7 {
        created
            .push(post(&app, "/users", &json!({ "name": format!("u{n}"), "email": "a@b" })).await.text("id"));
    }
    let (mut seen, mut path) = (Vec::new(), "/users?limit=3".to_owned());
    loop {
        let page = get(&app, &path).await.json();
        let users = page["users"].as_array().unwrap();
        assert!(users.len() <= 3);
        seen.extend(users.iter().map(|user| user["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/users?limit=3&after={next}");
    }
    assert_eq!(seen, created);
    // The last page that is exactly full promises no further one.
    assert!(get(&app, "/users?limit=7").await.json()["next"].is_null());
    assert_eq!(get(&app, "/users").await.json()["users"].as_array().unwrap().len(), 7);
}

/// After a restart, or in another process, the clock may show less, and new ids sort before old
/// ones.
#[tokio::test]
async fn following_the_list_misses_no_user_though_the_clock_was_turned_back() {
    let database = TestDatabase::new().await;
    let config = Config { database_url: database.url.clone(), ..Config::default() };
    let mut created = Vec::new();
    let mut followed = Vec::new();
    for hours in [5, 4, 6, 3] {
        let clock = Clock::manual(hours * 60 * 60 * 1000);
        let app = app(AppState::open_at(&config, clock).await.unwrap());
        created.push(post(&app, "/users", &json!({ "name": "Ada", "email": "a@b" })).await.text("id"));
        let after = followed.last().map(|id| format!("?after={id}")).unwrap_or_default();
        let page = get(&app, &format!("/users{after}")).await.json();
        followed.extend(
            page["users"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(followed, created);
}

#[tokio::test]
async fn a_bad_query_is_400() {
    let (app, _database) = service().await;
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=ten",
        "limit=",
        "limit=99999999999999999999",
        "after=",
        "after=x",
        "limt=5",
        "limit=1&limit=2",
        "after=%ff",
        // No user has this id, so nothing comes after it.
        "after=01980000-0000-7000-8000-000000000000",
    ] {
        get(&app, &format!("/users?{query}")).await.assert_problem(400);
    }
    assert_eq!(get(&app, "/users?limit=1").await.status, 200);
    assert_eq!(get(&app, "/users?limit=100").await.status, 200);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let (app, _database) = service().await;
    for path in ["/", "/user", "/users/", "/users/x/y", "//"] {
        get(&app, path).await.assert_problem(404);
    }
    let wrong = Request::builder().method(Method::DELETE).uri("/users").body(Body::empty()).unwrap();
    let answer = call(&app, wrong).await;
    answer.assert_problem(405);
    assert!(answer.header("allow").contains("POST"), "{answer:?}");
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let (app, _database) = service().await;
    let ask = async |id: Option<&[u8]>| {
        let mut request = Request::get("/nowhere");
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        call(&app, request.body(Body::empty()).unwrap()).await.header("x-request-id").to_owned()
    };
    assert_eq!(ask(Some(b"req-1.a:b/c")).await, "req-1.a:b/c");
    let long = [b'x'; 129];
    for bad in [&b""[..], b"two words", b"a\"b", b"\xff\xfe", b"<script>", &long] {
        let id = ask(Some(bad)).await;
        assert_eq!(id.len(), 36, "{bad:?} became {id:?}");
    }
    assert_ne!(ask(None).await, ask(None).await);
}

#[tokio::test]
async fn health_is_about_the_process_and_readiness_about_its_database() {
    let (app, database) = service().await;
    assert_eq!(get(&app, "/healthz").await.status, 200);
    assert_eq!(get(&app, "/readyz").await.status, 200);
    database.execute("DROP TABLE schema_migrations").await;
    assert_eq!(get(&app, "/healthz").await.status, 200);
    let answer = get(&app, "/readyz").await;
    answer.assert_problem(503);
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn a_broken_database_is_a_500_that_tells_nothing() {
    let (app, database) = service().await;
    database.execute("DROP TABLE users").await;
    get(&app, "/users").await.assert_problem(500);
    post(&app, "/users", &json!({ "name": "Ada", "email": "a@b" })).await.assert_problem(500);
}

#[tokio::test]
async fn a_locked_database_is_503_with_retry_after_while_reads_go_on() {
    let (app, database) = service().await;
    if !database.is_sqlite() {
        return; // Postgres locks rows, not databases.
    }
    let mut other_process = connect(&database.url).await;
    sqlx::Executor::execute(&mut other_process, "BEGIN IMMEDIATE").await.unwrap();
    let body = json!({ "name": "Ada", "email": "a@b" });
    let write = post(&app, "/users", &body);
    let reads = async {
        for _ in 0..20 {
            assert_eq!(get(&app, "/users").await.status, 200);
        }
    };
    let (answer, ()) = tokio::join!(write, reads);
    answer.assert_problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    sqlx::Executor::execute(&mut other_process, "ROLLBACK").await.unwrap();
    assert_eq!(post(&app, "/users", &body).await.status, 201);
}

#[tokio::test]
async fn several_processes_may_open_a_new_database_at_once() {
    let database = TestDatabase::new().await;
    let config = Config { database_url: database.url.clone(), ..Config::default() };
    let opened = futures_util::future::join_all((0..8).map(|_| {
        let config = config.clone();
        tokio::spawn(async move { AppState::open(&config).await })
    }));
    for state in opened.await {
        assert_eq!(get(&app(state.unwrap().unwrap()), "/users").await.status, 200);
    }
    assert_eq!(database.count("schema_migrations").await, 7);
}

#[tokio::test]
async fn an_in_memory_database_keeps_its_data() {
    let config = Config { database_url: "sqlite::memory:".into(), ..Config::default() };
    let app = app(AppState::open(&config).await.unwrap());
    assert_eq!(post(&app, "/users", &json!({ "name": "Ada", "email": "a@b" })).await.status, 201);
    assert_eq!(get(&app, "/users").await.json()["users"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_without_repeating_secrets() {
    for url in [
        "",
        "mysql://u:secret@h/d",
        "secret",
        "postgres://u:secret@[bad/d",
        // SQLite would give each connection a database of its own, whose writes no other can read.
        "sqlite:",
        "sqlite://",
        "sqlite:?mode=rwc",
        "sqlite://?mode=rwc",
    ] {
        let config = Config { database_url: url.into(), ..Config::default() };
        let error = AppState::open(&config).await.unwrap_err();
        assert!(error.is_config(), "{url}: {error:?}");
        assert!(!format!("{error} {error:?} {config:?}").contains("secret"), "{url}");
    }
    let mut config = Config { database_url: "sqlite::memory:".into(), ..Config::default() };
    config.limits.max_body_bytes = 0;
    let error = AppState::open(&config).await.unwrap_err();
    assert!(error.to_string().contains("max-body-bytes"), "{error}");
}

#[test]
fn the_default_configuration_is_what_the_flags_default_to() {
    use clap::Parser as _;
    let parsed = Config::try_parse_from(["user-service"]).unwrap();
    let default = Config::default();
    assert_eq!(format!("{parsed:?}"), format!("{default:?}"));
    assert_eq!((parsed.port, parsed.database_url), (3000, default.database_url));
    for bad in [
        ["user-service", "--port=70000"],
        ["user-service", "--port="],
        ["user-service", "--request-timeout-ms=-1"],
    ] {
        assert!(Config::try_parse_from(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn help_fits_80_columns() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_user-service")).arg("--help").output().unwrap();
    for line in String::from_utf8(help.stdout).unwrap().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn help_and_a_refusal_repeat_no_secret_of_the_environment() {
    service_kit::testing::assert_repeats_no_secret(env!("CARGO_BIN_EXE_user-service"), &[]);
}
