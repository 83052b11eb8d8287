//! The last orders of one order-service, and how each of them stands.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::tally::{Answer, Sent};

/// How many are shown.
pub(super) const SHOWN: usize = 100;

/// How an order stands, as its customer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// Nobody has answered yet.
    Waiting,
    /// Answered at once and rightly: 201, or 422 for a user who doesn't exist.
    Settled,
    /// Answered 202: stored, and not verified yet.
    Kept,
    /// Answered 202, and verified since.
    SettledLater,
    /// Answered with an error.
    TurnedAway,
    /// Not answered, or wrongly.
    Failed,
}

impl Standing {
    const fn of(sent: &Sent) -> Self {
        match sent.answer {
            Answer::Accepted => Self::Kept,
            Answer::Created if sent.known_user => Self::Settled,
            Answer::Refused if !sent.known_user => Self::Settled,
            Answer::Refused | Answer::Conflict | Answer::Failed(_) => Self::TurnedAway,
            Answer::Created | Answer::TimedOut | Answer::Broken | Answer::GivenUp => Self::Failed,
        }
    }
}

/// An order that is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// The same for every order-service.
    pub(crate) number: u64,
    pub(crate) standing: Standing,
    /// The order-service's, of one that it keeps.
    #[serde(skip)]
    pub(crate) id: Option<String>,
}

/// The last [`SHOWN`] orders, the oldest first. A lock, because every order writes here; held for a
/// look through a hundred numbers.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<Shown>>);

impl Recent {
    /// An order is about to be sent.
    pub(crate) fn placed(&self, number: u64) {
        let mut orders = self.lock();
        if orders.len() == SHOWN {
            orders.pop_front();
        }
        orders.push_back(Shown { number, standing: Standing::Waiting, id: None });
    }

    /// It has been answered; `id` names one that is kept.
    pub(crate) fn answered(&self, sent: &Sent, id: Option<String>) {
        let mut orders = self.lock();
        if let Some(order) = orders.iter_mut().rev().find(|order| order.number == sent.number) {
            (order.standing, order.id) = (Standing::of(sent), id);
        }
    }

    pub(super) fn list(&self) -> Vec<Shown> {
        self.lock().iter().cloned().collect()
    }

    /// The ids of those that are kept, the oldest first.
    pub(super) fn kept(&self) -> Vec<String> {
        let orders = self.lock();
        let kept = orders.iter().filter(|order| order.standing == Standing::Kept);
        kept.filter_map(|order| order.id.clone()).collect()
    }

    /// Of `asked`, only `pending` are still to be verified.
    pub(super) fn verified(&self, asked: &[String], pending: &HashSet<String>) {
        for order in self.lock().iter_mut() {
            let settled = |id: &String| asked.contains(id) && !pending.contains(id);
            if order.standing == Standing::Kept && order.id.as_ref().is_some_and(settled) {
                order.standing = Standing::SettledLater;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::arrivals::NewOrder;

    fn sent(number: u64, answer: Answer, known_user: bool) -> Sent {
        let order = NewOrder { number, user: known_user.then_some(0), twice: false };
        Sent { answer, ..Sent::new(&order, None, Duration::ZERO) }
    }

    #[test]
    fn an_order_is_shown_from_the_moment_it_is_sent_and_the_last_hundred_are() {
        let recent = Recent::default();
        for number in 0..250 {
            recent.placed(number);
        }
        recent.answered(&sent(249, Answer::Created, true), None);
        recent.answered(&sent(3, Answer::Created, true), None);
        let shown = recent.list();
        assert_eq!((shown.len(), shown[0].number, shown[99].number), (100, 150, 249));
        assert_eq!((shown[98].standing, shown[99].standing), (Standing::Waiting, Standing::Settled));
    }

    #[test]
    fn an_order_stands_as_its_customer_sees_it() {
        for (answer, known_user, standing) in [
            (Answer::Created, true, Standing::Settled),
            (Answer::Created, false, Standing::Failed),
            (Answer::Refused, false, Standing::Settled),
            (Answer::Refused, true, Standing::TurnedAway),
            (Answer::Accepted, true, Standing::Kept),
            (Answer::Failed(500), true, Standing::TurnedAway),
            (Answer::TimedOut, true, Standing::Failed),
            (Answer::Broken, true, Standing::Failed),
            (Answer::GivenUp, true, Standing::Failed),
        ] {
            assert_eq!(Standing::of(&sent(1, answer, known_user)), standing, "{answer:?} {known_user}");
        }
    }

    #[test]
    fn what_was_kept_is_settled_later_once_it_is_no_longer_pending() {
        let recent = Recent::default();
        for number in 0..3 {
            recent.placed(number);
            recent.answered(&sent(number, Answer::Accepted, true), Some(format!("id {number}")));
        }
        let asked = recent.kept();
        assert_eq!(asked, ["id 0", "id 1", "id 2"]);
        // One that was kept since nobody has asked about.
        recent.placed(3);
        recent.answered(&sent(3, Answer::Accepted, true), Some("id 3".into()));
        recent.verified(&asked, &HashSet::from(["id 1".to_owned()]));
        let standings = recent.list().iter().map(|order| order.standing).collect::<Vec<_>>();
        let (kept, later) = (Standing::Kept, Standing::SettledLater);
        assert_eq!(standings, [later, kept, later, kept]);
    }
}
