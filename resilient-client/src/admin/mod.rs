//! What an operator sees and does while a service runs: an axum router with a live page, JSON, a
//! stream of events, and a hand on the circuit breakers (feature `admin`).
//!
//! ```
//! use axum::Router;
//! use resilient_client::Client;
//! use resilient_client::access::Access;
//! use resilient_client::admin::Admin;
//!
//! # fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().build()?;
//! let admin = Admin::new(Access::token("a secret of this process")).client("users", &client);
//! let app: Router = Router::new().nest_service("/admin", admin.router()?);
//! # Ok(())
//! # }
//! # run().unwrap();
//! ```
//!
//! | | |
//! |---|---|
//! | `GET /` | the page: every upstream, live |
//! | `GET /snapshot` | the state of every upstream, calls under way, counts of the last two minutes; `?client=` and `?upstream=` for one of them, with its story |
//! | `GET /snapshot/schema` | the JSON Schema of that |
//! | `GET /events` | the last 1,024 events that concern upstreams; `?since=` a number for those after it |
//! | `GET /stream` | server-sent events: every second the upstreams that changed, and events as they happen; goes on after `Last-Event-ID` |
//! | `GET /circuitbreakers` | every circuit breaker |
//! | `POST /circuitbreakers` | force one open or closed, disable it, let it observe only, enable or reset it; of an upstream that was called or that the configuration names |
//! | `GET /policy` | the policies in force, as a file would say them, their version, and since when |
//! | `POST /policy/check` | whether a policy file would load, and what it would change; nothing is changed |
//!
//! # Who may
//!
//! Whoever may force a breaker open may stop the service, and what is shown tells of its insides.
//! So by default only this host may, by a token, and no page in a browser of this host but ours:
//! see [`Access`]. The page itself holds nothing and is given without the token; it asks for it.
//! The server must hand its router the peer's address, with
//! `into_make_service_with_connect_info::<SocketAddr>()`, or in a way [told](Access::peer).
//!
//! # What it costs
//!
//! An observer of each client's events: some hundred nanoseconds an event, a short lock of its own.
//! Memory is bounded: about 6 kB for each of at most 4,096 names a client (endpoints are names,
//! too), 16,384 calls under way, 1,024 events. Nothing of the calls' path is locked while JSON is
//! written. At most 16 streams are open at a time; one whose reader takes nothing for 10 s is
//! ended.

mod answer;
mod breakers;
mod history;
mod page;
mod policies;
mod rows;
mod snapshot_route;
mod stream;
#[cfg(test)]
mod tests;
mod watched;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use http::Extensions;
use tokio::sync::Semaphore;

pub use watched::Watchable;

use self::history::History;
use self::history::recent::Recent;
use self::watched::Watched;
use crate::access::{Access, Refusal};
use crate::event::{Event, Observer};
use crate::invalid::Invalid;
use crate::sync::Mutex;
use crate::time;

/// How many streams may be open at a time.
const MOST_STREAMS: usize = 16;
/// The longest name of a client, in bytes.
const LONGEST_NAME: usize = 64;

/// An admin router in the making. See the [module docs](self).
#[derive(Clone)]
#[must_use = "it does nothing until its router is served"]
pub struct Admin {
    access: Access,
    clients: Vec<Watched>,
    recent: Arc<Mutex<Recent>>,
}

impl Admin {
    /// An admin router for whom `access` lets in, and no client yet.
    pub fn new(access: Access) -> Self {
        Self { access, clients: Vec::new(), recent: Arc::new(Mutex::new(Recent::default())) }
    }

    /// Shows a client, or a layer, under a name of 1 to 64 bytes. What it does once the router is
    /// made is remembered; what it did before shows in its breakers and counts, and not in its
    /// history.
    pub fn client(mut self, name: impl Into<String>, client: &impl Watchable) -> Self {
        let name: Arc<str> = name.into().into();
        let history = Arc::new(History::new(Arc::clone(&name), Arc::clone(&self.recent)));
        let core = client.shared().0;
        self.clients.push(Watched { name, core, history });
        self
    }

    /// The router, to be nested into an axum app: by `nest_service`, so that the page is at
    /// `/admin/`, too, which `nest` leaves to the app.
    ///
    /// # Errors
    /// When the token is too short or can't stand in a header, or two clients have one name.
    pub fn router<S: Clone + Send + Sync + 'static>(self) -> Result<Router<S>, Invalid> {
        let desk = self.desk()?;
        Ok(Router::new()
            .route("/", get(page::index))
            .route("/page.js", get(page::script))
            .route("/page.css", get(page::style))
            .route("/snapshot", get(snapshot_route::get))
            .route("/snapshot/schema", get(snapshot_route::schema))
            .route("/events", get(stream::events))
            .route("/stream", get(stream::stream))
            .route("/circuitbreakers", get(breakers::list).post(breakers::control))
            .route("/policy", get(policies::get))
            .route("/policy/check", axum::routing::post(policies::check))
            .fallback(answer::no_such_page)
            .method_not_allowed_fallback(answer::no_such_method)
            .with_state(desk))
    }

    /// What the routes share, its clients heard from now on.
    fn desk(self) -> Result<Arc<Desk>, Invalid> {
        let Self { access, clients, recent } = self;
        access.check()?;
        for (index, client) in clients.iter().enumerate() {
            let name = &*client.name;
            if name.is_empty() || name.len() > LONGEST_NAME {
                return Err(
                    Invalid::new("name", format!("must be 1 to {LONGEST_NAME} bytes long")).of("client")
                );
            }
            if clients[..index].iter().any(|earlier| earlier.name == client.name) {
                return Err(Invalid::new("name", "is another client's, too").of(name));
            }
        }
        for Watched { core, history, .. } in &clients {
            // Weak: when the router is gone nobody remembers.
            let history = Arc::downgrade(history);
            let observer = move |upstream: &str, event: &Event| {
                if let Some(history) = history.upgrade() {
                    history.event(upstream, event);
                }
            };
            let observer: Arc<dyn Observer> = Arc::new(observer);
            core.observe(&observer);
        }
        Ok(Arc::new(Desk {
            access: access.peer_by_default(peer),
            clients,
            recent,
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            process: time::unix_millis(),
        }))
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.clients.iter().map(|client| &*client.name).collect::<Vec<_>>();
        f.debug_struct("Admin").field("access", &self.access).field("clients", &names).finish_non_exhaustive()
    }
}

/// What the routes share.
struct Desk {
    access: Access,
    clients: Vec<Watched>,
    recent: Arc<Mutex<Recent>>,
    streams: Arc<Semaphore>,
    /// What tells this process from one before it: when it began.
    process: u64,
}

impl Desk {
    /// The client of this name.
    fn client(&self, name: &str) -> Result<&Watched, Refusal> {
        let names = || self.clients.iter().map(|client| client.name.to_string());
        let found = self.clients.iter().find(|client| *client.name == *name);
        found.ok_or_else(|| answer::unknown("client", names()))
    }
}

/// Who is at the other end, as axum has it, or the fault kit.
fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    #[cfg(feature = "fault")]
    if let Some(connection) = extensions.get::<crate::fault::Connection>() {
        return Some(connection.peer());
    }
    extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
}
