//! Two order-services on one database and three user-services behind one name. On `SQLite`, or on
//! Postgres where `TEST_POSTGRES_URL` names one.

mod services;

use std::collections::BTreeSet;

use serde_json::Value;
use service_kit::testing::{TestDatabase, connect, get, postgres};
use services::{Orders, SOON, Users, eventually};

const NOBODY: &str = "01980000-0000-7000-8000-00000000000a";

struct World {
    users: TestDatabase,
    orders: TestDatabase,
    replicas: Vec<Option<Users>>,
    urls: String,
}

impl World {
    async fn new() -> Self {
        let users = TestDatabase::new().await;
        let mut replicas = Vec::new();
        for _ in 0..3 {
            replicas.push(Some(Users::start(&users, None).await));
        }
        let urls: Vec<_> = replicas.iter().flatten().map(Users::url).collect();
        Self { users, orders: TestDatabase::new().await, replicas, urls: urls.join(",") }
    }

    async fn order_service(&self) -> Orders {
        Orders::start(&self.orders, &self.urls, None).await
    }

    async fn revive(&mut self, replica: usize, port: u16) {
        self.replicas[replica] = Some(Users::start_at(port, &self.users, None).await);
    }
}

fn ports(world: &World) -> Vec<u16> {
    world.replicas.iter().flatten().map(|replica| replica.port).collect()
}

/// Each replica dies and comes back in turn, and no order is turned away or kept waiting; then all
/// are dead.
#[tokio::test]
async fn two_order_services_and_three_user_services_settle_each_order_once() {
    if postgres("two_order_services_and_three_user_services_settle_each_order_once, on Postgres").is_none() {
        println!("on SQLite");
    }
    let mut world = World::new().await;
    let (one, other) = (world.order_service().await, world.order_service().await);
    let ports = ports(&world);
    let mut ids = BTreeSet::new();
    for (replica, port) in ports.iter().enumerate() {
        let ada = world.replicas[replica].as_ref().unwrap().create("Ada").await;
        world.replicas[replica] = None;
        for service in [&one, &other, &one, &other] {
            let answer = service.order(&ada).await;
            assert_eq!(
                (answer.status.as_u16(), answer.text("status")),
                (201, "confirmed".into()),
                "{answer:?}"
            );
            assert!(ids.insert(answer.text("id")));
        }
        one.order(NOBODY).await.assert_problem(422);
        world.revive(replica, *port).await;
    }
    let ada = world.replicas[0].as_ref().unwrap().create("Ada").await;
    world.replicas.clear();
    for service in [&one, &other].repeat(5) {
        for user in [&ada, NOBODY] {
            let answer = service.order(user).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            assert!(ids.insert(answer.text("id")));
        }
    }
    world.replicas.push(Some(Users::start_at(ports[1], &world.users, None).await));
    let count = async |status: &str| {
        let sql = format!("SELECT COUNT(*) FROM orders WHERE status = '{status}'");
        let mut connection = connect(&world.orders.url).await;
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
    };
    eventually("no order is pending", SOON, || async { count("pending_verification").await == 0 }).await;
    assert_eq!((count("confirmed").await, count("rejected").await), (12 + 10, 10));
    assert_eq!(world.orders.count("orders WHERE resolutions > 1").await, 0);
    assert_eq!(world.orders.count("orders WHERE resolutions = 1").await, 20);
    let page: Value = get(&other.app, "/orders?limit=100").await.json();
    let listed =
        page["orders"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned());
    assert_eq!(listed.collect::<BTreeSet<_>>(), ids, "both services list what either took");
}

/// Whatever process takes a request, one database decides.
#[tokio::test]
async fn one_key_sent_to_both_order_services_places_one_order() {
    let world = World::new().await;
    let (one, other) = (world.order_service().await, world.order_service().await);
    let ada = world.replicas[2].as_ref().unwrap().create("Ada").await;
    let order = serde_json::json!({ "user_id": ada, "items": [{ "sku": "tea", "quantity": 1 }] });
    let mut placed = BTreeSet::new();
    for _ in 0..20 {
        let sent = [&one, &other]
            .map(|service| service_kit::testing::post_keyed(&service.app, "/orders", "one key", &order));
        for answer in futures_util::future::join_all(sent).await {
            match answer.status.as_u16() {
                201 => drop(placed.insert(answer.text("id"))),
                // The other one has it in hand.
                409 => {}
                _ => panic!("{answer:?}"),
            }
        }
    }
    assert_eq!((placed.len(), world.orders.count("orders").await), (1, 1));
}
