//! Both example services with `--faults`: broken and mended over HTTP, by whoever has the token and
//! nobody else, while health goes on being answered. No order is judged by what a fault said.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use order_service::ResilientUsers;
use reqwest::{Client, StatusCode};
use resilient_client_tests::{SOON, within};
use serde_json::{Value, json};
use service_kit::faults::{FaultOptions, Faulty};
use service_kit::health::Health;
use tokio::net::TcpListener;

const TOKEN: &str = "open sesame";

/// A service as its `main` starts it: where it serves, and where it answers probes.
struct Running {
    service: String,
    probes: String,
    _folder: tempfile::TempDir,
}

fn faulty() -> Faulty {
    FaultOptions { faults: true, faults_token: Some(TOKEN.into()) }.open().unwrap()
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("data.db").display());
    (folder, url)
}

async fn probes(faulty: &Faulty, health: Health) -> String {
    let (listener, url) = listen().await;
    tokio::spawn(health.serve_beside(faulty.admin(), listener));
    url
}

async fn user_service() -> Running {
    let (folder, database_url) = folder();
    let config = user_service::Config { database_url, ..Default::default() };
    let (faulty, health) = (faulty(), Health::default());
    let state = user_service::AppState::open(&config).await.unwrap().with_health(health.clone());
    let router: Router = faulty.around(user_service::app(state.clone()), &health, &config.limits);
    let (listener, service) = listen().await;
    tokio::spawn(user_service::serve(state, router, listener, std::future::pending()));
    Running { service, probes: probes(&faulty, health).await, _folder: folder }
}

async fn order_service(user_service_url: &str) -> Running {
    let (folder, database_url) = folder();
    let user_service_url = user_service_url.to_owned();
    let config = order_service::Config { database_url, user_service_url, ..Default::default() };
    let users = Arc::new(ResilientUsers::new(&config).unwrap());
    let (faulty, health) = (faulty(), Health::default());
    let state = order_service::AppState::open(&config, users).await.unwrap().with_health(health.clone());
    let router: Router = faulty.around(order_service::app(state.clone()), &health, &config.limits);
    let (listener, service) = listen().await;
    tokio::spawn(order_service::serve(state, router, listener, std::future::pending()));
    Running { service, probes: probes(&faulty, health).await, _folder: folder }
}

impl Running {
    async fn put(&self, rule: Value) {
        let put = Client::new().put(format!("{}/faults", self.probes)).bearer_auth(TOKEN).json(&rule);
        assert_eq!(put.send().await.unwrap().status(), StatusCode::OK, "{rule}");
    }

    async fn mend(&self) -> Value {
        let delete = Client::new().delete(format!("{}/faults", self.probes)).bearer_auth(TOKEN);
        delete.send().await.unwrap().json().await.unwrap()
    }

    async fn is_healthy(&self) -> bool {
        let ask = async |url: &String, path: &str| {
            let answer = Client::new().get(format!("{url}{path}")).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        };
        ask(&self.service, "/healthz").await
            && ask(&self.service, "/readyz").await
            && ask(&self.probes, "/healthz").await
    }
}

async fn post(url: &str, body: Value) -> (u16, Value) {
    let answer = Client::new().post(url).json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_fault_says_of_a_user_his_orders_wait_and_are_confirmed_when_it_is_mended() {
    let users = user_service().await;
    let orders = order_service(&users.service).await;
    let (_, user) =
        post(&format!("{}/users", users.service), json!({ "name": "Ada", "email": "ada@example.com" })).await;
    let order = json!({ "user_id": user["id"], "items": [{ "sku": "tea", "quantity": 1 }] });
    let url = format!("{}/orders", orders.service);
    let mut pending = Vec::new();
    for rule in [
        json!({ "kind": "wrong_page" }),
        json!({ "kind": "wrong_page", "status": 200 }),
        json!({ "kind": "abort", "status": 404 }),
        json!({ "kind": "garbage" }),
        json!({ "kind": "reset_after_head" }),
        json!({ "kind": "hang" }),
    ] {
        users.put(rule.clone()).await;
        assert!(users.is_healthy().await, "{rule}");
        let (status, answer) = within(SOON, post(&url, order.clone())).await;
        assert_eq!((status, &answer["status"]), (202, &json!("pending_verification")), "{rule}");
        pending.push(answer["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(users.mend().await["rules"], json!([]));
    within(SOON * 2, async {
        for id in pending {
            let settled = async || {
                let order: Value = reqwest::get(format!("{url}/{id}")).await.unwrap().json().await.unwrap();
                assert_ne!(order["status"], "rejected", "{order}");
                order["status"] == "confirmed"
            };
            while !settled().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_whoever_has_the_token_breaks_a_service_and_only_at_the_port_for_probes() {
    let orders = order_service("http://127.0.0.1:1").await;
    let (client, admin) = (Client::new(), format!("{}/faults", orders.probes));
    let hang = || client.put(&admin).json(&json!({ "kind": "hang" }));
    let refused = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(refused(hang()).await, 401);
    assert_eq!(refused(hang().bearer_auth("open sesamf")).await, 401);
    assert_eq!(refused(hang().bearer_auth(TOKEN).header("origin", "http://evil.example")).await, 403);
    assert_eq!(refused(hang().bearer_auth(TOKEN).header("host", "evil.example")).await, 403);
    let form = client.put(&admin).bearer_auth(TOKEN).form(&[("kind", "hang")]);
    assert_eq!(refused(form).await, 415);
    let at_the_service = client.get(format!("{}/faults", orders.service)).bearer_auth(TOKEN);
    assert_eq!(refused(at_the_service).await, 404);
    let state: Value = client.get(&admin).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
    assert_eq!(state["rules"], json!([]));

    // It answers while the service hangs.
    assert_eq!(refused(hang().bearer_auth(TOKEN)).await, 200);
    let url = format!("{}/orders", orders.service);
    let stuck = tokio::spawn(client.get(&url).send());
    within(SOON, async {
        loop {
            let state: Value =
                client.get(&admin).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
            if state["active"] == 1 {
                break;
            }
        }
    })
    .await;
    assert!(orders.is_healthy().await);
    orders.mend().await;
    assert_eq!(refused(client.get(&url)).await, 200);
    stuck.abort();
}

#[tokio::test]
async fn without_the_flag_there_is_no_route_and_no_layer() {
    let off = FaultOptions::default().open().unwrap();
    let health = Health::default();
    let url = probes(&off, health).await;
    assert_eq!(reqwest::get(format!("{url}/faults")).await.unwrap().status(), 404);
    assert_eq!(reqwest::get(format!("{url}/healthz")).await.unwrap().status(), 200);
}
