//! reqwest's error. Without the feature `reqwest` there is none: then it is a type without values,
//! so that whoever reads a chain of errors needn't ask.

#[cfg(feature = "reqwest")]
pub(crate) use reqwest::Error as ReqwestError;

#[cfg(not(feature = "reqwest"))]
pub(crate) use absent::{ReqwestError, without_url};

/// Its `Display` prints the whole URL, query and all.
#[cfg(feature = "reqwest")]
#[allow(clippy::boxed_local, reason = "unboxed, the one without values would be code that can't be reached")]
pub(crate) fn without_url(error: Box<ReqwestError>) -> Box<dyn std::error::Error + Send + Sync> {
    Box::new(error.without_url())
}

#[cfg(not(feature = "reqwest"))]
mod absent {
    use std::fmt;

    use url::Url;

    /// What is asked of the real one, of which there is none.
    #[derive(Debug)]
    pub(crate) enum ReqwestError {}

    impl ReqwestError {
        pub(crate) fn is_builder(&self) -> bool {
            match *self {}
        }

        pub(crate) fn is_connect(&self) -> bool {
            match *self {}
        }

        pub(crate) fn is_dns(&self) -> bool {
            match *self {}
        }

        pub(crate) fn is_redirect(&self) -> bool {
            match *self {}
        }

        pub(crate) fn is_timeout(&self) -> bool {
            match *self {}
        }

        pub(crate) fn url(&self) -> Option<&Url> {
            match *self {}
        }
    }

    pub(crate) fn without_url(error: Box<ReqwestError>) -> Box<dyn std::error::Error + Send + Sync> {
        error
    }

    impl fmt::Display for ReqwestError {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            match *self {}
        }
    }

    impl std::error::Error for ReqwestError {}
}
