//! Faults changed at run time, over HTTP: a tower service, to be mounted by axum, hyper or anything
//! else.
//!
//! | | |
//! |---|---|
//! | `GET` | rules in force, what they have done, faults in force now, and the limits |
//! | `PUT` a rule, or a list of rules, as JSON | in place of those in force, all of them or none |
//! | `POST` a rule, or a list of rules, as JSON | after those in force, which go on; all of them or none |
//! | `DELETE` | none in force |
//!
//! All answer what `GET` does, or `application/problem+json` (RFC 9457) that names the field at
//! fault. [Limits](super::Limits) can't be changed here.
//!
//! Whoever may change faults may stop the service. So by default only this host may, by a token,
//! and no page in a browser of this host: see [`Access`].
//!
//! ```
//! use axum::Router;
//! use resilient_client::access::Access;
//! use resilient_client::fault::admin::Admin;
//! use resilient_client::fault::{Faults, Settings};
//!
//! let faults = Faults::new(Settings::new())?;
//! let admin = Admin::new(faults, Access::token("a secret of this process"))?;
//! let app: Router = Router::new().route_service("/faults", admin);
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Extensions, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use serde_json::{Value, json};
use tower_service::Service;

use super::connection::Connection;
use super::faults::Faults;
use super::machine::RuleCounts;
use super::read::{Rules, field};
use super::rule::Rule;
use crate::access::{Access, Refusal, json_response, read_json};
use crate::invalid::Invalid;

/// The admin service. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Admin {
    faults: Faults,
    access: Access,
}

impl Admin {
    /// Checks the options.
    ///
    /// # Errors
    /// When the token is too short, or can't stand in a header.
    pub fn new(faults: Faults, access: Access) -> Result<Self, Invalid> {
        access.check()?;
        let of_connection = |extensions: &Extensions| extensions.get::<Connection>().map(Connection::peer);
        Ok(Self { faults, access: access.peer_by_default(of_connection) })
    }

    async fn answer<B>(self, request: Request<B>) -> Result<Value, Refusal>
    where
        B: Body<Data: Send, Error: Into<crate::error::BoxError>>,
    {
        let (head, body) = request.into_parts();
        self.access.admit(&head)?;
        match head.method {
            Method::GET => {}
            Method::DELETE => self.faults.clear(),
            Method::PUT | Method::POST => {
                let rules = rules(&read_json(&head, body).await?)?;
                let put = match head.method {
                    Method::PUT => self.faults.set(rules),
                    _ => self.faults.add(rules),
                };
                put.map_err(|invalid| Refusal::of("These rules can't be put in force.", &invalid))?;
            }
            _ => return Err(Refusal::method("GET, PUT, POST, DELETE")),
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

/// One rule, or a list.
fn rules(text: &[u8]) -> Result<Vec<Rule>, Refusal> {
    let list = text.trim_ascii_start().starts_with(b"[");
    let read = if list {
        serde_json::from_slice(text).map(|Rules(rules)| rules)
    } else {
        serde_json::from_slice(text).map(|rule| vec![rule])
    };
    read.map_err(|error| {
        let said = error.to_string();
        // The only one is the first.
        let said = match field(&said) {
            Some(_) if said.starts_with('[') => format!("rules{said}"),
            Some(_) => format!("rules[0].{said}"),
            None => said,
        };
        match field(&said) {
            Some((field, why)) => {
                let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "These rules can't be read.");
                refusal.field(field, why)
            }
            None => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, said),
        }
    })
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
                Ok(state) => json_response(StatusCode::OK, "application/json", &state),
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
