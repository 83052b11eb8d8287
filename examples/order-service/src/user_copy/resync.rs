//! The whole list over HTTP, when the copy is new or events may be missing.

use std::{convert::Infallible, time::Duration};

use service_kit::amqp::Ended;
use tokio::time::sleep;

use super::{Follower, coverage::Coverage};

/// How often it is looked whether the copy is complete, and the wait before another try.
const LOOK: Duration = Duration::from_secs(1);
/// How many looks apart user-service is asked for its last change; doubled, up to the longest, each time that the events
/// have not come meanwhile.
const ASK_EVERY: u32 = 15;
const ASK_AT_LEAST_EVERY: u32 = 16 * ASK_EVERY;

/// When to ask user-service for its last change, to find out about events that are lost without any that came after them.
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
    /// Completes the copy whenever something may be missing, for as long as the session lasts: the queue is there then and
    /// holds whatever the list doesn't.
    pub(super) async fn keep_complete(&self) -> Infallible {
        let mut audit = Audit { every: ASK_EVERY, looks: 0, expected: None };
        let mut is_logged = false;
        loop {
            match self.look(&mut audit).await {
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

    async fn look(&self, audit: &mut Audit) -> Result<(), Ended> {
        let coverage = self.copy.coverage().await?;
        if !coverage.is_synced {
            let users = self.list(coverage).await?;
            tracing::info!(users, "the copy of users is complete");
            return Ok(());
        }
        let (is_missing, ask) = audit.look(coverage);
        if is_missing {
            tracing::warn!("events of users have not come: asking for all users");
            self.copy.distrust().await?;
        }
        if ask && let Ok(page) = self.pages.page(None, 1).await {
            self.belongs(coverage, page.last_change).await?;
            audit.expected = Some(page.last_change);
        }
        Ok(())
    }

    /// Forgets the copy when what was seen before user-service was asked is above its last change.
    async fn belongs(&self, coverage: Coverage, last_change: i64) -> Result<(), Ended> {
        if !coverage.is_ahead_of(last_change) {
            return Ok(());
        }
        let seen = coverage.last;
        tracing::error!(
            seen,
            last_change,
            "events have numbers above user-service's: the copy of users is begun anew"
        );
        self.copy.forget().await?;
        Err(Ended::Other("the events are another user-service's, or its database was put back".into()))
    }

    /// Copies the whole list; returns how many users it has.
    async fn list(&self, coverage: Coverage) -> Result<usize, Ended> {
        let (mut after, mut begun_at, mut users) = (None, None, 0);
        loop {
            let page = self.pages.page(after.as_deref(), 100).await;
            let page = page.map_err(|unavailable| Ended::Other(unavailable.to_string()))?;
            // The first page's: what is changed later is in the queue.
            if begun_at.is_none() {
                self.belongs(coverage, page.last_change).await?;
            }
            let begun_at = *begun_at.get_or_insert(page.last_change);
            self.copy.store(&page.users).await?;
            users += page.users.len();
            after = page.next;
            if after.is_none() {
                if self.copy.listed(coverage.epoch, begun_at).await? {
                    return Ok(users);
                }
                return Err(Ended::Other("more events were lost meanwhile".into()));
            }
        }
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
