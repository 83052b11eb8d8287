//! Faults changed at run time, over HTTP: a tower service, to be mounted by axum, hyper or anything else.
//!
//! | | |
//! |---|---|
//! | `GET` | rules in force, what they have done, faults in force now, and the limits |
//! | `PUT` a rule, or a list of rules, as JSON | in place of those in force, all of them or none |
//! | `DELETE` | none in force |
//!
//! All answer what `GET` does, or `application/problem+json` (RFC 9457) that names the field at fault. [Limits](super::Limits) can't
//! be changed here.
//!
//! Whoever may change faults may stop the service. So by default only this host may, by a token, and no page in a browser of this
//! host: see [`AdminOptions`].
//!
//! ```
//! use axum::Router;
//! use resilient_client::fault::admin::{Admin, AdminOptions};
//! use resilient_client::fault::{Faults, Settings};
//!
//! let faults = Faults::new(Settings::new())?;
//! let admin = Admin::new(faults, AdminOptions::token("a secret of this process"))?;
//! let app: Router = Router::new().route_service("/faults", admin);
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod guard;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_service::Service;

pub use guard::AdminOptions;

use super::faults::Faults;
use super::machine::RuleCounts;
use super::rule::Rule;
use crate::invalid::Invalid;

/// The most bytes of rules.
const MOST_BYTES: usize = 64 * 1024;
/// How long they may take to come.
const MOST_TIME: Duration = Duration::from_secs(5);

/// The admin service. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Admin {
    faults: Faults,
    options: AdminOptions,
}

impl Admin {
    /// Checks the options.
    ///
    /// # Errors
    /// When the token is too short, or can't stand in a header.
    pub fn new(faults: Faults, options: AdminOptions) -> Result<Self, Invalid> {
        options.check()?;
        Ok(Self { faults, options })
    }

    async fn answer<B>(self, request: Request<B>) -> Result<Value, Refusal>
    where
        B: Body<Data: Send, Error: Into<crate::error::BoxError>>,
    {
        let (head, body) = request.into_parts();
        self.options.admit(&head)?;
        match head.method {
            Method::GET => {}
            Method::DELETE => self.faults.clear(),
            Method::PUT => {
                let rules = rules(&read(&head, body).await?)?;
                self.faults.set(rules).map_err(|invalid| Refusal::of(&invalid))?;
            }
            _ => return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "GET, PUT or DELETE.")),
        }
        if head.method != Method::GET {
            // Whoever reads the log of a service that misbehaves must not have to guess.
            let rules = self.faults.snapshot().rules.len();
            tracing::warn!(target: "resilient_client", rules, "faults on purpose were changed");
        }
        Ok(self.state())
    }

    fn state(&self) -> Value {
        let (snapshot, limits) = (self.faults.snapshot(), self.faults.limits());
        let counts = |counts: RuleCounts| {
            let RuleCounts { matched, injected, capped } = counts;
            json!({ "matched": matched, "injected": injected, "capped": capped })
        };
        json!({
            "rules": snapshot.rules.iter().map(|(rule, _)| json!(rule)).collect::<Vec<_>>(),
            "counts": snapshot.rules.iter().map(|(_, of_rule)| counts(*of_rule)).collect::<Vec<_>>(),
            "by_header": snapshot.by_header.map(counts),
            "active": snapshot.active,
            "limits": {
                "max_active": limits.max_active,
                "max_delay": humantime::format_duration(limits.max_delay).to_string(),
                "max_bytes": limits.max_bytes,
            },
        })
    }
}

/// The body of a `PUT`. Of another type it is refused: that is what a page of another origin can send without asking.
async fn read<B>(head: &Parts, body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data: Send, Error: Into<crate::error::BoxError>>,
{
    let media = head.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let why = "Rules are sent as application/json.";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    match timeout(MOST_TIME, Limited::new(body, MOST_BYTES).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let why = format!("More than {MOST_BYTES} bytes.");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why))
        }
        Ok(Err(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "The body broke off.")),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "The body took too long.")),
    }
}

/// One rule, or a list.
fn rules(text: &[u8]) -> Result<Vec<Rule>, Refusal> {
    let list = text.trim_ascii_start().starts_with(b"[");
    let read =
        if list { serde_json::from_slice(text) } else { serde_json::from_slice(text).map(|rule| vec![rule]) };
    read.map_err(|error| {
        let said = error.to_string();
        let named = said.split_once(": ").filter(|(field, _)| is_field(field));
        let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "These rules can't be read.");
        match named {
            Some((field, why)) => refusal.field(field, why),
            None => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, said),
        }
    })
}

fn is_field(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.')
}

/// Why a request is refused.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    detail: String,
    field: Option<(String, String)>,
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None }
    }

    fn of(invalid: &Invalid) -> Self {
        let refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "These rules can't be put in force.");
        let (field, why) = invalid.field();
        refusal.field(&field, why)
    }

    fn field(self, field: &str, why: &str) -> Self {
        Self { field: Some((field.to_owned(), why.to_owned())), ..self }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut problem = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let (Some((field, detail)), Some(problem)) = (self.field, problem.as_object_mut()) {
            problem.insert("errors".to_owned(), json!([{ "field": field, "detail": detail }]));
        }
        let mut response = respond(self.status, "application/problem+json", &problem);
        match self.status {
            StatusCode::UNAUTHORIZED => {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, PUT, DELETE"));
            }
            _ => {}
        }
        response
    }
}

fn respond(status: StatusCode, media: &'static str, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl<B> Service<Request<B>> for Admin
where
    B: Body<Data: Send, Error: Into<crate::error::BoxError>> + Send + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = AdminFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AdminFuture {
        let answer = self.clone().answer(request);
        AdminFuture(Box::pin(async {
            match answer.await {
                Ok(state) => respond(StatusCode::OK, "application/json", &state),
                Err(refusal) => refusal.response(),
            }
        }))
    }
}

/// An answer to come.
#[must_use = "futures do nothing unless you await or poll them"]
pub struct AdminFuture(Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>);

impl Future for AdminFuture {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for AdminFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminFuture").finish_non_exhaustive()
    }
}
