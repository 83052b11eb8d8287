//! The only clock read of the benches.

use std::time::{Duration, Instant};

/// The real time: a bench is about nothing else.
pub fn now() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "the one place; a virtual clock has nothing to measure")]
    Instant::now()
}

/// The CPU time this thread has used, which doesn't go on while another process has the core.
#[cfg(unix)]
pub fn thread_cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("CPU clock").into()
}

/// The real time, in want of better.
#[cfg(not(unix))]
pub fn thread_cpu() -> Duration {
    static BASE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let base = *BASE.get_or_init(now);
    now() - base
}
