//! What the clients did and were told, kept by themselves.

use serde::Deserialize;

/// An order that was sent, however often.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) number: u64,
    /// Whether its user was there before the order was sent. Nobody comes into being later under
    /// the id of one who wasn't.
    pub(crate) known_user: bool,
    pub(crate) answer: Answer,
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 201: the id of a confirmed order.
    Confirmed(String),
    /// 202: the id of an order that is to be verified.
    Pending(String),
    /// 422: there is no such user.
    Refused,
    /// Nothing: the client gave up.
    Unknown,
}

/// A user that was to be created.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) name: String,
    /// `None`: the client gave up.
    pub(crate) id: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) orders: Vec<Sent>,
    pub(crate) users: Vec<Created>,
    /// Requests that were sent again after their answer and got another one.
    pub(crate) answered_otherwise: usize,
    /// Requests that were sent again after their answer.
    pub(crate) asked_again: usize,
    /// Tries that failed: a dead process, most of them.
    pub(crate) failed_tries: usize,
}

impl Journal {
    pub(crate) fn merge(&mut self, other: Self) {
        self.orders.extend(other.orders);
        self.users.extend(other.users);
        self.answered_otherwise += other.answered_otherwise;
        self.asked_again += other.asked_again;
        self.failed_tries += other.failed_tries;
    }
}

/// What an order's number is written into, and read from.
pub(crate) fn sku(number: u64) -> String {
    format!("order-{number}")
}

pub(crate) fn number_in(sku: &str) -> Option<u64> {
    sku.strip_prefix("order-")?.parse().ok()
}

/// An order as order-service lists it; only what the audit needs.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Stored {
    pub(crate) id: String,
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

/// A user as user-service lists it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StoredUser {
    pub(crate) id: String,
    pub(crate) name: String,
}
