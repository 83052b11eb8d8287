//! A client that calls a router without a socket, and a database for each test.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    reason = "read by tests, which panic when something is wrong"
)]

#[cfg(all(unix, any(feature = "amqp", feature = "postgres")))]
pub mod servers;

use std::io::Write as _;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

pub const PROBLEM_JSON: &str = "application/problem+json";

/// Neither the help of a service's binary nor its refusal to start repeats what its environment
/// holds of secrets: these, and those that every service has.
pub fn assert_repeats_no_secret(binary: &str, own: &[(&str, &str)]) {
    let said = |secrets: &[(&str, &str)], args: &[&str]| {
        let mut service = std::process::Command::new(binary);
        let output = service.envs(secrets.iter().copied()).args(args).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(!said.contains("s3cret"), "{said}");
        (output.status.success(), said)
    };
    let every = [
        ("DATABASE_URL", "postgres://u:s3cret@h/d"),
        ("AMQP_URL", "amqp://u:s3cret@h"),
        ("FAULTS_TOKEN", "s3cret-faults"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cret@h:4318"),
    ];
    let (helped, help) = said(&[&every, own].concat(), &["--help"]);
    assert!(helped && help.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{help}");
    let bad = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cret@[bad")];
    let (began, why) = said(&bad, &[]);
    assert!(!began && why.contains("traces-collector"), "{why}");
}

/// A database of its own, gone when dropped. `SQLite`, or Postgres when `TEST_POSTGRES_URL` names
/// one.
pub struct TestDatabase {
    pub url: String,
    _dir: Option<TempDir>,
}

impl TestDatabase {
    pub async fn new() -> Self {
        let Ok(postgres) = std::env::var("TEST_POSTGRES_URL") else {
            let dir = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}?mode=rwc", dir.path().join("test.db").display());
            return Self { url, _dir: Some(dir) };
        };
        let schema = format!("test_{}", uuid::Uuid::now_v7().simple());
        execute(&postgres, format!("CREATE SCHEMA {schema}")).await;
        Self { url: format!("{postgres}?options[search_path]={schema}"), _dir: None }
    }

    pub fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    /// Runs a statement behind the service's back.
    pub async fn execute(&self, sql: impl Into<String>) {
        execute(&self.url, sql.into()).await;
    }

    pub async fn count(&self, table: &str) -> i64 {
        let mut connection = connect(&self.url).await;
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }
}

/// The Postgres that tests may use; `None`, said aloud, where there is none.
pub fn postgres(test: &str) -> Option<String> {
    named(test, "TEST_POSTGRES_URL", "Postgres")
}

/// The broker that tests may use; `None`, said aloud, where there is none.
pub fn broker(test: &str) -> Option<String> {
    named(test, "TEST_AMQP_URL", "broker")
}

fn named(test: &str, variable: &str, what: &str) -> Option<String> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        skipped(test, &format!("no {what} ({variable})"));
    }
    url
}

/// Says that a test did nothing, also where what passing tests print is swallowed.
pub fn skipped(test: &str, why: &str) {
    // Not `eprintln!`, which the test harness captures.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

pub async fn connect(url: &str) -> sqlx::AnyConnection {
    sqlx::any::install_default_drivers();
    <sqlx::AnyConnection as sqlx::Connection>::connect(url).await.unwrap()
}

async fn execute(url: &str, sql: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connect(url).await).await.unwrap();
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap_or_else(|| panic!("no {field} in {self:?}")).to_owned()
    }

    /// Asserts that this is a problem of this status, that it says so itself and that it leaks
    /// nothing.
    #[track_caller]
    pub fn assert_problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), PROBLEM_JSON, "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{self:?}");
        let lower = self.body.to_lowercase();
        for leak in ["sqlx", "sqlite", "postgres", "select ", "insert ", "panicked", ".rs:"] {
            assert!(!lower.contains(leak), "leaks {leak:?}: {self:?}");
        }
        problem
    }

    /// Asserts a problem that blames exactly these fields, in this order.
    #[track_caller]
    pub fn assert_blames(&self, status: u16, fields: &[&str]) {
        let problem = self.assert_problem(status);
        let blamed: Vec<&str> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        assert_eq!(blamed, fields, "{self:?}");
    }
}

pub async fn call(app: &Router, request: Request<Body>) -> Answer {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

/// The answer's head; what follows is still coming.
pub async fn open(app: &Router, request: Request<Body>) -> axum::response::Response {
    app.clone().oneshot(request).await.unwrap()
}

pub async fn get(app: &Router, path: &str) -> Answer {
    call(app, Request::get(path).body(Body::empty()).unwrap()).await
}

pub fn post_request(path: &str, key: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(body.into()).unwrap()
}

pub async fn post(app: &Router, path: &str, body: &Value) -> Answer {
    call(app, post_request(path, None, body.to_string())).await
}

pub async fn post_keyed(app: &Router, path: &str, key: &str, body: &Value) -> Answer {
    call(app, post_request(path, Some(key), body.to_string())).await
}
