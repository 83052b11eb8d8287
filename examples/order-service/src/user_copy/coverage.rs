//! Which changes a copy is sure to hold. Pure.
//!
//! user-service numbers changes without holes, in the order of their commits, so a number that is missing is an event that
//! was lost, and a list of all users that was begun after change n holds every change up to n.
//!
//! ```text
//!            a list that reaches up to `first`
//! unsynced ────────────────────────────────────> synced: all up to `last`
//!    ^                                              │
//!    └─── an event after a hole, a lost queue ──────┘
//! ```

/// What a copy holds: every change from `first` to `last` and, when it is synced, every one before them.
///
/// While a list is read events go on arriving; the run of numbers since the last hole is what a list has to reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) is_synced: bool,
    /// Counts reasons to distrust: a list that was begun before one proves nothing.
    pub(crate) epoch: i64,
}

impl Coverage {
    /// The copy holds this event now, too.
    pub(crate) fn applied(&mut self, event: i64) {
        if event <= self.last {
            return;
        }
        if event > self.last + 1 {
            self.first = event;
            self.is_synced = false;
        }
        self.last = event;
    }

    /// Events may have been lost, nobody knows which. What is counted from here on is a new run: a number that only an old one explains
    /// must not be waited for.
    pub(crate) fn distrusted(&mut self) {
        *self = Self { epoch: self.epoch + 1, ..Self::default() };
    }

    /// Whether a list that was begun after this was seen shows that the numbers aren't its user-service's: another one's events came, or
    /// its database was put back.
    pub(crate) fn is_ahead_of(&self, last_change: i64) -> bool {
        self.last.max(self.first) > last_change
    }

    /// The copy holds a whole list now, which was begun in that epoch and after that change. Returns whether that is enough.
    pub(crate) fn listed(&mut self, epoch: i64, last_change: i64) -> bool {
        if epoch != self.epoch || self.first > last_change + 1 {
            return false;
        }
        self.last = self.last.max(last_change);
        self.is_synced = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced_up_to(last: i64) -> Coverage {
        let mut coverage = Coverage::default();
        assert!(coverage.listed(0, last));
        coverage
    }

    #[test]
    fn a_new_copy_is_synced_by_a_list() {
        let coverage = synced_up_to(7);
        assert_eq!(coverage, Coverage { first: 0, last: 7, is_synced: true, epoch: 0 });
    }

    #[test]
    fn events_one_after_another_keep_it_synced_and_old_ones_change_nothing() {
        let mut coverage = synced_up_to(7);
        for event in [8, 9, 8, 3, 10] {
            coverage.applied(event);
        }
        assert_eq!((coverage.last, coverage.is_synced), (10, true));
    }

    #[test]
    fn a_hole_is_closed_by_a_list_that_was_begun_behind_it() {
        let mut coverage = synced_up_to(7);
        coverage.applied(9);
        assert!(!coverage.is_synced);
        assert!(!coverage.listed(0, 7), "8 may be missing still");
        coverage.applied(10);
        assert!(coverage.listed(0, 8));
        assert_eq!((coverage.last, coverage.is_synced), (10, true));
    }

    #[test]
    fn a_second_hole_while_a_list_is_read_needs_another() {
        let mut coverage = synced_up_to(7);
        coverage.applied(9);
        coverage.applied(12);
        assert!(!coverage.listed(0, 9), "11 may be missing");
        assert!(coverage.listed(0, 13));
        coverage.applied(13);
        coverage.applied(14);
        assert!(coverage.is_synced);
    }

    #[test]
    fn a_list_that_was_begun_before_the_queue_was_lost_proves_nothing() {
        let mut coverage = synced_up_to(7);
        coverage.distrusted();
        assert!(!coverage.listed(0, 100));
        assert!(coverage.listed(1, 100));
        coverage.applied(101);
        assert!(coverage.is_synced);
    }

    /// Another user-service's events on the same exchange, or a database that was put back: it waited for such a number for ever.
    #[test]
    fn numbers_above_user_services_own_are_seen_and_forgotten() {
        let mut coverage = synced_up_to(100);
        coverage.applied(50_001);
        assert!(coverage.is_ahead_of(100) && !coverage.listed(0, 100));
        coverage.distrusted();
        assert!(!coverage.is_ahead_of(100) && coverage.listed(1, 100));
        coverage.applied(101);
        assert_eq!((coverage.last, coverage.is_synced), (101, true));
    }

    /// Any order of losses, duplicates, events and lists: what it says it holds it holds.
    #[test]
    fn it_never_claims_what_it_does_not_hold() {
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut coverage, mut holds) = (Coverage::default(), std::collections::BTreeSet::new());
            let (mut changes, mut sent, mut list) = (rng.i64(0..5), 0, None);
            for _ in 0..60 {
                match rng.u8(0..6) {
                    0 => changes += 1,
                    1 | 2 if sent < changes => {
                        sent += 1;
                        coverage.applied(sent);
                        holds.insert(sent);
                    }
                    3 if sent < changes && rng.bool() => sent += 1,
                    3 if rng.u8(0..8) == 0 => coverage.distrusted(),
                    4 => list = Some((coverage.epoch, changes)),
                    5 => {
                        if let Some((epoch, last_change)) = list.take() {
                            holds.extend(1..=last_change);
                            coverage.listed(epoch, last_change);
                        }
                    }
                    _ => {}
                }
                if coverage.is_synced {
                    assert!(
                        (1..=coverage.last).all(|n| holds.contains(&n)),
                        "{seed}: {coverage:?} {holds:?}"
                    );
                }
            }
        }
    }
}
