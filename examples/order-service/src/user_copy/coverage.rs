//! Which changes a copy is sure to hold, and whose. Pure.
//!
//! user-service numbers changes without holes, in the order of their commits, so a number that is
//! missing is an event that was lost, and a list of all users that was begun after change n holds
//! every change up to n.
//!
//! ```text
//!            a list that reaches up to `first`
//! unsynced ────────────────────────────────────> synced: all up to `last`
//!    ^                                              │
//!    └─── an event after a hole, a lost queue ──────┘
//! ```
//!
//! Numbers alone don't say whose they are: another environment's database on the same broker has
//! the same, and one that was put back to an older state gives some of them a second time. So an
//! event names its database, and the mark of the event before it; no two changes have the same
//! mark.

use serde::Deserialize;

/// What a copy holds: every change from `first` to `last` and, when it is synced, every one before
/// them.
///
/// While a list is read events go on arriving; the run of numbers since the last hole is what a
/// list has to reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) is_synced: bool,
    /// Counts reasons to distrust: a list that was begun before one proves nothing.
    pub(crate) epoch: i64,
    /// Whether the queue takes events. A list that is begun before it does may end behind some that
    /// nobody gets.
    pub(crate) is_bound: bool,
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

    /// Events may have been lost, nobody knows which. What is counted from here on is a new run: a
    /// number that only an old one explains must not be waited for.
    pub(crate) fn distrusted(&mut self) {
        *self = Self { epoch: self.epoch + 1, is_bound: self.is_bound, ..Self::default() };
    }

    /// Whether a list that was begun after this was seen shows that the numbers aren't its
    /// user-service's: another one's events came, or its database was put back.
    pub(crate) fn is_ahead_of(&self, last_change: i64) -> bool {
        self.last.max(self.first) > last_change
    }

    /// The copy holds a whole list now, which was begun in that epoch and after that change.
    /// Returns whether that is enough.
    pub(crate) fn listed(&mut self, epoch: i64, last_change: i64) -> bool {
        if epoch != self.epoch || self.first > last_change + 1 {
            return false;
        }
        self.last = self.last.max(last_change);
        self.is_synced = true;
        true
    }
}

/// The last change of any user, as user-service's list has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(clippy::struct_field_names, reason = "the list calls it so")]
pub(crate) struct LastChange {
    /// Its number.
    pub(crate) last_change: i64,
    /// Which database has numbered it.
    pub(crate) database: String,
    /// The mark of the last change up to there that was published.
    pub(crate) mark: String,
}

/// A change, as an event has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Change {
    #[serde(rename = "id")]
    pub(crate) number: i64,
    pub(crate) database: String,
    pub(crate) mark: String,
    /// The mark of the published change before it.
    pub(crate) previous: String,
}

/// Whose an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kin {
    Ours,
    /// Another database's. Nothing of it may be believed.
    Foreign,
    /// This database's, but it has forgotten what the copy holds: it was put back.
    Diverged,
}

/// All that is known of what a copy holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) coverage: Coverage,
    /// user-service's database; none until user-service has named it.
    pub(crate) database: Option<String>,
    /// The mark of the last change that the copy holds, if it is known.
    pub(crate) mark: Option<String>,
}

impl Known {
    pub(crate) fn judge(&self, change: &Change) -> Kin {
        if self.database.as_ref() != Some(&change.database) {
            return Kin::Foreign;
        }
        let is_next = change.number == self.coverage.last + 1;
        match &self.mark {
            Some(mark) if is_next && *mark != change.previous => Kin::Diverged,
            _ => Kin::Ours,
        }
    }

    /// The copy holds this change of ours now, too.
    pub(crate) fn applied(&mut self, change: &Change) {
        if change.number > self.coverage.last {
            self.mark = Some(change.mark.clone());
        }
        self.coverage.applied(change.number);
    }

    /// Events may have been lost, nobody knows which.
    pub(crate) fn distrusted(&mut self) {
        self.coverage.distrusted();
        self.mark = None;
    }

    /// The queue is gone, and with it what was in it.
    pub(crate) fn unbound(&mut self) {
        self.distrusted();
        self.coverage.is_bound = false;
    }

    /// Whether user-service, asked after this was seen, has never had what the copy holds.
    pub(crate) fn contradicts(&self, last: &LastChange) -> bool {
        self.database.as_ref() != Some(&last.database)
            || self.coverage.is_ahead_of(last.last_change)
            || self.coverage.last == last.last_change
                && self.mark.as_ref().is_some_and(|mark| *mark != last.mark)
    }

    /// The copy holds a whole list; see [`Coverage::listed`].
    pub(crate) fn listed(&mut self, epoch: i64, last: &LastChange) -> bool {
        let is_enough = self.coverage.listed(epoch, last.last_change);
        if is_enough && self.coverage.last == last.last_change {
            self.mark = Some(last.mark.clone());
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of the history with that letter; the mark before it is that history's, too.
    fn change(number: i64, history: char) -> Change {
        Change {
            number,
            database: "ours".into(),
            mark: format!("{history}{number}"),
            previous: format!("{history}{}", number - 1),
        }
    }

    fn last(number: i64, history: char) -> LastChange {
        LastChange { last_change: number, database: "ours".into(), mark: format!("{history}{number}") }
    }

    /// A copy that holds changes 1 to `to` of history a.
    fn known(to: i64) -> Known {
        let mut known = Known { database: Some("ours".into()), ..Known::default() };
        assert!(known.listed(0, &last(0, 'a')));
        for number in 1..=to {
            assert_eq!(known.judge(&change(number, 'a')), Kin::Ours);
            known.applied(&change(number, 'a'));
        }
        assert!(known.coverage.is_synced);
        known
    }

    #[test]
    fn another_databases_events_are_nobodys() {
        let other = Change { database: "other".into(), ..change(8, 'a') };
        assert_eq!(known(7).judge(&other), Kin::Foreign);
        assert_eq!(Known::default().judge(&change(1, 'a')), Kin::Foreign, "until user-service is asked");
        assert!(Known::default().contradicts(&last(0, 'a')));
        assert!(known(7).contradicts(&LastChange { database: "other".into(), ..last(7, 'a') }));
    }

    #[test]
    fn a_database_that_was_put_back_is_found_out_by_its_first_new_number_or_when_it_is_asked() {
        let known = known(7);
        assert!(!known.contradicts(&last(7, 'a')) && !known.contradicts(&last(9, 'a')));
        assert!(known.contradicts(&last(5, 'a')), "put back to 5");
        assert!(known.contradicts(&last(7, 'b')), "put back, and changed as often since");
        assert_eq!(known.judge(&change(8, 'b')), Kin::Diverged, "put back, and changed more often since");
        assert_eq!(known.judge(&change(7, 'a')), Kin::Ours, "it came again");
    }

    #[test]
    fn changes_that_were_never_published_break_no_chain() {
        let mut known = known(7);
        // 8 was not published, so the list has 7's mark for it, and so has 9.
        assert!(known.listed(0, &LastChange { mark: "a7".into(), ..last(8, 'a') }));
        let ninth = Change { previous: "a7".into(), ..change(9, 'a') };
        assert_eq!(known.judge(&ninth), Kin::Ours);
        known.applied(&ninth);
        assert_eq!((known.coverage.last, known.coverage.is_synced), (9, true));
    }

    #[test]
    fn what_was_distrusted_has_no_mark_to_compare() {
        let mut known = known(7);
        known.distrusted();
        assert_eq!(known.judge(&change(1, 'b')), Kin::Ours);
        assert!(!known.contradicts(&last(3, 'b')));
        assert!(known.listed(1, &last(3, 'b')) && known.mark.as_deref() == Some("b3"));
    }

    fn synced_up_to(last: i64) -> Coverage {
        let mut coverage = Coverage::default();
        assert!(coverage.listed(0, last));
        coverage
    }

    #[test]
    fn a_new_copy_is_synced_by_a_list() {
        let coverage = synced_up_to(7);
        assert_eq!(coverage, Coverage { last: 7, is_synced: true, ..Coverage::default() });
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

    /// Another user-service's events on the same exchange, or a database that was put back: it
    /// waited for such a number for ever.
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
