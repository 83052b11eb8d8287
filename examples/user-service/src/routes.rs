//! The routes and their handlers.

use std::time::Duration;

use axum::{Json as JsonBody, Router, extract::State, http::StatusCode, response::Response, routing::get};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Clock, Config, Error, User,
    changes::Changes,
    events,
    outbox::{Kind, Outbox},
    store,
};
use service_kit::{
    database::Database,
    extract::{Id, Json, Query},
    health::Health,
    http,
    idempotency::{Answer, Fingerprint, IdempotencyKey, Keys, Ticket},
    limits::Limits,
    meters::Meters,
    openapi,
    page::Page,
    problem::Problem,
    server::Background,
};

const MAX_NAME_CHARS: usize = 200;
const MAX_EMAIL_CHARS: usize = 254;

/// What the handlers share. A clone is the same service.
#[derive(Clone, Debug)]
pub struct AppState {
    pub(crate) database: Database,
    pub(crate) keys: Keys,
    pub(crate) background: Background,
    pub(crate) health: Health,
    pub(crate) meters: Meters,
    pub(crate) limits: Limits,
    pub(crate) outbox: Outbox,
    pub(crate) changes: Changes,
    /// Between signs of life on a stream of events.
    pub(crate) heartbeat: Duration,
    #[cfg(feature = "amqp")]
    pub(crate) broker: Option<service_kit::amqp::Broker>,
    pub(crate) clock: Clock,
}

impl AppState {
    /// Opens the database and brings its schema up to date.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        Self::open_at(config, Clock::system()).await
    }

    /// [`AppState::open`] by another clock.
    pub async fn open_at(config: &Config, clock: Clock) -> Result<Self, Error> {
        let limits = config.limits.clone();
        limits.validate()?;
        config.check_amqp()?;
        #[cfg(feature = "amqp")]
        let broker = config.amqp_url.as_deref();
        #[cfg(feature = "amqp")]
        let broker = broker.map(|url| service_kit::amqp::Broker::new(url, "user-service")).transpose()?;
        let database = Database::open(config.database(), store::MIGRATIONS, &clock).await?;
        let (background, health) = (Background::default(), Health::default());
        health.started(&database);
        let keys = Keys::new(database.clone(), clock.clone(), background.tasks().clone());
        let outbox = Outbox::open(&database, &clock, config.amqp_url.is_some()).await;
        let outbox = outbox.map_err(|error| Error::database("the outbox".into(), error))?;
        let changes = Changes::new(database.clone(), background.clone());
        Ok(Self {
            database,
            changes,
            keys,
            background,
            health,
            meters: Meters::default(),
            limits,
            outbox,
            heartbeat: Duration::from_millis(config.events_heartbeat_ms),
            #[cfg(feature = "amqp")]
            broker,
            clock,
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
}

/// The whole service as a router.
pub fn app(state: AppState) -> Router {
    let (limits, health, meters) = (state.limits.clone(), state.health.routes(), state.meters.clone());
    let routes = Router::new()
        .route("/users", get(list_users).post(create_user))
        .route("/users/events", get(events::follow))
        .route("/users/{id}", get(get_user).put(change_user))
        .with_state(state)
        .merge(openapi::route(crate::openapi::openapi()))
        .merge(health);
    meters.around(http::wrap(routes, &limits))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListUsers {
    limit: Option<i64>,
    after: Option<String>,
}

async fn list_users(
    State(state): State<AppState>,
    Query(query): Query<ListUsers>,
) -> Result<JsonBody<Value>, Problem> {
    let page = Page::new(query.limit, query.after.as_deref())?;
    // Before the rows are read: whatever has a number up to this one is in them.
    let (last_change, database, mark) = store::last_change(&state.database).await?;
    let mut users = store::list(&state.database, &page).await?;
    let next = page.cut(&mut users, |listed| &listed.user.id);
    Ok(JsonBody(json!({
        "users": users,
        "next": next,
        "last_change": last_change,
        "database": database,
        "mark": mark,
    })))
}

async fn get_user(State(state): State<AppState>, Id(id): Id) -> Result<JsonBody<User>, Problem> {
    let user = store::find(&state.database, &id).await?;
    user.map(JsonBody).ok_or_else(|| no_such_user(&id))
}

/// Clients tell this 404 from one of a proxy, or of a route that isn't there, by its type and by
/// the id.
fn no_such_user(id: &str) -> Problem {
    Problem::not_found("There is no user with this id.")
        .kind("urn:problem:user-not-found", "User not found")
        .instance(format!("/users/{id}"))
}

/// Sending it twice changes nothing more, so it needs no `Idempotency-Key`.
async fn change_user(
    State(state): State<AppState>,
    Id(id): Id,
    Json(new): Json<NewUser>,
) -> Result<JsonBody<User>, Problem> {
    let NewUser { name, email } = new.validated()?;
    let mut transaction = state.database.begin().await?;
    let changed = store::change(&mut transaction, &id, &name, &email).await?;
    let Some((number, user)) = changed else { return Err(no_such_user(&id)) };
    state.outbox.add(&mut transaction, number, Kind::Changed, &user).await?;
    transaction.commit().await?;
    state.outbox.committed();
    Ok(JsonBody(user))
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    // A missing field is as empty as an empty one, and `validated` names it.
    #[serde(default)]
    name: String,
    #[serde(default)]
    email: String,
}

async fn create_user(
    State(state): State<AppState>,
    key: IdempotencyKey,
    Json(new): Json<NewUser>,
) -> Result<Response, Problem> {
    let new = new.validated()?;
    let same = Fingerprint::of(&new)?;
    let keys = state.keys.clone();
    let work = async move |ticket: Ticket| {
        let NewUser { name, email } = new;
        let user = User { id: state.clock.new_id(), name, email, created_at_ms: state.clock.now_ms() };
        let answer = Answer::created(StatusCode::CREATED, format!("/users/{}", user.id), &user)?;
        let mut transaction = state.database.begin().await?;
        ticket.record(&mut transaction, &answer).await?;
        let number = store::insert(&mut transaction, &user).await?;
        state.outbox.add(&mut transaction, number, Kind::Created, &user).await?;
        transaction.commit().await?;
        state.outbox.committed();
        Ok(answer)
    };
    keys.once("POST /users", key, same, work).await
}

impl NewUser {
    fn validated(self) -> Result<Self, Problem> {
        let name = self.name.trim().to_owned();
        let email = self.email.trim().to_owned();
        let mut problem = Problem::invalid();
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            let rule = format!("must be 1 to {MAX_NAME_CHARS} characters, none of them control characters");
            problem = problem.field("name", rule);
        }
        if !looks_like_email(&email) {
            problem = problem.field("email", "must be an email address, such as ada@example.com");
        }
        if problem.has_fields() { Err(problem) } else { Ok(Self { name, email }) }
    }
}

/// Only a letter proves an address; this catches what can't be one.
fn looks_like_email(email: &str) -> bool {
    let Some((local, domain)) = email.rsplit_once('@') else { return false };
    email.chars().count() <= MAX_EMAIL_CHARS
        && !local.is_empty()
        && !local.contains('@')
        && domain.split('.').all(|label| !label.is_empty())
        && !email.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::looks_like_email;

    #[test]
    fn an_address_needs_one_at_sign_and_a_domain() {
        for good in ["ada@example.com", "a@b", "ada+tag@mail.example.org", "ädä@exämple.de"] {
            assert!(looks_like_email(good), "{good}");
        }
        for bad in ["", "ada", "@", "@example.com", "ada@", "ada@example..com", "a@b@c", "a b@c.d", "a@b.c\0"]
        {
            assert!(!looks_like_email(bad), "{bad:?}");
        }
    }
}
