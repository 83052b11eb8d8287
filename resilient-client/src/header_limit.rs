//! The most headers that a request may bring.

use crate::error::{Error, ErrorKind};

/// The most names of headers a request may bring, those of a hook included. An `http::HeaderMap` holds
/// 24,576, and whatever puts in one more panics: we, reqwest or hyper.
pub(crate) const MOST_HEADERS: usize = 24_000;

/// The error of a request with more.
#[cold]
pub(crate) fn too_many_headers(names: usize) -> Error {
    Error::new(ErrorKind::Request).says(format!("{names} headers, of {MOST_HEADERS} at most"))
}
