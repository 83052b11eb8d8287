//! Changes of users, looked for once a process and handed out to every stream.
//!
//! While anybody follows, one task asks the database for its last number and, when that has grown,
//! for the users behind the last one: so what streams cost the database doesn't grow with how many
//! there are. It ends with the last of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use service_kit::{database::Database, server::Background};
use tokio::{
    sync::broadcast::{Receiver, Sender, channel},
    time::sleep,
};

use crate::store::{self, Listed};

/// How often changes are looked for; one number of the database tells whether there is any.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most changes read at a time.
pub(crate) const BATCH: i64 = 100;
/// How many batches a slow stream may be behind before it reads the database itself.
const KEPT: usize = 64;

/// Users whose last changes have numbers above `after`, up to `to`: every one, in their order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) after: i64,
    pub(crate) to: i64,
    pub(crate) users: Vec<Listed>,
}

/// The one who looks. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    database: Database,
    background: Background,
    /// Where it tells, while it is at it.
    to: Arc<Mutex<Option<Sender<Arc<Batch>>>>>,
}

impl Changes {
    pub(crate) fn new(database: Database, background: Background) -> Self {
        Self { database, background, to: Arc::default() }
    }

    /// What changes from now on. It ends when the database fails, or the service is told to stop.
    pub(crate) fn follow(&self) -> Receiver<Arc<Batch>> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = &*to {
            return to.subscribe();
        }
        let (sender, receiver) = channel(KEPT);
        *to = Some(sender.clone());
        let this = self.clone();
        self.background.spawn("changes", move |stop| async move {
            if let Some(Err(error)) = stop.run_until_cancelled(this.look(&sender)).await {
                tracing::warn!(%error, "streams of events end");
                this.end();
            }
        });
        receiver
    }

    /// Tells of changes until nobody follows.
    async fn look(&self, sender: &Sender<Arc<Batch>>) -> Result<(), sqlx::Error> {
        let mut after = store::last_change(&self.database).await?.0;
        // Whoever has asked for the number before this one learns that there may be more.
        let _ = sender.send(Arc::new(Batch { after, to: after, users: Vec::new() }));
        loop {
            if self.is_over(sender) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
            let last = store::last_change(&self.database).await?.0;
            while after < last {
                let users = store::changed_since(&self.database, after, BATCH).await?;
                let read = users.last().map_or(last, |user| user.version);
                // With fewer than there is room for, there is none up to the last.
                let to = if i64::try_from(users.len()).is_ok_and(|count| count < BATCH) {
                    read.max(last)
                } else {
                    read
                };
                // Nobody may be left; that is seen above.
                let _ = sender.send(Arc::new(Batch { after, to, users }));
                after = to;
            }
        }
    }

    /// Whether nobody follows. Then whoever comes next begins anew.
    fn is_over(&self, sender: &Sender<Arc<Batch>>) -> bool {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let over = sender.receiver_count() == 0;
        if over {
            *to = None;
        }
        over
    }

    fn end(&self) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
