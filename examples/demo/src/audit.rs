//! After the load: what the clients were promised against what the databases hold.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::arrivals::NewOrder;
use crate::tally::{Answer, Sent};

/// An order as order-service shows it; only what the audit needs.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Stored {
    pub(crate) items: Vec<Item>,
    pub(crate) status: Status,
    /// How often the reconciler settled it.
    pub(crate) resolutions: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Item {
    pub(crate) sku: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Confirmed,
    PendingVerification,
    Rejected,
}

/// What the books and the database say of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Audit {
    /// Orders sent, each counted once however often it was sent.
    pub(crate) placed: usize,
    /// Orders answered 201 or 202.
    pub(crate) acknowledged: usize,
    /// Customers' orders that failed and are not stored: business turned away.
    pub(crate) turned_away: usize,
    /// Acknowledged, but not stored.
    pub(crate) lost: usize,
    /// Stored more than once.
    pub(crate) duplicated: usize,
    /// Stored, although the answer was a failure: not lost, but the client can't know.
    pub(crate) unacknowledged_but_stored: usize,
    /// Still waiting to be verified.
    pub(crate) pending: usize,
    /// Answered 202 and settled since, once each.
    pub(crate) resolved: usize,
    /// Settled more than once, or never although it was answered 202 and is no longer pending.
    pub(crate) resolved_wrong_number_of_times: usize,
    /// Settled against the truth: a stranger's order confirmed, a customer's rejected, or stored
    /// after a 422.
    pub(crate) misjudged: usize,
}

/// Compares what was sent with what is stored.
pub(crate) fn audit(sent: &[Sent], stored: &[Stored]) -> Audit {
    let mut found: HashMap<u64, Vec<&Stored>> = HashMap::new();
    for order in stored {
        let number = order.items.first().and_then(|item| NewOrder::number_in(&item.sku));
        if let Some(number) = number {
            found.entry(number).or_default().push(order);
        }
    }
    let mut audit = Audit { placed: sent.len(), ..Audit::default() };
    for order in sent {
        let copies = found.get(&order.number).map_or(&[][..], Vec::as_slice);
        audit.acknowledged += usize::from(order.acknowledged());
        audit.duplicated += usize::from(copies.len() > 1);
        match (copies.first(), order.acknowledged()) {
            (None, true) => audit.lost += 1,
            (None, false) => audit.turned_away += usize::from(order.known_user),
            (Some(_), false) => audit.unacknowledged_but_stored += 1,
            (Some(_), true) => {}
        }
        for copy in copies {
            audit.inspect(order, copy);
        }
    }
    audit
}

impl Audit {
    fn inspect(&mut self, sent: &Sent, stored: &Stored) {
        match (stored.status, stored.resolutions) {
            (Status::PendingVerification, _) => self.pending += 1,
            (_, 1) => self.resolved += 1,
            (_, 0) if !promised_later(sent) => {}
            (_, _) => self.resolved_wrong_number_of_times += 1,
        }
        let against_truth = match stored.status {
            Status::Confirmed => !sent.known_user,
            Status::Rejected => sent.known_user,
            Status::PendingVerification => false,
        };
        self.misjudged += usize::from(against_truth || sent.answer == Answer::Refused);
    }
}

/// Whether the order was accepted with nothing but a promise, so that it must have been resolved
/// since.
fn promised_later(sent: &Sent) -> bool {
    sent.answer == Answer::Accepted || sent.again == Some(Answer::Accepted)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sent(number: u64, answer: Answer) -> Sent {
        let (at, latency) = (Duration::ZERO, Duration::ZERO);
        Sent { number, known_user: true, phase: None, at, latency, answer, again: None, twice: false }
    }

    fn stored(number: u64, status: Status, resolutions: u32) -> Stored {
        let sku = NewOrder { number, user: None, twice: false }.reference();
        Stored { items: vec![Item { sku }], status, resolutions }
    }

    #[test]
    fn clean_books_balance() {
        let orders = [
            sent(1, Answer::Created),
            sent(2, Answer::Accepted),
            Sent { known_user: false, ..sent(3, Answer::Refused) },
            Sent { known_user: false, ..sent(4, Answer::Accepted) },
        ];
        let database = [
            stored(1, Status::Confirmed, 0),
            stored(2, Status::Confirmed, 1),
            stored(4, Status::Rejected, 1),
        ];
        let expected = Audit { placed: 4, acknowledged: 3, resolved: 2, ..Audit::default() };
        assert_eq!(audit(&orders, &database), expected);
    }

    #[test]
    fn every_planted_fault_is_found() {
        let orders: Vec<_> = [
            (1, Answer::Created),  // not stored
            (2, Answer::Accepted), // stored twice
            (3, Answer::TimedOut), // stored all the same
            (4, Answer::Failed(500)),
            (5, Answer::Accepted), // still pending
            (6, Answer::Accepted), // resolved twice
            (7, Answer::Accepted), // confirmed, but never resolved
            (8, Answer::Created),  // a customer rejected
            (9, Answer::Refused),  // stored after a 422
        ]
        .map(|(number, answer)| sent(number, answer))
        .into();
        let database = [
            stored(2, Status::Confirmed, 1),
            stored(2, Status::Confirmed, 1),
            stored(3, Status::Confirmed, 0),
            stored(5, Status::PendingVerification, 0),
            stored(6, Status::Confirmed, 2),
            stored(7, Status::Confirmed, 0),
            stored(8, Status::Rejected, 0),
            stored(9, Status::Confirmed, 0),
        ];
        let found = audit(&orders, &database);
        assert_eq!(found.lost, 1);
        assert_eq!(found.duplicated, 1);
        assert_eq!(found.turned_away, 1);
        assert_eq!(found.unacknowledged_but_stored, 2);
        assert_eq!(found.pending, 1);
        assert_eq!(found.resolved_wrong_number_of_times, 2);
        assert_eq!(found.misjudged, 2);
    }
}
