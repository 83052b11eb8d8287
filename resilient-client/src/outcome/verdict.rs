//! What a call says about the health of whom it called.

/// What a call said about the upstream's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The upstream did its job.
    Success,
    /// The upstream failed.
    Failure,
    /// The call says nothing, being abandoned or rejected locally. A probe gives its slot back, and
    /// holds the next one back. One that was never sent doesn't: see
    /// [`Breaker::release`](crate::policy::breaker::Breaker::release).
    Neutral,
}
