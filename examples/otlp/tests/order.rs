//! Both services as processes, a fault after the other, and their traces in one file: it tells
//! each order's story, and nothing else is asked.

mod processes;

use std::path::Path;
use std::time::Duration;

use processes::{Service, eventually};
use serde_json::{Value, json};
use tokio::process::Command;

/// With this seed the first question for a user is refused, and the next two aren't.
const FAULTS: &str = r#"{ "seed": 7, "rules": [
    { "kind": "abort", "status": 503, "method": "GET", "path": "/users/{id}", "percentage": 50 },
    { "kind": "delay", "delay": "120ms", "method": "GET", "path": "/users/{id}" }
] }"#;

/// The arguments that the page starts a service with, by its one line for it.
fn documented<'a>(page: &'a str, service: &str) -> Vec<&'a str> {
    let command = format!("cargo run -p {service} -- ");
    let lines: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(command.as_str())).collect();
    let [arguments] = lines[..] else { panic!("{service}: {lines:?}") };
    arguments.split_whitespace().collect()
}

/// The file's spans, each with its service.
struct Traces(Vec<(String, Value)>);

impl Traces {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let spans = lines.flat_map(|line| {
            let resources = line["resourceSpans"].as_array().expect("OTLP").clone();
            resources.into_iter().flat_map(|resource| {
                let service = attribute(&resource["resource"], "service.name").expect("a service's name");
                let scopes = resource["scopeSpans"].as_array().unwrap().clone();
                let spans = scopes.into_iter().flat_map(|scope| scope["spans"].as_array().unwrap().clone());
                spans.map(move |span| (service.clone(), span)).collect::<Vec<_>>()
            })
        });
        Self(spans.collect())
    }

    /// The trace of the request that stored this order.
    fn of_order(&self, order: &str) -> Vec<&(String, Value)> {
        let stored = |span: &Value| {
            let mut events = span["events"].as_array().into_iter().flatten();
            events.any(|event| {
                event["name"] == "order stored" && attribute(event, "order.id").as_deref() == Some(order)
            })
        };
        let (_, found) = self.0.iter().find(|(_, span)| stored(span)).expect("the order's request");
        self.0.iter().filter(|(_, span)| span["traceId"] == found["traceId"]).collect()
    }

    /// In a trace of its own: the order's request was answered long before.
    fn tell_how_it_was_settled(&self, order: &str) {
        let settled = |span: &Value| {
            span["name"] == "reconcile"
                && attribute(span, "order.id").as_deref() == Some(order)
                && attribute(span, "order.status").as_deref() == Some("confirmed")
        };
        let (_, reconcile) = self.0.iter().find(|(_, span)| settled(span)).expect("how it was settled");
        let trace: Vec<_> = self.0.iter().filter(|(_, it)| it["traceId"] == reconcile["traceId"]).collect();
        let calls = below(&trace, reconcile);
        assert_eq!(attribute(&calls[0].1, "http.response.status_code").as_deref(), Some("200"));
    }
}

/// An attribute as text.
fn attribute(of: &Value, key: &str) -> Option<String> {
    let value = &of["attributes"].as_array()?.iter().find(|it| it["key"] == key)?["value"];
    // A 64-bit number is text in JSON, as Protobuf has it.
    value["stringValue"].as_str().or(value["intValue"].as_str()).map(str::to_owned)
}

/// The spans below one, in the order of time.
fn below<'a>(trace: &[&'a (String, Value)], parent: &Value) -> Vec<&'a (String, Value)> {
    let mut children: Vec<_> =
        trace.iter().filter(|(_, span)| span["parentSpanId"] == parent["spanId"]).copied().collect();
    children.sort_by_key(|(_, span)| nanos(span, "startTimeUnixNano"));
    children
}

fn nanos(span: &Value, key: &str) -> u64 {
    span[key].as_str().expect("nanoseconds as text").parse().unwrap()
}

fn took(span: &Value) -> Duration {
    Duration::from_nanos(nanos(span, "endTimeUnixNano") - nanos(span, "startTimeUnixNano"))
}

/// The first event of a span whose name begins so.
fn event<'a>(span: &'a Value, name: &str) -> Option<&'a Value> {
    span["events"]
        .as_array()?
        .iter()
        .find(|event| event["name"].as_str().is_some_and(|it| it.starts_with(name)))
}

/// The request's span, and its call's, with the attempts.
fn story<'a>(trace: &[&'a (String, Value)]) -> (&'a Value, &'a Value, Vec<&'a (String, Value)>) {
    let roots: Vec<_> = trace.iter().filter(|(_, span)| span["parentSpanId"] == "").collect();
    let [(service, request)] = roots[..] else { panic!("one root: {trace:#?}") };
    assert_eq!((service.as_str(), &request["name"]), ("order-service", &json!("POST /orders")));
    let calls = below(trace, request);
    let [(_, call)] = calls[..] else { panic!("one call: {trace:#?}") };
    assert_eq!(call["name"], "resilient_client.call");
    (request, call, below(trace, call))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_alone_tells_the_story_of_each_order() {
    let folder = tempfile::tempdir().unwrap();
    // Both run in this folder, where the page's commands have them write.
    let file = folder.path().join("traces.jsonl");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/traces.md");
    let page = std::fs::read_to_string(page).unwrap();
    let token = "break-it-yourself";
    let args = [&["--faults", "--faults-token", token][..], &documented(&page, "user-service")].concat();
    let users =
        Service::start("user-service", folder.path(), &args, &[("RESILIENT_CLIENT_FAULTS", FAULTS)]).await;
    let admin = ["--admin", "--admin-token", token, "--user-service-url", &users.url];
    let args = [&admin[..], &documented(&page, "order-service")].concat();
    let orders = Service::start("order-service", folder.path(), &args, &[]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |url: String, body: Value| {
        let answer = client.post(url).bearer_auth(token).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap_or_default())
    };
    let (_, ada) =
        post(format!("{}/users", users.url), json!({ "name": "Ada", "email": "ada@example.com" })).await;
    let order = async || {
        let order = json!({ "user_id": ada["id"], "items": [{ "sku": "tea", "quantity": 1 }] });
        let (status, order) = post(format!("{}/orders", orders.url), order).await;
        (status, order["id"].as_str().unwrap_or_default().to_owned())
    };

    // Refused once, then slow.
    let retried = order().await;
    assert_eq!(retried.0, 201);
    // Slower than anybody waits.
    let slow = json!({ "kind": "delay", "delay": "2s", "path": "/users/{id}" });
    let faults = format!("{}/faults", users.probes);
    let put = client.put(&faults).bearer_auth(token).json(&slow).send().await.unwrap();
    assert_eq!(put.status(), 200);
    let timed_out = order().await;
    assert_eq!(timed_out.0, 202);
    client.delete(&faults).bearer_auth(token).send().await.unwrap();
    eventually(async || {
        let order = client.get(format!("{}/orders/{}", orders.url, timed_out.1)).send().await.unwrap();
        order.json::<Value>().await.unwrap()["status"] == "confirmed"
    })
    .await;
    // And a breaker that somebody holds open.
    let force = json!({ "client": "user-service", "upstream": users.url, "update_state": "force_open" });
    let (forced, _) = post(format!("{}/admin/circuitbreakers", orders.probes), force).await;
    assert_eq!(forced, 200);
    let refused = order().await;
    assert_eq!(refused.0, 202);
    // What waits to be written is as they end.
    orders.stop().await;
    users.stop().await;
    let traces = Traces::read(&file);
    tells_of_a_retry(&traces.of_order(&retried.1));
    tells_of_time_that_ran_out(&traces.of_order(&timed_out.1));
    tells_of_a_refusal(&traces.of_order(&refused.1));
    traces.tell_how_it_was_settled(&timed_out.1);
    // And for people.
    let tell = async |order: &str| {
        let story = Command::new(env!("CARGO_BIN_EXE_otlp")).arg("story").arg(&file).arg(order).output();
        let story = story.await.unwrap();
        assert!(story.status.success(), "{story:?}");
        String::from_utf8(story.stdout).unwrap()
    };
    let story = tell(&retried.1).await;
    for words in [
        "order-service  POST /orders (status 201): ",
        "resilient_client.call (status 200, 2 attempts): ",
        "GET (first, status 503): ",
        "- retry scheduled number=2 ",
        "GET (retry, resend 1, status 200): ",
        "user-service  GET /users/{id} (status 200): ",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    let story = tell(&timed_out.1).await;
    assert!(story.contains("reconcile (confirmed): "), "{story}");
}

/// Refused by user-service, then answered by it, slowly.
fn tells_of_a_retry(trace: &[&(String, Value)]) {
    let (request, call, attempts) = story(trace);
    assert_eq!(attribute(request, "http.response.status_code").as_deref(), Some("201"));
    assert_eq!(attribute(call, "resilient_client.call.attempts").as_deref(), Some("2"));
    let [(_, first), (_, second)] = attempts[..] else { panic!("two attempts: {attempts:#?}") };
    assert_eq!(attribute(first, "error.type").as_deref(), Some("503"));
    let why = event(call, "retry scheduled").expect("why there was another");
    assert_eq!(attribute(why, "after").as_deref(), Some("status"), "{why}");
    assert_eq!(attribute(second, "resilient_client.trigger").as_deref(), Some("retry"));
    assert_eq!(attribute(second, "http.request.resend_count").as_deref(), Some("1"));
    assert_eq!(attribute(second, "http.response.status_code").as_deref(), Some("200"));
    assert!(took(second) >= Duration::from_millis(120), "it was slow: {:?}", took(second));
    // The other service's part. The refusal was in front of it.
    assert!(below(trace, first).is_empty());
    let served = below(trace, second);
    let [(service, served)] = served[..] else { panic!("one request: {trace:#?}") };
    assert_eq!((service.as_str(), &served["name"]), ("user-service", &json!("GET /users/{id}")));
}

/// Each attempt took what it might, and then the call had no time left.
fn tells_of_time_that_ran_out(trace: &[&(String, Value)]) {
    let (request, call, attempts) = story(trace);
    assert_eq!(attribute(request, "http.response.status_code").as_deref(), Some("202"));
    // The first of these if the call's end cut the last attempt off; else nothing more had time.
    let error = attribute(call, "error.type").expect("why it failed");
    assert!(["deadline", "timeout"].contains(&&*error), "{error}");
    assert!(took(call) >= Duration::from_millis(600), "{:?}", took(call));
    assert!(attempts.len() > 1, "{attempts:#?}");
    let (_, first) = attempts[0];
    assert_eq!(attribute(first, "error.type").as_deref(), Some("timeout"));
    assert!(took(first) >= Duration::from_millis(300), "{:?}", took(first));
    let why = event(call, "retry scheduled").expect("why there was another");
    assert_eq!(attribute(why, "after").as_deref(), Some("timeout"), "{why}");
}

/// Nothing was sent, and the call says why.
fn tells_of_a_refusal(trace: &[&(String, Value)]) {
    let (request, call, attempts) = story(trace);
    assert_eq!(attribute(request, "http.response.status_code").as_deref(), Some("202"));
    assert_eq!(attribute(call, "error.type").as_deref(), Some("circuit_open"));
    assert_eq!(attribute(call, "resilient_client.call.attempts").as_deref(), Some("0"));
    assert!(attempts.is_empty(), "{attempts:#?}");
    let why = event(call, "rejected").expect("why");
    assert_eq!(attribute(why, "reason").as_deref(), Some("circuit_open"), "{why}");
}
