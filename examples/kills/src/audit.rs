//! After the last kill: what the clients were told against what is stored. Pure.

use std::collections::HashMap;

use crate::journal::{Answer, Journal, Sent, Status, Stored, StoredUser, number_in};

/// What the journal and the databases say of each other. Zero everywhere but in the first three is
/// what is promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Orders answered 201 or 202.
    pub(crate) acknowledged: usize,
    /// Orders answered 422.
    pub(crate) refused: usize,
    /// Orders whose client gave up, stored or not.
    pub(crate) given_up: usize,
    /// Acknowledged, but not stored under the id that was answered.
    pub(crate) lost: usize,
    /// Stored more than once, or by nobody's order.
    pub(crate) doubled: usize,
    /// Settled against the truth, or otherwise than answered.
    pub(crate) misjudged: usize,
    /// Waiting to be verified still.
    pub(crate) pending: usize,
    /// Settled more than once, or settled though it was confirmed at once.
    pub(crate) settled_otherwise: usize,
    /// Users who were acknowledged, but aren't stored.
    pub(crate) users_lost: usize,
    /// Users who are stored more than once.
    pub(crate) users_doubled: usize,
    /// Requests that got another answer when they were sent again.
    pub(crate) answered_otherwise: usize,
}

impl Audit {
    pub(crate) fn of(journal: &Journal, orders: &[Stored], users: &[StoredUser]) -> Self {
        let mut audit = Self { answered_otherwise: journal.answered_otherwise, ..Self::default() };
        let mut found: HashMap<u64, Vec<&Stored>> = HashMap::new();
        for order in orders {
            match order.items.first().and_then(|item| number_in(&item.sku)) {
                Some(number) => found.entry(number).or_default().push(order),
                None => audit.doubled += 1,
            }
        }
        for sent in &journal.orders {
            audit.look_at(sent, &found.remove(&sent.number).unwrap_or_default());
        }
        audit.doubled += found.len();
        let mut names: HashMap<&str, Vec<&str>> = HashMap::new();
        for user in users {
            names.entry(&user.name).or_default().push(&user.id);
        }
        for created in &journal.users {
            let ids = names.get(created.name.as_str()).map_or(&[][..], Vec::as_slice);
            audit.users_lost += usize::from(created.id.as_deref().is_some_and(|id| !ids.contains(&id)));
            audit.users_doubled += usize::from(ids.len() > 1);
        }
        audit
    }

    fn look_at(&mut self, sent: &Sent, stored: &[&Stored]) {
        self.doubled += usize::from(stored.len() > 1);
        match &sent.answer {
            Answer::Confirmed(id) | Answer::Pending(id) => {
                self.acknowledged += 1;
                self.lost += usize::from(!stored.iter().any(|stored| stored.id == *id));
            }
            Answer::Refused => {
                self.refused += 1;
                self.misjudged += usize::from(sent.known_user || !stored.is_empty());
            }
            Answer::Unknown => self.given_up += 1,
        }
        for stored in stored {
            let at_once = matches!(sent.answer, Answer::Confirmed(_));
            match stored.status {
                Status::PendingVerification if at_once => self.misjudged += 1,
                Status::PendingVerification => self.pending += 1,
                status => {
                    self.misjudged += usize::from((status == Status::Confirmed) != sent.known_user);
                    let expected = match sent.answer {
                        Answer::Confirmed(_) => stored.resolutions == 0,
                        Answer::Pending(_) => stored.resolutions == 1,
                        _ => stored.resolutions <= 1,
                    };
                    self.settled_otherwise += usize::from(!expected);
                }
            }
        }
    }

    /// Whether all is as promised.
    pub(crate) fn holds(&self) -> bool {
        [
            self.lost,
            self.doubled,
            self.misjudged,
            self.pending,
            self.settled_otherwise,
            self.users_lost,
            self.users_doubled,
            self.answered_otherwise,
        ]
        .iter()
        .all(|count| *count == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Created, Item, sku};

    fn sent(number: u64, known_user: bool, answer: Answer) -> Sent {
        Sent { number, known_user, answer }
    }

    fn stored(number: u64, id: &str, status: Status, resolutions: u32) -> Stored {
        Stored { id: id.into(), items: vec![Item { sku: sku(number) }], status, resolutions }
    }

    fn confirmed(id: &str) -> Answer {
        Answer::Confirmed(id.into())
    }

    fn pending(id: &str) -> Answer {
        Answer::Pending(id.into())
    }

    #[test]
    fn clean_books_balance() {
        let orders = vec![
            sent(1, true, confirmed("a")),
            sent(2, true, pending("b")),
            sent(3, false, pending("c")),
            sent(4, false, Answer::Refused),
            sent(5, true, Answer::Unknown),
            sent(6, true, Answer::Unknown),
        ];
        let users = vec![Created { name: "one".into(), id: Some("u".into()) }];
        let journal = Journal { orders, users, ..Journal::default() };
        let database = [
            stored(1, "a", Status::Confirmed, 0),
            stored(2, "b", Status::Confirmed, 1),
            stored(3, "c", Status::Rejected, 1),
            stored(6, "f", Status::Confirmed, 1),
        ];
        let audit = Audit::of(&journal, &database, &[StoredUser { id: "u".into(), name: "one".into() }]);
        assert_eq!(audit, Audit { acknowledged: 3, refused: 1, given_up: 2, ..Audit::default() });
        assert!(audit.holds());
    }

    #[test]
    fn every_planted_fault_is_found() {
        use Status::{Confirmed, PendingVerification, Rejected};
        type Find = fn(&Audit) -> usize;
        let planted: [(Sent, Vec<Stored>, Find); 12] = [
            (sent(1, true, confirmed("a")), vec![], |audit| audit.lost),
            (sent(1, true, confirmed("a")), vec![stored(1, "b", Confirmed, 0)], |audit| audit.lost),
            (
                sent(1, true, confirmed("a")),
                vec![stored(1, "a", Confirmed, 0), stored(1, "b", Confirmed, 0)],
                |audit| audit.doubled,
            ),
            (
                sent(1, true, Answer::Unknown),
                vec![stored(1, "a", Confirmed, 0), stored(1, "b", Confirmed, 0)],
                |audit| audit.doubled,
            ),
            (sent(1, true, Answer::Refused), vec![], |audit| audit.misjudged),
            (sent(1, false, Answer::Refused), vec![stored(1, "a", Rejected, 1)], |audit| audit.misjudged),
            (sent(1, true, pending("a")), vec![stored(1, "a", Rejected, 1)], |audit| audit.misjudged),
            (sent(1, false, pending("a")), vec![stored(1, "a", Confirmed, 1)], |audit| audit.misjudged),
            (sent(1, true, confirmed("a")), vec![stored(1, "a", PendingVerification, 0)], |audit| {
                audit.misjudged
            }),
            (sent(1, true, pending("a")), vec![stored(1, "a", PendingVerification, 0)], |audit| {
                audit.pending
            }),
            (sent(1, true, pending("a")), vec![stored(1, "a", Confirmed, 2)], |audit| {
                audit.settled_otherwise
            }),
            (sent(1, true, confirmed("a")), vec![stored(1, "a", Confirmed, 1)], |audit| {
                audit.settled_otherwise
            }),
        ];
        for (sent, stored, find) in planted {
            let said = format!("{sent:?} {stored:?}");
            let journal = Journal { orders: vec![sent], ..Journal::default() };
            let audit = Audit::of(&journal, &stored, &[]);
            assert!(find(&audit) == 1 && !audit.holds(), "{said}: {audit:?}");
        }
        let nobodys = Audit::of(&Journal::default(), &[stored(1, "a", Confirmed, 0)], &[]);
        assert!(nobodys.doubled == 1 && !nobodys.holds());
    }

    #[test]
    fn a_lost_or_doubled_user_and_a_changed_answer_are_found() {
        let users = vec![Created { name: "one".into(), id: Some("u".into()) }];
        let journal = Journal { users, answered_otherwise: 1, ..Journal::default() };
        let user = |id: &str| StoredUser { id: id.into(), name: "one".into() };
        let audit = Audit::of(&journal, &[], &[user("v"), user("w")]);
        assert_eq!((audit.users_lost, audit.users_doubled, audit.answered_otherwise), (1, 1, 1));
        assert!(!audit.holds());
    }
}
