//! What reqwest's users ask its errors.

use std::error::Error as StdError;

use url::Url;

use super::words::NOT_UPGRADED;
use super::{BoxError, Error, ErrorKind};
use crate::outcome::report::CallReport;
use crate::redact::redacted;
use crate::reqwest_error::ReqwestError;

impl Error {
    pub(crate) fn not_upgraded(source: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Transport).says(NOT_UPGRADED).because(source)
    }

    /// Something couldn't be built: a request of bad parts, or a client of settings that can't
    /// work. Nothing was sent: not where an answer led to what couldn't.
    pub fn is_builder(&self) -> bool {
        // What follows a redirect may be what couldn't.
        let answered = |report: &CallReport| {
            !report.redirected_from().is_empty() || report.attempts().iter().any(|it| it.status().is_some())
        };
        matches!(self.kind(), ErrorKind::Request | ErrorKind::Config)
            && !self.was_built()
            && !self.report().is_some_and(answered)
    }

    /// Too many redirects, or one the policy forbids.
    pub fn is_redirect(&self) -> bool {
        self.kind() == ErrorKind::Redirect
    }

    /// No connection could be made because the name wasn't resolved.
    pub fn is_dns(&self) -> bool {
        self.kind() == ErrorKind::Connect && self.causes().any(is_dns)
    }

    /// [`Response::upgrade`](crate::Response::upgrade) was asked, and the server didn't switch
    /// protocols.
    pub fn is_upgrade(&self) -> bool {
        self.says_of_itself(NOT_UPGRADED)
    }

    /// The same with a URL, without its credentials, query values and fragment.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "as reqwest's is called")]
    pub fn with_url(mut self, url: Url) -> Self {
        self.0.url = Some(redacted(&url));
        self
    }

    /// The same without the URL. [`report`](Self::report) still says which origin was called.
    #[must_use]
    pub fn without_url(mut self) -> Self {
        self.0.url = None;
        self
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        std::iter::successors(self.source(), |cause| <dyn StdError>::source(*cause))
    }
}

/// hyper-util has no type for it, only words.
fn is_dns(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<ReqwestError>().map_or_else(
        || error.to_string() == "dns error" || error.to_string() == "error resolving DNS",
        ReqwestError::is_dns,
    )
}
