//! What is sent and when, all decided by the seed before anything is sent: an open loop, so a slow
//! answer doesn't slow the load down, and both order-services get the same orders at the same
//! instants.

use std::time::Duration;

use fastrand::Rng;

/// Arrivals of a Poisson process: each independent of the others, `rate` a second on average.
pub(crate) struct Poisson {
    rng: Rng,
    rate: f64,
    next: f64,
}

impl Poisson {
    pub(crate) fn new(seed: u64, rate: u32) -> Self {
        Self { rng: Rng::with_seed(seed), rate: f64::from(rate), next: 0.0 }
    }
}

impl Iterator for Poisson {
    /// Since the start of the load.
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // 1 - f64() lies in (0, 1], so its logarithm is finite.
        self.next -= (1.0 - self.rng.f64()).ln() / self.rate;
        Some(Duration::from_secs_f64(self.next))
    }
}

/// An order to place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewOrder {
    /// Its number, which the demo finds again in the order-service's database.
    pub(crate) number: u64,
    /// The user it is for, as an index into the known users; `None` is a user who doesn't exist.
    pub(crate) user: Option<usize>,
    /// Whether the client is impatient and sends the order a second time, with the same
    /// `Idempotency-Key`.
    pub(crate) twice: bool,
}

impl NewOrder {
    /// The order's mark in the database: the article it orders.
    pub(crate) fn reference(&self) -> String {
        format!("demo-{:06}", self.number)
    }

    /// The number in a [`NewOrder::reference`].
    pub(crate) fn number_in(reference: &str) -> Option<u64> {
        reference.strip_prefix("demo-")?.parse().ok()
    }
}

/// The orders of a run, without end: 1 in 50 for a user who doesn't exist, 1 in 20 sent twice.
pub(crate) struct Orders {
    rng: Rng,
    users: usize,
    next: u64,
}

impl Orders {
    pub(crate) fn new(seed: u64, users: usize) -> Self {
        Self { rng: Rng::with_seed(seed), users, next: 0 }
    }
}

impl Iterator for Orders {
    type Item = NewOrder;

    fn next(&mut self) -> Option<NewOrder> {
        let number = self.next;
        self.next += 1;
        let user = (self.rng.u8(..50) != 0).then(|| self.rng.usize(..self.users));
        Some(NewOrder { number, user, twice: self.rng.u8(..20) == 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_rate_and_repeat_with_the_seed() {
        let arrivals = |seed| Poisson::new(seed, 100).take(10_000).collect::<Vec<_>>();
        let last = arrivals(3)[9_999].as_secs_f64();
        assert!((97.0..103.0).contains(&last), "10,000 arrivals at 100/s took {last} s");
        assert!(arrivals(3).is_sorted());
        assert_eq!(arrivals(3), arrivals(3));
        assert_ne!(arrivals(3), arrivals(4));
    }

    #[test]
    fn orders_are_numbered_and_a_few_are_odd() {
        let orders: Vec<_> = Orders::new(5, 20).take(10_000).collect();
        assert!(orders.iter().zip(0..).all(|(order, number)| order.number == number));
        let unknown = orders.iter().filter(|order| order.user.is_none()).count();
        let twice = orders.iter().filter(|order| order.twice).count();
        assert!((150..250).contains(&unknown), "{unknown} unknown users");
        assert!((430..570).contains(&twice), "{twice} sent twice");
    }

    #[test]
    fn a_reference_names_its_order() {
        let order = NewOrder { number: 1_234_567, user: None, twice: false };
        assert_eq!(NewOrder::number_in(&order.reference()), Some(1_234_567));
        assert_eq!(NewOrder::number_in("something else"), None);
    }
}
