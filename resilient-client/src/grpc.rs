//! gRPC over a tower service: a [`ResilienceLayer`](crate::ResilienceLayer) round tonic's channel,
//! or a client of this crate's that is given gRPC's bytes.
//!
//! With the feature `grpc` a `POST` of the type `application/grpc` is known for a gRPC call, and
//!
//! - what an attempt came to is what [its status](crate::outcome::classify::grpc) says, in the head
//!   or in the trailers;
//! - it is repeated under the conditions of any other `POST`: provably not processed, or
//!   [said to be](crate::CallOptions::idempotent) safe to repeat, by the call or
//!   [for a route](crate::policy::retry::RetryPolicy::idempotent). And only before the head of an
//!   answer has been handed over: on a status in the head, that is, unless the call is
//!   [buffered](crate::CallOptions::buffered), when its trailers are part of the attempt;
//! - the caller's `grpc-timeout` is the call's time, if it is less than the policy's, and each
//!   attempt's server is told what is left of it ([decision 0044]);
//! - from the second attempt on `grpc-previous-rpc-attempts` says how many there were;
//! - behind a layer its caller gets statuses, and no [`Error`]s: see [`code_of`]. The error itself
//!   is in the extensions of an answer whose head says so, as an `Arc<Error>`.
//!
//! Calls of gRPC-Web are `POST`s like others. A call whose stream outlasts the policy's total is
//! marked [streaming](crate::CallOptions::streaming).
//!
//! tonic's bodies can be sent once, so they are kept as they are sent (64 KiB of them, see
//! [`ReplayBody`](crate::ReplayBody)). `channel` stands for a `tonic::transport::Channel`, and
//! `TonicBody` for `tonic::body::Body`, which `TonicBody::new` makes of any other:
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::PolicySet;
//! use resilient_client::policy::retry::RetryPolicy;
//! use resilient_client::{CallOptions, Policy, ReplayBody, ResilienceLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//! # use bytes::Bytes;
//! # use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
//! # type BoxError = Box<dyn std::error::Error + Send + Sync>;
//! # struct TonicBody(UnsyncBoxBody<Bytes, BoxError>);
//! # impl TonicBody {
//! #     fn new<B>(body: B) -> Self
//! #     where
//! #         B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
//! #     {
//! #         Self(body.map_err(Into::into).boxed_unsync())
//! #     }
//! # }
//! # impl http_body::Body for TonicBody {
//! #     type Data = Bytes;
//! #     type Error = BoxError;
//! #     fn poll_frame(
//! #         mut self: std::pin::Pin<&mut Self>,
//! #         cx: &mut std::task::Context<'_>,
//! #     ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
//! #         std::pin::Pin::new(&mut self.0).poll_frame(cx)
//! #     }
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! # let channel = tower::service_fn(async |_: http::Request<TonicBody>| {
//! #     let head = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
//! #     head.body(TonicBody::new(String::new()))
//! # });
//! // `GetUser` may be repeated; what else this service has may not.
//! let safe = |policy: Policy| policy.retry(RetryPolicy::standard().idempotent(true));
//! let policies = PolicySet::new(Policy::standard())
//!     .route("http://users:50051", "POST", "/users.Users/GetUser", safe);
//! let channel = ServiceBuilder::new()
//!     .map_request(|request: http::Request<TonicBody>| request.map(ReplayBody::new))
//!     .layer(ResilienceLayer::new(policies)?)
//!     .map_request(|request: http::Request<ReplayBody<TonicBody>>| request.map(TonicBody::new))
//!     .service(channel);
//! // let users = UsersClient::with_origin(channel, "http://users:50051".parse()?);
//!
//! // What one call asks for differently is in its extensions, which tonic's requests have, too.
//! let mut request = http::Request::post("http://users:50051/users.Users/Rename")
//!     .header("content-type", "application/grpc")
//!     .body(TonicBody::new(String::new()))?;
//! request.extensions_mut().insert(CallOptions::new().idempotent(true).timeout(Duration::from_secs(1)));
//! let response = channel.oneshot(request).await?;
//! assert_eq!(response.headers()["grpc-status"], "14");
//! assert_eq!(response.body().report().attempts().len(), 4);
//! # Ok(())
//! # }
//! ```
//!
//! [decision 0044]: https://github.com/resilient-client/resilient-client/blob/main/docs/decisions/0044-grpc.md

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version};

use crate::deadline::header::{GRPC_TIMEOUT, grpc_value, parse_grpc};
use crate::error::{Error, ErrorKind};
use crate::outcome::classify::grpc::{Code, GRPC_STATUS};

/// The request header that says how many attempts came before, from the second on ([gRFC A6]):
/// `grpc-previous-rpc-attempts`.
///
/// [gRFC A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#exposed-retry-metadata
pub const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The longest message of a status, in bytes before it is encoded.
const LONGEST_MESSAGE: usize = 1024;

/// The status that an error is to a gRPC caller.
///
/// | kinds | code |
/// |---|---|
/// | `Timeout`, `Deadline`, `BodyIdle` | `DeadlineExceeded` |
/// | `BulkheadFull`, `Overloaded`, `RateLimited`, `BodyTooLarge` | `ResourceExhausted` |
/// | `Connect`, `NoEndpoint`, `CircuitOpen`, `Throttled`, `Draining`, `Transport`, `Body` | `Unavailable` |
/// | the last two, of a stream that the server reset | [what that means to gRPC][errors] |
/// | any other: this side's mistake | `Internal` |
///
/// [errors]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
pub fn code_of(error: &Error) -> Code {
    use ErrorKind as Kind;
    match error.kind() {
        Kind::Timeout | Kind::Deadline | Kind::BodyIdle => Code::DeadlineExceeded,
        Kind::BulkheadFull | Kind::Overloaded | Kind::RateLimited | Kind::BodyTooLarge => {
            Code::ResourceExhausted
        }
        Kind::Transport | Kind::Body => reset(error).unwrap_or(Code::Unavailable),
        Kind::Connect | Kind::NoEndpoint | Kind::CircuitOpen | Kind::Throttled | Kind::Draining => {
            Code::Unavailable
        }
        Kind::Config | Kind::Request | Kind::WouldBlock | Kind::Decode | Kind::Redirect | Kind::Status => {
            Code::Internal
        }
    }
}

/// What it means that the server reset the stream; `None` when it was something else.
#[cfg(feature = "http2")]
fn reset(error: &dyn StdError) -> Option<Code> {
    let mut link = error.source();
    loop {
        let this = link?;
        match this.downcast_ref::<h2::Error>() {
            Some(error) if error.is_reset() => return error.reason().map(of_reason),
            _ => link = this.source(),
        }
    }
}

#[cfg(feature = "http2")]
fn of_reason(reason: h2::Reason) -> Code {
    use h2::Reason;
    match reason {
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

#[cfg(not(feature = "http2"))]
fn reset(_: &dyn StdError) -> Option<Code> {
    None
}

/// Writes what a gRPC request says of attempt `number`: what is `left` of its time, if that is to
/// be told, and how many came before.
pub(crate) fn write(headers: &mut HeaderMap, left: Option<Duration>, number: u32) {
    if let Some(left) = left {
        let said = parse_grpc(headers);
        // What its caller has said is only ever shortened, and left alone where it says nothing.
        if said.is_some_and(|said| left < said) || said.is_none() && !headers.contains_key(GRPC_TIMEOUT) {
            headers.insert(GRPC_TIMEOUT, grpc_value(left));
        }
    }
    if number > 1 {
        headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(number - 1));
    }
}

/// An error as trailers say it.
pub(crate) fn status(error: &Error) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(code_of(error).number())));
    if let Ok(message) = HeaderValue::try_from(encoded(&error.to_string())) {
        headers.insert(GRPC_MESSAGE, message);
    }
    headers
}

/// An answer without messages that says an error, which is among its extensions.
pub(crate) fn answer<B>(error: Error, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = status(&error);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response.extensions_mut().insert(Arc::new(error));
    response
}

/// A message as a header may hold it: what isn't printable ASCII, and `%`, is percent-encoded.
fn encoded(message: &str) -> String {
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut text = String::with_capacity(end);
    for byte in message[..end].bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                text.push('%');
                for half in [byte >> 4, byte & 15] {
                    text.push(char::from(DIGITS[usize::from(half)]));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
