//! The page: three files, no build step, nothing from elsewhere.

use axum::extract::NestedPath;
use axum::extract::rejection::NestedPathRejection;
use axum::response::{Html, IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};

use super::answer::{Visitor, no_sniffing};

/// No script and no style but the page's own files, no request to anywhere else, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn index(_: Visitor, nested: Result<NestedPath, NestedPathRejection>) -> Response {
    // The files stand beside the page wherever that is nested.
    let at = nested.as_ref().map_or("", NestedPath::as_str).trim_end_matches('/');
    let at = at.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let page = include_str!("page/index.html").replace("{at}", &at);
    let headers =
        [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer"), (CACHE_CONTROL, "no-store")];
    (headers, [no_sniffing()], Html(page)).into_response()
}

pub(super) async fn script(_: Visitor) -> Response {
    file("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

pub(super) async fn style(_: Visitor) -> Response {
    file("text/css; charset=utf-8", include_str!("page/page.css"))
}

fn file(media: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, media), (CACHE_CONTROL, "no-cache")], [no_sniffing()], text).into_response()
}
