//! What is stored, read once everything is left alone.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    Problem,
    clock::Moment,
    fleet::Fleet,
    journal::{Stored, StoredUser},
    load::Load,
};

const LOOK: Duration = Duration::from_millis(200);

/// Waits until no order is pending; returns whether that came to be.
pub(crate) async fn orders(load: &Load, within: Duration) -> bool {
    let url = format!("{}/orders?status=pending_verification&limit=1", load.order_services[0]);
    eventually(within, async || {
        let page = get(load, &url).await?;
        Ok(page["orders"].as_array().is_some_and(Vec::is_empty))
    })
    .await
}

/// Waits until every event is published and the copy of users equals the table; returns whether
/// that came to be.
pub(crate) async fn events(fleet: &Fleet, within: Duration) -> bool {
    type User = (String, String, String, i64, i64);
    let users = "SELECT id, name, email, created_at, version FROM users ORDER BY id";
    let copies = "SELECT id, name, email, created_at, version FROM user_copies ORDER BY id";
    let [users_at, orders_at] = &fleet.databases;
    eventually(within, async || {
        sqlx::any::install_default_drivers();
        let mut of_users = <sqlx::AnyConnection as sqlx::Connection>::connect(users_at).await?;
        let mut of_orders = <sqlx::AnyConnection as sqlx::Connection>::connect(orders_at).await?;
        let waiting: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE published_at IS NULL")
            .fetch_one(&mut of_users)
            .await?;
        let users: Vec<User> = sqlx::query_as(users).fetch_all(&mut of_users).await?;
        let copies: Vec<User> = sqlx::query_as(copies).fetch_all(&mut of_orders).await?;
        Ok(waiting == 0 && users == copies)
    })
    .await
}

async fn eventually<F: Future<Output = Result<bool, Problem>>>(
    within: Duration,
    ask: impl Fn() -> F,
) -> bool {
    let until = Moment::now() + within;
    loop {
        if matches!(ask().await, Ok(true)) {
            return true;
        }
        if Moment::now() >= until {
            return false;
        }
        sleep(LOOK).await;
    }
}

/// All orders, as one of the two order-services lists them; an error if the other lists others.
pub(crate) async fn all_orders(load: &Load) -> Result<Vec<Stored>, Problem> {
    let [one, other] = [&load.order_services[0], &load.order_services[1]];
    let mine: Vec<Stored> = list(load, one, "orders").await?;
    let others: Vec<Stored> = list(load, other, "orders").await?;
    let ids = |orders: &[Stored]| orders.iter().map(|order| order.id.clone()).collect::<Vec<_>>();
    if ids(&mine) != ids(&others) {
        return Err("the two order-services list different orders".into());
    }
    Ok(mine)
}

pub(crate) async fn all_users(load: &Load) -> Result<Vec<StoredUser>, Problem> {
    list(load, &load.user_services[0], "users").await
}

async fn list<T: DeserializeOwned>(load: &Load, service: &str, what: &str) -> Result<Vec<T>, Problem> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(load, &format!("{service}/{what}?limit=100{after}")).await?;
        all.extend(serde_json::from_value::<Vec<T>>(page[what].clone())?);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(all),
        }
    }
}

async fn get(load: &Load, url: &str) -> Result<Value, Problem> {
    Ok(load.http.get(url).send().await?.error_for_status()?.json().await?)
}
