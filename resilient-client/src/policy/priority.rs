//! How much a call matters when not every call can be served.
//!
//! An overloaded system sheds something. Without classes it sheds at random, and a checkout fails
//! so that a prefetch can succeed. With them the least valuable traffic goes first and the critical
//! goes last. (The classes are those of "criticality" in Google's *Site Reliability Engineering*,
//! chapter 21; Envoy's and Netflix's priority load shedding work alike.)
//!
//! - A class is a property of the call, set by who knows what it is for: never of the upstream.
//! - Where something is short, a higher class is served before a lower one, and a lower one is
//!   refused before a higher.
//! - With one class in use, nothing differs from having none.
//!
//! One caveat: classes divide what there is, they add nothing. When everything is critical, nothing
//! is.
//!
//! ```
//! use resilient_client::policy::priority::Priority;
//!
//! assert!(Priority::Sheddable < Priority::Normal && Priority::Normal < Priority::Critical);
//! assert_eq!(Priority::default(), Priority::Normal);
//! ```

/// The class of a call, ordered by what it is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Work whose loss nobody notices at once: prefetches, batch jobs that run again, refreshing
    /// what is still fresh.
    Sheddable,
    /// What most calls are, and what a call is unless it says otherwise.
    #[default]
    Normal,
    /// A failure that a user sees or that costs money: login, checkout, health checks of what
    /// others rely on. Keep it rare.
    Critical,
}

impl Priority {
    /// How many classes there are.
    pub(crate) const COUNT: usize = 3;
}
