//! The stream of new and changed users.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, BodyDataStream},
    http::Request,
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use service_kit::testing::{TestDatabase, call, get, open, post, post_request};
use tokio::time::timeout;
use user_service::{AppState, Config, app};

const SOON: Duration = Duration::from_secs(10);

async fn service(heartbeat_ms: u64) -> (AppState, Router, TestDatabase) {
    let database = TestDatabase::new().await;
    let url = database.url.clone();
    let config = Config { database_url: url, events_heartbeat_ms: heartbeat_ms, ..Config::default() };
    let state = AppState::open(&config).await.unwrap();
    (state.clone(), app(state), database)
}

/// The stream, and the id that says where it begins.
struct Events(BodyDataStream, String);

impl Events {
    async fn of(app: &Router, last: Option<&str>) -> Self {
        let mut request = Request::get("/users/events");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = open(app, request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Self(response.into_body().into_data_stream(), String::new());
        let here = events.piece().await.expect("where it begins");
        let id = here.trim().strip_prefix("id: ").expect("an id without data");
        events.1.push_str(id);
        events
    }

    /// The next piece, as it stands there; `None` at the end.
    async fn piece(&mut self) -> Option<String> {
        let piece = timeout(SOON, self.0.next()).await.expect("something comes")?;
        Some(String::from_utf8(piece.unwrap().to_vec()).unwrap())
    }

    /// The id and the user of the next event.
    async fn next(&mut self) -> (String, Value) {
        let event = self.piece().await.expect("an event");
        let line = |name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {event}")).trim().to_owned()
        };
        assert_eq!(line("event:"), "user");
        (line("id:"), serde_json::from_str(&line("data:")).unwrap())
    }
}

async fn create(app: &Router, name: &str) -> Value {
    post(app, "/users", &json!({ "name": name, "email": "a@b" })).await.json()
}

fn number(id: &str) -> u64 {
    id.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn new_and_changed_users_come_in_order_and_none_is_missed_after_a_break() {
    let (_state, app, _database) = service(60_000).await;
    create(&app, "before").await;
    let mut events = Events::of(&app, None).await;
    let ada = create(&app, "Ada").await;
    let (first, told) = events.next().await;
    assert_eq!((&told["id"], &told["name"]), (&ada["id"], &json!("Ada")), "what was before isn't news");
    drop(events);
    create(&app, "Bob").await;
    let path = format!("/users/{}", ada["id"].as_str().unwrap());
    let mut change = post_request(&path, None, json!({ "name": "Ada L", "email": "a@b" }).to_string());
    *change.method_mut() = axum::http::Method::PUT;
    assert_eq!(call(&app, change).await.status, 200);
    let mut events = Events::of(&app, Some(&first)).await;
    let (bob, told) = events.next().await;
    assert_eq!(told["name"], "Bob");
    let (last, told) = events.next().await;
    assert_eq!(told["name"], "Ada L");
    let numbers: Vec<u64> = [first, bob, last].iter().map(|id| number(id)).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

/// A reader that was cut off before its first event came back with no id, and missed what had
/// happened meanwhile.
#[tokio::test]
async fn who_comes_back_before_the_first_event_misses_none() {
    let (_state, app, _database) = service(60_000).await;
    create(&app, "before").await;
    let events = Events::of(&app, None).await;
    let here = events.1.clone();
    drop(events);
    create(&app, "Ada").await;
    let (_, told) = Events::of(&app, Some(&here)).await.next().await;
    assert_eq!(told["name"], "Ada");
}

#[tokio::test]
async fn while_nothing_changes_a_comment_shows_that_it_is_alive() {
    let (_state, app, _database) = service(20).await;
    let mut events = Events::of(&app, None).await;
    for _ in 0..3 {
        let piece = events.piece().await.expect("a sign of life");
        assert!(piece.starts_with(':'), "{piece:?}");
    }
}

#[tokio::test]
async fn it_ends_when_the_service_is_told_to_stop() {
    let (state, app, _database) = service(60_000).await;
    let mut events = Events::of(&app, None).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    user_service::serve(state, app, listener, async {}).await.unwrap();
    assert_eq!(events.piece().await, None);
}

#[tokio::test]
async fn an_id_that_no_event_has_is_refused() {
    let (_state, app, _database) = service(60_000).await;
    for id in ["", "x", "-1", "99999999999999999999", "a:b", "a:", "a:-1"] {
        let request = Request::get("/users/events").header("last-event-id", id).body(Body::empty());
        call(&app, request.unwrap()).await.assert_problem(400);
    }
    get(&app, "/users/eventsx").await.assert_problem(400);
}

/// Its number was taken for one of ours, and what had happened here until then was missed.
#[tokio::test]
async fn a_number_of_another_database_or_none_yet_given_begins_with_every_user() {
    let (_state, app, _database) = service(60_000).await;
    create(&app, "Ada").await;
    create(&app, "Bob").await;
    let here = Events::of(&app, None).await.1;
    let own = here.rsplit_once(':').unwrap().0;
    for id in ["01980000-0000-7000-8000-000000000000:2", "2", &format!("{own}:3")] {
        let mut events = Events::of(&app, Some(id)).await;
        assert_eq!(number(&events.1), 0, "{id}");
        let names = [events.next().await.1, events.next().await.1].map(|user| user["name"].clone());
        assert_eq!(names, ["Ada", "Bob"], "{id}");
    }
    let mut events = Events::of(&app, Some(&format!("{own}:1"))).await;
    assert_eq!(events.next().await.1["name"], "Bob", "its own number is where it goes on");
}

/// Each stream asked the database four times a second, by a search through all users.
#[tokio::test]
async fn many_streams_are_told_alike_and_whoever_comes_late_misses_none() {
    let (_state, app, _database) = service(60_000).await;
    let begin = Events::of(&app, None).await.1;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Events::of(&app, Some(&begin)).await);
    }
    for round in 0..3 {
        for n in 0..60 {
            create(&app, &format!("{round}-{n}")).await;
        }
        // One that has what was before to catch up with, while more is told.
        streams.push(Events::of(&app, Some(&begin)).await);
    }
    let expected: Vec<_> = (0..3).flat_map(|round| (0..60).map(move |n| format!("{round}-{n}"))).collect();
    for events in &mut streams {
        let mut names = Vec::new();
        for _ in 0..expected.len() {
            names.push(events.next().await.1["name"].as_str().unwrap().to_owned());
        }
        assert_eq!(names, expected);
    }
}

/// The one that looked had gone with its last reader.
#[tokio::test]
async fn streams_are_told_again_after_there_was_none() {
    let (state, app, _database) = service(60_000).await;
    for name in ["Ada", "Bob"] {
        let mut events = Events::of(&app, None).await;
        create(&app, name).await;
        assert_eq!(events.next().await.1["name"], name);
        drop(events);
        let nobody_looks = async {
            while !state.background().tasks().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, nobody_looks).await.expect("the one that looks ends with its last reader");
    }
}
