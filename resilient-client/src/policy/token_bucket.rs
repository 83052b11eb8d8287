//! The token bucket that bounds extra attempts: of the retry budget and of hedging's cap.
//!
//! Whoever deserves it pays a part of a token in, and each extra attempt takes a whole one. Every
//! balance check and change is one atomic step on one word, so tokens are neither lost nor spent
//! twice, and never more are taken than were there at first and were paid in.
//!
//! The unit is a millionth of a token. What is paid in is rounded down to it, so rounding never
//! grants an attempt.

use crate::sync::{AtomicU64, Mutex, Ordering};

/// Units in a token.
pub(super) const TOKEN: u64 = 1_000_000;
/// The most tokens a bucket may hold.
pub(super) const MOST_TOKENS: u32 = 1_000_000;

/// The units in `tokens`. A decimal of up to six places is exact: multiplying and truncating would
/// lose one from 0.29, whose nearest `f64` lies below it.
pub(super) fn rounded_down(tokens: f64) -> u64 {
    let nearest = (tokens * TOKEN as f64).round();
    let units = nearest as u64;
    if nearest / TOKEN as f64 > tokens { units.saturating_sub(1) } else { units }
}

/// What a bucket grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Nothing.
    Closed,
    /// Everything.
    Unlimited,
    /// As many as there are tokens for.
    Tokens(Tokens),
}

/// In millionths of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// The most it holds: at least one token.
    pub(super) capacity: u64,
    /// What it holds at first, at most the capacity.
    pub(super) initial: u64,
    /// What [`TokenBucket::deposit`] pays in.
    pub(super) deposit: u64,
}

/// The limit that a token was taken under. A token that comes back after that limit was lifted adds
/// nothing to a later one.
///
/// Small, since every attempt is moved with the room for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Era(u16);

impl Era {
    /// None of the eras, which are counted in one bit less: of a token that a bucket without limit
    /// granted.
    const NONE: Self = Self(u16::MAX);
    const ALL: u64 = 1 << 15;

    const fn of(word: u64) -> Self {
        Self((word >> ERA_SHIFT) as u16)
    }
}

// The word is `era | balance`: 16 bits that count how often the bucket got tokens when it had been
// closed or unlimited, and 48 for the balance, which is at most 10^12. In one word, so that what
// belongs to one era can't be added in the next.
const ERA_SHIFT: u32 = 48;
const BALANCE: u64 = (1 << ERA_SHIFT) - 1;

// Capacities that aren't one; no compiled one comes near the second.
const CLOSED: u64 = 0;
const UNLIMITED: u64 = u64::MAX;

/// See the [module docs](self).
#[derive(Debug)]
pub(super) struct TokenBucket {
    /// The balance is counted as the capacity when it is more: a deposit that overlaps a change of
    /// the limit may put it there.
    word: AtomicU64,
    /// [`CLOSED`] or [`UNLIMITED`] when there are no tokens. The balance then stands still.
    capacity: AtomicU64,
    deposit: AtomicU64,
    /// Held while the limit changes, which takes several steps. Nothing else waits for it.
    changing: Mutex<()>,
}

impl TokenBucket {
    pub(super) fn new(limit: Limit) -> Self {
        let (word, capacity, deposit) = match limit {
            Limit::Closed => (0, CLOSED, 0),
            Limit::Unlimited => (0, UNLIMITED, 0),
            Limit::Tokens(tokens) => (tokens.initial, tokens.capacity, tokens.deposit),
        };
        Self {
            word: AtomicU64::new(word),
            capacity: AtomicU64::new(capacity),
            deposit: AtomicU64::new(deposit),
            changing: Mutex::new(()),
        }
    }

    /// Changes the limit. Tokens that there were stay, as far as the new capacity allows; where
    /// there were none it starts with its initial ones.
    pub(super) fn set_limit(&self, limit: Limit) {
        let _changing = self.changing.lock();
        let Tokens { capacity, initial, deposit } = match limit {
            Limit::Closed => return self.capacity.store(CLOSED, Ordering::Relaxed),
            Limit::Unlimited => return self.capacity.store(UNLIMITED, Ordering::Relaxed),
            Limit::Tokens(tokens) => tokens,
        };
        if matches!(self.capacity(), CLOSED | UNLIMITED) {
            // A swap, so that whoever still adds to the old word finds another.
            let next = (u64::from(self.era().0) + 1) % Era::ALL;
            self.word.swap((next << ERA_SHIFT) | initial, Ordering::Relaxed);
        }
        self.deposit.store(deposit, Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Release);
        let fit = |word: u64| {
            let balance = word & BALANCE;
            (balance > capacity).then_some(word - balance + capacity)
        };
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fit);
    }

    /// Pays in. At capacity this only reads.
    pub(super) fn deposit(&self) {
        // The era first: what an old limit paid must not be added under a new one.
        let era = self.era();
        self.add(self.deposit.load(Ordering::Relaxed), era);
    }

    /// Takes one token; `None`, and nothing taken, when less than one is left.
    pub(super) fn try_withdraw(&self) -> Option<Era> {
        if self.is_unlimited() {
            return Some(Era::NONE);
        }
        let take = |word: u64| {
            let balance = word & BALANCE;
            let left = balance.min(self.capacity()).checked_sub(TOKEN)?;
            Some(word - balance + left)
        };
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(Era::of)
    }

    /// Gives back a token that was taken under the limit of `era`.
    pub(super) fn refund(&self, era: Era) {
        if era != Era::NONE {
            self.add(TOKEN, era);
        }
    }

    /// The most tokens it holds; infinite without a limit.
    pub(super) fn most(&self) -> f64 {
        match self.capacity() {
            UNLIMITED => f64::INFINITY,
            capacity => capacity as f64 / TOKEN as f64,
        }
    }

    /// Tokens left; infinite when unlimited.
    pub(super) fn available(&self) -> f64 {
        if self.is_unlimited() { f64::INFINITY } else { self.balance() as f64 / TOKEN as f64 }
    }

    /// What tokens are taken under now.
    pub(super) fn era(&self) -> Era {
        Era::of(self.word.load(Ordering::Relaxed))
    }

    /// What can be taken, in units.
    pub(super) fn balance(&self) -> u64 {
        (self.word.load(Ordering::Relaxed) & BALANCE).min(self.capacity())
    }

    /// At capacity this only reads.
    fn add(&self, units: u64, of: Era) {
        if self.is_unlimited() {
            return;
        }
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (balance, capacity) = (word & BALANCE, self.capacity().min(BALANCE));
            let adds = Era::of(word) == of && balance < capacity;
            adds.then(|| word - balance + balance.saturating_add(units).min(capacity))
        });
    }

    fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    fn is_unlimited(&self) -> bool {
        self.capacity() == UNLIMITED
    }

    /// As after so many eras that the next is the first again.
    #[cfg(test)]
    pub(super) fn skip_to_the_last_era(&self) {
        self.word.fetch_or(!BALANCE, Ordering::Relaxed);
    }
}
