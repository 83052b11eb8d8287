//! Other crates' policies, driven by our machines. One feature each, off by default: see the README on why.

#[cfg(feature = "backoff")]
mod backoff;
#[cfg(feature = "failsafe")]
mod failsafe;
