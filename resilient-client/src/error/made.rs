//! What tests set of an error that no call has brought.

use std::time::Duration;

use super::Error;

impl Error {
    #[must_use]
    pub(crate) fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }
}
