//! A way out of the pool.
//!
//! reqwest's pool gives out connections that are no more: six that a router has forgotten fail six attempts, and an HTTP/2
//! connection that takes requests and says nothing more fails all that follow. It offers no way to leave one. So there is a second
//! client, of the same configuration, whose pool keeps nothing: each of its requests has a connection of its own, over HTTP/2 too.
//! An attempt goes there if one before it in its call has met a connection that was dead, or may be.
//!
//! Its connections are used once, and there are no more of them than such attempts in flight.

use std::fmt;
use std::sync::OnceLock;

type Make = Box<dyn Fn() -> Option<reqwest::Client> + Send + Sync>;

/// Makes the second client when it is first needed: with TLS, that reads the system's certificates, which takes some milliseconds
/// and as much memory again, and most clients never need it.
pub(crate) struct Fresh {
    made: OnceLock<Option<reqwest::Client>>,
    make: Make,
}

impl Fresh {
    pub(crate) fn new(make: impl Fn() -> Option<reqwest::Client> + Send + Sync + 'static) -> Self {
        Self { made: OnceLock::new(), make: Box::new(make) }
    }

    /// The client; `None` if it can't be made a second time.
    #[cold]
    pub(crate) fn client(&self) -> Option<&reqwest::Client> {
        self.made.get_or_init(&self.make).as_ref()
    }
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("made", &self.made.get().is_some()).finish_non_exhaustive()
    }
}
