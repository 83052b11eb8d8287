//! What doors over `http::Request` have in common.

use crate::authority::Authority;
use crate::engine::Address;
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;

/// Whom a request is addressed to.
#[inline]
pub(crate) fn address<B>(request: &http::Request<B>) -> Result<Address<'_>, Error> {
    Ok(Address {
        authority: Authority::read(request.uri())
            .map_err(|problem| Error::new(ErrorKind::Request).says(problem))?,
        method: request.method(),
        path: request.uri().path(),
        headers: request.headers(),
    })
}

/// A copy with a body of its own.
pub(crate) fn again<B>(request: &http::Request<B>, body: B) -> http::Request<B> {
    let mut copy = http::Request::new(body);
    copy_head(request, &mut copy);
    copy
}

/// Gives a new request all that another has but its body.
#[inline]
pub(crate) fn copy_head<B>(request: &http::Request<B>, copy: &mut http::Request<B>) {
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    *copy.version_mut() = request.version();
    // Most have neither, and to copy nothing isn't free.
    if !request.headers().is_empty() {
        copy.headers_mut().clone_from(request.headers());
    }
    if !request.extensions().is_empty() {
        copy.extensions_mut().clone_from(request.extensions());
    }
}

/// Points a URI at another origin.
pub(crate) fn readdress(uri: &mut http::Uri, origin: &Origin) {
    let mut parts = std::mem::take(uri).into_parts();
    parts.scheme = Some(origin.scheme().clone());
    parts.authority = Some(origin.authority().clone());
    // What has a scheme and an authority needs a path, and nothing else can be missing.
    parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    *uri = http::Uri::from_parts(parts).unwrap_or_default();
}
