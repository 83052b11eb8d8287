//! Waits of the user's own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Backoff;

/// Makes the waits of one call, for each call anew.
#[derive(Clone)]
pub(crate) struct Delays(Arc<dyn Fn() -> Backoff + Send + Sync>);

impl Delays {
    pub(super) fn new<D>(make: impl Fn() -> D + Send + Sync + 'static) -> Self
    where
        D: IntoIterator<Item = Duration>,
        D::IntoIter: Send + 'static,
    {
        Self(Arc::new(move || Backoff::given(make().into_iter())))
    }

    pub(crate) fn backoff(&self) -> Backoff {
        (self.0)()
    }
}

/// The same factory, not merely a like one: closures can't be compared.
impl PartialEq for Delays {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Delays {}

impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delays")
    }
}
