//! The whole list over HTTP, when the copy is new or events may be missing.

use std::{
    convert::Infallible,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use service_kit::amqp::Ended;
use tokio::time::sleep;

use super::{
    Follower,
    consumer::Following,
    coverage::{Coverage, Known, LastChange},
};

/// How often it is looked whether the copy is complete, and the wait before another try.
const LOOK: Duration = Duration::from_secs(1);
/// How many looks apart user-service is asked for its last change; doubled, up to the longest, each
/// time that the events have not come meanwhile.
const ASK_EVERY: u32 = 15;
const ASK_AT_LEAST_EVERY: u32 = 16 * ASK_EVERY;

/// How often one page of a list is asked for, before the list is begun anew.
const MOST_TRIES: u32 = 5;

/// A list on its way. It outlives the session, so that a broker that comes and goes doesn't keep a
/// long list from its end: the queue outlives it, too, and holds what the list doesn't.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// Tells lists apart: one that was begun later has a higher one.
    number: i64,
    epoch: i64,
    after: Option<String>,
    /// The last change when the first page was read.
    last: Option<LastChange>,
    users: usize,
    /// Of the next page.
    tries: u32,
}

impl Listing {
    fn of(number: i64, epoch: i64) -> Self {
        Self { number, epoch, after: None, last: None, users: 0, tries: 0 }
    }
}

/// When to ask user-service for its last change, to find out about events that are lost without any
/// that came after them.
#[derive(Debug)]
struct Audit {
    every: u32,
    looks: u32,
    /// What the copy should hold by the next time.
    expected: Option<i64>,
}

impl Audit {
    /// Whether the copy lacks what it should hold by now, and whether to ask anew.
    fn look(&mut self, coverage: Coverage) -> (bool, bool) {
        self.looks += 1;
        if self.looks < self.every {
            return (false, false);
        }
        self.looks = 0;
        let is_missing = self.expected.take().map(|expected| coverage.last < expected);
        self.every = match is_missing {
            Some(true) => (self.every * 2).min(ASK_AT_LEAST_EVERY),
            Some(false) => ASK_EVERY,
            // Nothing was asked the last time.
            None => self.every,
        };
        (is_missing == Some(true), is_missing != Some(true))
    }
}

impl Follower {
    /// Asks user-service which database it has, when the copy doesn't know: until then no event is
    /// anybody's.
    pub(super) async fn introduce(&self) -> Result<(), Ended> {
        let mut is_logged = false;
        while self.copy.known().await?.database.is_none() {
            match self.pages.page(None, 1).await {
                Ok(page) => self.copy.forget(&page.last.database).await?,
                Err(why) => {
                    if !is_logged {
                        tracing::warn!(%why, "the copy of users can't be begun before user-service answers");
                    }
                    is_logged = true;
                    sleep(LOOK).await;
                }
            }
        }
        Ok(())
    }

    /// Completes the copy whenever something may be missing, for as long as the session lasts: the
    /// queue is there then and holds whatever the list doesn't.
    pub(super) async fn keep_complete(&self, following: &Following<'_>) -> Infallible {
        // The first look asks: nobody knows what has happened since the last session.
        let mut audit = Audit { every: ASK_EVERY, looks: ASK_EVERY - 1, expected: None };
        let (mut is_logged, mut patience) = (false, 0_u32);
        loop {
            // They may be user-service's own, whose database was replaced, or come from somewhere
            // else all the time.
            patience = patience.saturating_sub(1);
            let are_there_strangers = patience == 0 && self.strangers.came.swap(false, Ordering::Relaxed);
            if are_there_strangers {
                patience = ASK_EVERY;
            }
            match self.look(following, &mut audit, are_there_strangers).await {
                Ok(()) => is_logged = false,
                Err(why) => {
                    if !is_logged {
                        tracing::warn!(%why, "the copy of users can't be completed yet");
                    }
                    is_logged = true;
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn look(
        &self,
        following: &Following<'_>,
        audit: &mut Audit,
        are_there_strangers: bool,
    ) -> Result<(), Ended> {
        let known = self.copy.known().await?;
        if are_there_strangers && let Ok(page) = self.pages.page(None, 1).await {
            self.belongs(&known, &page.last).await?;
        }
        if !known.coverage.is_bound {
            // Another process has found it gone, and hasn't come back since.
            return self.declare(following).await;
        }
        if !known.coverage.is_synced {
            let users = self.list(&known).await?;
            tracing::info!(users, "the copy of users is complete");
            return Ok(());
        }
        let (is_missing, ask) = audit.look(known.coverage);
        if is_missing {
            tracing::warn!("events of users have not come: asking for all users");
            self.copy.distrust().await?;
        }
        if ask && let Ok(page) = self.pages.page(None, 1).await {
            self.belongs(&known, &page.last).await?;
            audit.expected = Some(page.last.last_change);
        }
        Ok(())
    }

    /// Forgets the copy when user-service, which was asked after this was seen, never had what it
    /// holds.
    async fn belongs(&self, known: &Known, last: &LastChange) -> Result<(), Ended> {
        if !known.contradicts(last) {
            return Ok(());
        }
        let seen = known.coverage.last;
        tracing::error!(
            seen,
            last_change = last.last_change,
            "what the copy of users holds is not user-service's: it is begun anew"
        );
        self.copy.forget(&last.database).await?;
        Err(Ended::Other("user-service's database is another, or was put back".into()))
    }

    /// Copies the whole list, or the rest of one that a lost session left; returns how many users
    /// it has.
    async fn list(&self, known: &Known) -> Result<usize, Ended> {
        let mut listing = match self.take_unfinished() {
            Some(unfinished) if unfinished.epoch == known.coverage.epoch => unfinished,
            _ => Listing::of(self.copy.next_list().await?, known.coverage.epoch),
        };
        loop {
            // Whatever ends this here, the next try goes on here, but not for ever: a list may be
            // none to go on with.
            let again = Listing { tries: listing.tries + 1, ..listing.clone() };
            self.keep_unfinished((again.tries < MOST_TRIES).then_some(again));
            let page = self.pages.page(listing.after.as_deref(), 100).await;
            let page = page.map_err(|unavailable| Ended::Other(unavailable.to_string()))?;
            // The first page's: what is changed later is in the queue.
            let last = match &listing.last {
                Some(last) if last.database == page.last.database => last.clone(),
                Some(_) => {
                    self.take_unfinished();
                    return Err(Ended::Other(
                        "user-service's database is another one than a page ago".into(),
                    ));
                }
                None => {
                    self.belongs(known, &page.last).await?;
                    page.last
                }
            };
            self.copy.store(&page.users, listing.number).await?;
            listing.users += page.users.len();
            listing = Listing { after: page.next, last: Some(last.clone()), tries: 0, ..listing };
            if listing.after.is_none() {
                self.take_unfinished();
                if self.copy.listed(listing.number, listing.epoch, &last).await? {
                    return Ok(listing.users);
                }
                return Err(Ended::Other("more events were lost meanwhile".into()));
            }
        }
    }

    fn take_unfinished(&self) -> Option<Listing> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep_unfinished(&self, listing: Option<Listing>) {
        *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner) = listing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(audit: &mut Audit, last: i64) -> Vec<(bool, bool)> {
        let coverage = Coverage { last, is_synced: true, ..Coverage::default() };
        let every = audit.every;
        (0..every).map(|_| audit.look(coverage)).filter(|answer| *answer != (false, false)).collect()
    }

    #[test]
    fn what_has_not_come_by_the_next_time_is_missing_and_asked_for_ever_more_rarely() {
        let mut audit = Audit { every: ASK_EVERY, looks: 0, expected: None };
        assert_eq!(looks(&mut audit, 5), [(false, true)]);
        audit.expected = Some(6);
        assert_eq!(looks(&mut audit, 6), [(false, true)], "it has come");
        audit.expected = Some(8);
        assert_eq!(looks(&mut audit, 7), [(true, false)]);
        assert_eq!(audit.every, 2 * ASK_EVERY);
        assert_eq!(looks(&mut audit, 8), [(false, true)]);
        assert_eq!(audit.every, 2 * ASK_EVERY, "nothing was asked in between");
        audit.expected = Some(9);
        assert_eq!(looks(&mut audit, 8), [(true, false)]);
        assert_eq!(audit.every, 4 * ASK_EVERY);
        assert_eq!(looks(&mut audit, 9), [(false, true)]);
        audit.expected = Some(9);
        assert_eq!(looks(&mut audit, 9), [(false, true)]);
        assert_eq!(audit.every, ASK_EVERY);
    }
}
