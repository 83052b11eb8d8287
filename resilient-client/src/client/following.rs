//! A call over reqwest that follows redirects above the calls.

use std::fmt::Write as _;

use reqwest::{Body, Request};

use super::payload::whole_bytes;
use super::{Client, Response};
use crate::call::options::CallOptions;
use crate::call::pending::Pending;
use crate::call::trail::{Answered, Carried, Follow, Head, Next, Trail, Turn};
use crate::client::exchange::ReqwestExchange;
use crate::error::Error;
use crate::outcome::report::CallReport;

/// A call's trail, and the client that goes on with it.
pub(super) struct Following {
    client: Client,
    trail: Trail,
}

impl Following {
    /// `None` where redirects are left to the transport.
    #[inline]
    pub(super) fn of(client: &Client, request: &mut Request, options: &CallOptions) -> Option<Box<Self>> {
        if options.rare.is_none() && client.facts.redirects.is_none() {
            return None;
        }
        Self::set(client, request, options)
    }

    #[cold]
    fn set(client: &Client, request: &mut Request, options: &CallOptions) -> Option<Box<Self>> {
        let rules = options.own_redirects().or(client.facts.redirects.as_ref())?.clone();
        let head = Head {
            method: request.method().clone(),
            url: request.url().clone(),
            headers: request.headers().clone(),
            version: request.version(),
        };
        let body = match request.body_mut() {
            None => Carried::Nothing,
            Some(body) => match whole_bytes(body) {
                Some(bytes) => {
                    *body = Body::from(bytes.clone());
                    Carried::Bytes(bytes)
                }
                None => Carried::Stream,
            },
        };
        let trail = Trail::new(rules, head, body, options.clone());
        Some(Box::new(Self { client: client.clone(), trail }))
    }
}

impl Follow<ReqwestExchange> for Following {
    fn trail(&mut self) -> &mut Trail {
        &mut self.trail
    }

    fn report(response: &mut Response) -> &mut CallReport {
        response.report_mut()
    }

    fn turn(&mut self, response: &Response, report: &mut CallReport) -> Result<Turn, Error> {
        let answered =
            Answered { status: response.status(), headers: response.headers(), url: response.url() };
        let clean = || self.client.transport.as_ref().is_some_and(adds_no_credentials);
        self.trail.turn(&self.client.core, &answered, report, clean)
    }

    fn call(&self, next: Next) -> Result<Pending<ReqwestExchange>, Error> {
        let Next { head, body, options } = next;
        let mut request = Request::new(head.method, head.url);
        (*request.headers_mut(), *request.version_mut()) = (head.headers, head.version);
        *request.body_mut() = body.map(Body::from);
        Ok(self.client.follow(request, options))
    }
}

/// Whether a client is known to add no credentials to a request that has none. Its default headers
/// show nowhere but in how it describes itself; if that changes, nothing is known.
fn adds_no_credentials(client: &reqwest::Client) -> bool {
    let mut said = String::new();
    if write!(said, "{client:?}").is_err() {
        return false;
    }
    let said = said.to_ascii_lowercase();
    let secret = ["\"authorization\"", "\"cookie\"", "\"cookie2\"", "\"proxy-authorization\"", ": sensitive"];
    said.contains("default_headers: {") && !secret.iter().any(|secret| said.contains(secret))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{AUTHORIZATION, HeaderValue};

    use super::*;

    #[test]
    fn a_client_is_asked_for_the_credentials_among_its_default_headers() {
        let client = |name: http::HeaderName, value: HeaderValue| {
            let headers = HeaderMap::from_iter([(name, value)]);
            reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap()
        };
        let mut secret = HeaderValue::from_static("s3cret");
        assert!(adds_no_credentials(&reqwest::Client::builder().no_proxy().build().unwrap()));
        assert!(adds_no_credentials(&client(http::header::ACCEPT_LANGUAGE, "de".parse().unwrap())));
        assert!(!adds_no_credentials(&client(AUTHORIZATION, secret.clone())));
        secret.set_sensitive(true);
        assert!(!adds_no_credentials(&client(http::HeaderName::from_static("x-api-key"), secret)));
    }
}
