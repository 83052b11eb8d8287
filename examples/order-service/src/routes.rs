//! The routes and their handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json as JsonBody, Router, extract::State, http::StatusCode, response::Response, routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    Clock, Config, Error, Existence, Item, LookupRequest, Order, OrderStatus, UserLookup,
    caller_deadline::CallerDeadline, reconciler::Reconciler, store,
};
use service_kit::{
    database::Database,
    extract::{Id, Json, Query, canonical_id},
    health::Health,
    http,
    idempotency::{Answer, Fingerprint, IdempotencyKey, Keys, Ticket},
    limits::Limits,
    meters::Meters,
    openapi,
    page::Page,
    problem::Problem,
    request_id::{self, RequestId},
    server::Background,
};

const MAX_ITEMS: usize = 100;
const MAX_SKU_LEN: usize = 64;
const MAX_QUANTITY: i64 = 10_000;

/// What the handlers and the reconciler share. A clone is the same service.
#[derive(Clone)]
pub struct AppState {
    pub(crate) keys: Keys,
    pub(crate) background: Background,
    pub(crate) health: Health,
    pub(crate) meters: Meters,
    pub(crate) limits: Limits,
    database: Database,
    users: Arc<dyn UserLookup>,
    /// Told of every new pending order.
    wake: Arc<Notify>,
    clock: Clock,
    lookup_limit: Duration,
    #[cfg(feature = "amqp")]
    pub(crate) follower: Option<crate::user_copy::Follower>,
}

impl AppState {
    /// Opens the database and brings its schema up to date.
    pub async fn open(config: &Config, users: Arc<dyn UserLookup>) -> Result<Self, Error> {
        Self::open_at(config, users, Clock::system()).await
    }

    /// [`AppState::open`] by another clock.
    pub async fn open_at(config: &Config, users: Arc<dyn UserLookup>, clock: Clock) -> Result<Self, Error> {
        config.validate()?;
        let limits = config.limits.clone();
        let database = Database::open(config.database(), store::MIGRATIONS, &clock).await?;
        let (background, health) = (Background::default(), Health::default());
        health.started(&database);
        let keys = Keys::new(database.clone(), clock.clone(), background.tasks().clone());
        #[cfg(feature = "amqp")]
        let (follower, users) = match &config.amqp_url {
            None => (None, users),
            Some(url) => {
                let (follower, users) = crate::user_copy::open(config, url, &database, &clock, users).await?;
                (Some(follower), users)
            }
        };
        Ok(Self {
            keys,
            background,
            health,
            meters: Meters::default(),
            limits,
            database,
            users,
            wake: Arc::default(),
            clock,
            lookup_limit: config.lookup_limit(),
            #[cfg(feature = "amqp")]
            follower,
        })
    }

    /// The same, reporting to `health`.
    #[must_use]
    pub fn with_health(mut self, health: Health) -> Self {
        health.started(&self.database);
        self.health = health;
        self
    }

    /// The same, counting there.
    #[must_use]
    pub fn with_meters(mut self, meters: Meters) -> Self {
        self.meters = meters;
        self
    }

    /// The work that goes on behind the requests.
    pub fn background(&self) -> &Background {
        &self.background
    }

    /// The idempotency keys, to sweep them at will.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A reconciler for this service's orders. [`crate::serve`] runs one.
    pub fn reconciler(&self) -> Reconciler {
        Reconciler {
            database: self.database.clone(),
            users: self.users.clone(),
            clock: self.clock.clone(),
            lookup_limit: self.lookup_limit,
            wake: self.wake.clone(),
        }
    }
}

/// The whole service as a router.
pub fn app(state: AppState) -> Router {
    let (limits, health, meters) = (state.limits.clone(), state.health.routes(), state.meters.clone());
    let routes = Router::new()
        .route("/orders", get(list_orders).post(create_order))
        .route("/orders/{id}", get(get_order))
        .with_state(state)
        .merge(openapi::route(crate::openapi::openapi()))
        .merge(health);
    meters.around(http::wrap(routes, &limits))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListOrders {
    limit: Option<i64>,
    after: Option<String>,
    status: Option<String>,
}

async fn list_orders(
    State(state): State<AppState>,
    Query(query): Query<ListOrders>,
) -> Result<JsonBody<Value>, Problem> {
    let page = Page::new(query.limit, query.after.as_deref())?;
    let status = query.status.map(|name| name.parse()).transpose();
    let status =
        status.map_err(|unknown: store::UnknownStatus| Problem::bad_request(format!("{unknown}.")))?;
    let mut orders = store::list(&state.database, &page, status).await?;
    let next = page.cut(&mut orders, |order| &order.id);
    Ok(JsonBody(json!({ "orders": orders, "next": next })))
}

async fn get_order(State(state): State<AppState>, Id(id): Id) -> Result<JsonBody<Order>, Problem> {
    let order = store::find(&state.database, &id).await?;
    order.map(JsonBody).ok_or_else(|| Problem::not_found("There is no order with this id."))
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    // A missing field is as empty as an empty one, and `validated` names it.
    #[serde(default)]
    user_id: String,
    #[serde(default)]
    items: Vec<Item>,
}

async fn create_order(
    State(state): State<AppState>,
    Extension(request_id): Extension<RequestId>,
    key: IdempotencyKey,
    Json(new): Json<NewOrder>,
) -> Result<Response, Problem> {
    let new = new.validated()?;
    let same = Fingerprint::of(&new)?;
    let keys = state.keys.clone();
    let caller = CallerDeadline::of_this_request();
    keys.once("POST /orders", key, same, async move |ticket| {
        state.place(new, &request_id, caller, &ticket).await
    })
    .await
}

impl AppState {
    async fn place(
        &self,
        new: NewOrder,
        request_id: &RequestId,
        caller: CallerDeadline,
        ticket: &Ticket,
    ) -> Result<Answer, Problem> {
        let NewOrder { user_id, items } = new;
        // No database connection is held while another service is asked.
        let lookup = LookupRequest { user_id: &user_id, request_id: request_id::text(request_id) };
        let (status, answer) = match caller.ask(&*self.users, lookup, self.lookup_limit).await {
            Ok(Existence::Exists) => (OrderStatus::Confirmed, StatusCode::CREATED),
            Ok(Existence::Unknown) => return Err(unknown_user()),
            Err(unavailable) => {
                tracing::info!(%unavailable, "user-service can't be asked: the order will be pending");
                (OrderStatus::PendingVerification, StatusCode::ACCEPTED)
            }
        };
        let order = Order {
            id: self.clock.new_id(),
            user_id,
            items,
            status,
            created_at_ms: self.clock.now_ms(),
            resolved_at_ms: None,
            resolutions: 0,
        };
        let answer = Answer::created(answer, format!("/orders/{}", order.id), &order)?;
        let mut transaction = self.database.begin().await?;
        ticket.record(&mut transaction, &answer).await?;
        store::insert(&mut transaction, &order).await?;
        transaction.commit().await?;
        // Where a trace can be found by it.
        tracing::info!(order.id, order.status = status.as_str(), "order stored");
        if status == OrderStatus::PendingVerification {
            self.wake.notify_one();
        }
        Ok(answer)
    }
}

fn unknown_user() -> Problem {
    Problem::invalid()
        .kind("urn:problem:unknown-user", "Unknown user")
        .field("user_id", "no user has this id")
}

impl NewOrder {
    fn validated(mut self) -> Result<Self, Problem> {
        let mut problem = Problem::invalid();
        match canonical_id(&self.user_id) {
            Some(id) => self.user_id = id,
            None => problem = problem.field("user_id", "must be a user's id, a UUID"),
        }
        if !(1..=MAX_ITEMS).contains(&self.items.len()) {
            problem = problem.field("items", format!("must hold 1 to {MAX_ITEMS} items"));
        }
        for (index, item) in self.items.iter().enumerate().take(MAX_ITEMS) {
            if !is_sku(&item.sku) {
                let rule = format!("must be 1 to {MAX_SKU_LEN} letters, digits, '-', '_' or '.'");
                problem = problem.field(format!("items[{index}].sku"), rule);
            }
            if !(1..=MAX_QUANTITY).contains(&item.quantity) {
                let rule = format!("must be from 1 to {MAX_QUANTITY}");
                problem = problem.field(format!("items[{index}].quantity"), rule);
            }
        }
        if problem.has_fields() { Err(problem) } else { Ok(self) }
    }
}

fn is_sku(sku: &str) -> bool {
    (1..=MAX_SKU_LEN).contains(&sku.len())
        && sku.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
