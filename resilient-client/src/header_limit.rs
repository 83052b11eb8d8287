//! The most headers that a request may bring, and bringing others over them.

use http::HeaderMap;

use crate::error::{Error, ErrorKind};

/// The most names of headers a request may bring, those of a hook included. An `http::HeaderMap`
/// holds 24,576, and whatever puts in one more panics: we, reqwest or hyper.
pub(crate) const MOST_HEADERS: usize = 24_000;

/// The error of a request with more.
#[cold]
pub(crate) fn too_many_headers(names: usize) -> Error {
    Error::new(ErrorKind::Request).says(format!("{names} headers, of {MOST_HEADERS} at most"))
}

/// Puts headers in place of those of the same names.
pub(crate) fn put_over(headers: &mut HeaderMap, over: HeaderMap) -> Result<(), http::Error> {
    let mut last = None;
    for (name, value) in over {
        // A name comes with the first of its values only.
        match (name, &last) {
            (Some(name), _) => {
                headers.try_insert(name.clone(), value)?;
                last = Some(name);
            }
            (None, Some(name)) => {
                headers.try_append(name.clone(), value)?;
            }
            (None, None) => {}
        }
    }
    Ok(())
}
