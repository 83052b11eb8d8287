//! Asking user-service through resilient-client: the only file that knows the crate.

use std::time::Duration;

use axum::http::StatusCode;
use resilient_client::{Client, Policy, policy::timeout::TimeoutPolicy};
use url::Url;

use crate::{
    Config, Error, Existence, Lookup, LookupFuture, Unavailable, UserDirectory,
    plumbing::{error::causes, request_id::X_REQUEST_ID},
};

/// One try. The rest of the call's time is for another, should this one hang.
const ATTEMPT: Duration = Duration::from_millis(300);
/// A user is far smaller.
const MAX_BODY: usize = 64 * 1024;

/// user-service, asked through resilient-client.
///
/// The standard policy with a short total: whoever places an order waits for this call, and an order that can't be
/// verified in time is kept as pending anyway. Once the circuit breaker is open, the answer is immediate.
#[derive(Clone, Debug)]
pub struct ResilientUsers {
    client: Client,
    base: String,
}

impl ResilientUsers {
    /// A client for the user-service that the configuration names.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let base = base_url(&config.user_service_url)?;
        let total = Duration::from_millis(config.user_timeout_ms);
        let attempt = ATTEMPT.min(total);
        let timeout = TimeoutPolicy::standard().total(total).attempt(attempt);
        let client = Client::builder()
            .policy(Policy::standard().timeout(timeout))
            .max_body(MAX_BODY)
            // A redirect or a proxy's page must not pass for user-service's own 200.
            .transport(|transport| transport.redirect(reqwest::redirect::Policy::none()).no_proxy())
            .build()
            .map_err(|error| Error::config(format!("the client for user-service: {}", causes(&error))))?;
        Ok(Self { client, base })
    }
}

impl UserDirectory for ResilientUsers {
    fn lookup<'a>(&'a self, lookup: Lookup<'a>) -> LookupFuture<'a> {
        Box::pin(async move {
            let url = format!("{}/users/{}", self.base, lookup.user_id);
            let call = self.client.get(url).header(X_REQUEST_ID, lookup.request_id);
            let response = call.send().await.map_err(|error| unavailable(&error))?;
            let existence = match response.status() {
                StatusCode::OK => Existence::Exists,
                StatusCode::NOT_FOUND => Existence::Unknown,
                other => return Err(Unavailable::new(format!("it answered {other}"))),
            };
            // Reading the body to its end gives the connection back, and an answer that breaks off is none.
            response.bytes().await.map_err(|error| unavailable(&error))?;
            Ok(existence)
        })
    }
}

fn unavailable(error: &resilient_client::Error) -> Unavailable {
    Unavailable::new(causes(error))
}

/// The URL without its trailing slash, so that a path can follow.
fn base_url(raw: &str) -> Result<String, Error> {
    // The URL may hold a password, so no message repeats it.
    let refuse = |why: &str| Err(Error::config(format!("user-service-url {why}")));
    let Ok(url) = Url::parse(raw) else { return refuse("is not a URL, such as http://127.0.0.1:3000") };
    if url.scheme() != "http" {
        // Services in one cluster; TLS would be a feature of the crate and a line here.
        return refuse("must begin with http://");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must not have a query or a fragment");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::base_url;

    #[test]
    fn a_base_url_may_have_a_path() {
        assert_eq!(base_url("http://127.0.0.1:3000").unwrap(), "http://127.0.0.1:3000");
        assert_eq!(base_url("http://gateway/users-v1/").unwrap(), "http://gateway/users-v1");
    }

    #[test]
    fn a_url_that_cannot_work_is_refused_without_repeating_it() {
        for bad in [
            "",
            "localhost:3000",
            "ftp://u:secret@h",
            "https://h",
            "http://",
            "http://u:secret@h?x=1",
            "http://h/#f",
        ] {
            let error = base_url(bad).unwrap_err();
            assert!(error.is_config() && !error.to_string().contains("secret"), "{bad}: {error}");
        }
    }
}
