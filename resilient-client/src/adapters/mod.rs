//! Other crates' policies, driven by our machines. One feature each, off by default, since one of
//! the crates is unmaintained.

#[cfg(feature = "backoff")]
mod backoff;
#[cfg(feature = "failsafe")]
mod failsafe;
