//! A copy of user-service's users in this service's own database, so that orders are verified while
//! user-service is dead.
//!
//! ```text
//! user-service ── events ──> exchange ──> queue ──> consumer.rs ──┐
//!      └───────── GET /users, when events may be missing ──> resync.rs ──> store.rs: user_copies
//!                                                                              │
//! POST /orders, reconciler ── does the user exist? ── the copy has it: yes ────┘
//!                                      └── it hasn't: ask user-service, as without a copy
//! ```
//!
//! What the copy hasn't got says nothing, since it may lag behind: only user-service itself can say
//! that there is no such user. What it has is believed, since users are never deleted; only a
//! database that is put back or replaced loses some, and the copy with it.

mod consumer;
mod coverage;
mod resync;
mod store;

use std::sync::Arc;

use service_kit::{amqp::Broker, clock::Clock, database::Database, error::Error};

use crate::{Config, Existence, LookupFuture, LookupRequest, UserLookup, resilient_users::UserPages};

pub(crate) use self::{
    consumer::Follower,
    coverage::LastChange,
    store::{CopiedUser, UserCopy},
};

/// What follows user-service's events, and a lookup that looks into the copy before it asks
/// `users`.
pub(crate) async fn open(
    config: &Config,
    url: &str,
    database: &Database,
    clock: &Clock,
    users: Arc<dyn UserLookup>,
) -> Result<(Follower, Arc<dyn UserLookup>), Error> {
    let broker = Broker::new(url, "order-service")?;
    let pages = UserPages::new(config)?;
    let copy = UserCopy::open(database, clock).await;
    let copy = copy.map_err(|error| Error::database("the copy of users".into(), error))?;
    let lookup = Arc::new(CopyFirst { copy: copy.clone(), users });
    let (unfinished, strangers) = (Arc::default(), Arc::default());
    Ok((Follower { broker, copy, pages, unfinished, strangers }, lookup))
}

/// Asks only about users that the copy hasn't got.
struct CopyFirst {
    copy: UserCopy,
    users: Arc<dyn UserLookup>,
}

impl UserLookup for CopyFirst {
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        Box::pin(async move {
            match self.copy.knows(lookup.user_id).await {
                Ok(true) => return Ok(Existence::Exists),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the copy of users can't be read"),
            }
            self.users.lookup(lookup).await
        })
    }
}
