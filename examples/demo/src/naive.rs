//! The naive twins: order-service with the clients that most services start with.
//!
//! The same service, database and routes; only the question "does this user exist?" is asked in the
//! way of a tutorial, and an error is answered with 500 (`ask_first.rs`). They differ in what
//! happens to a question that isn't answered:
//!
//! | | |
//! |---|---|
//! | `no-timeout` | reqwest as it comes: no timeout, one try |
//! | `loop` | a timeout of a second, and up to three tries, one right after the other |
//! | `reqwest-retry` | reqwest-middleware with reqwest-retry as its README has it: up to three retries with exponential backoff, no timeout (the README's tracing middleware only logs, and isn't here) |
//!
//! None has a limit on calls in flight, a retry budget or a circuit breaker. With several
//! user-services they are asked in turn (round robin). 200 lets the order through, 404 refuses it;
//! anything else is a failure. Proxies are off, which have no business on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use clap::ValueEnum;
use order_service::{Existence, LookupFuture, LookupRequest, Unavailable, UserLookup};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use serde::Serialize;
use service_kit::request_id::X_REQUEST_ID;

use crate::Problem;

/// How long `loop` waits for one answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How often `loop` asks.
const TRIES: usize = 3;
/// How often `reqwest-retry` asks again.
const RETRIES: u32 = 3;

/// Which naive client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Naive {
    /// reqwest as it comes: no timeout, one try
    NoTimeout,
    /// A timeout of a second, and three tries in a loop
    Loop,
    /// reqwest-middleware and reqwest-retry as their README has it
    ReqwestRetry,
}

impl Naive {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoTimeout => "no-timeout",
            Self::Loop => "loop",
            Self::ReqwestRetry => "reqwest-retry",
        }
    }

    /// The reqwest client under it.
    pub(crate) fn http(self) -> reqwest::Result<reqwest::Client> {
        let http = reqwest::Client::builder().no_proxy();
        match self {
            Self::NoTimeout | Self::ReqwestRetry => http,
            Self::Loop => http.timeout(TIMEOUT),
        }
        .build()
    }

    /// The same with reqwest-retry round it.
    pub(crate) fn retrying(http: reqwest::Client) -> ClientWithMiddleware {
        let waits = ExponentialBackoff::builder().build_with_max_retries(RETRIES);
        let retry = RetryTransientMiddleware::new_with_policy(waits);
        reqwest_middleware::ClientBuilder::new(http).with(retry).build()
    }

    /// For the introduction, in lines of at most 65 columns.
    pub(crate) const fn described(self) -> &'static str {
        match self {
            Self::NoTimeout => "reqwest with its default settings: no timeout, one try",
            Self::Loop => "reqwest with a timeout of 1 s, up to three tries in a loop",
            Self::ReqwestRetry => "reqwest-retry as its README has it: three retries, no timeout",
        }
    }
}

/// One of the naive clients, and whom it asks.
#[derive(Clone)]
pub(crate) struct NaiveUsers {
    client: Client,
    bases: Arc<[String]>,
    turn: Arc<AtomicUsize>,
}

#[derive(Clone)]
enum Client {
    Plain { http: reqwest::Client, tries: usize },
    Retrying(ClientWithMiddleware),
}

impl NaiveUsers {
    /// `bases`: one URL, or several with commas between.
    pub(crate) fn new(kind: Naive, bases: &str) -> Result<Self, Problem> {
        let http = kind.http()?;
        let client = match kind {
            Naive::NoTimeout => Client::Plain { http, tries: 1 },
            Naive::Loop => Client::Plain { http, tries: TRIES },
            Naive::ReqwestRetry => Client::Retrying(Naive::retrying(http)),
        };
        let bases = bases.split(',').map(str::to_owned).collect();
        Ok(Self { client, bases, turn: Arc::default() })
    }

    async fn ask(
        &self,
        LookupRequest { user_id, request_id }: LookupRequest<'_>,
    ) -> Result<Existence, Unavailable> {
        match &self.client {
            Client::Plain { http, tries } => {
                let mut answer = Err(Unavailable::new("never asked"));
                for _ in 0..*tries {
                    let question = http.get(self.url(user_id)).header(X_REQUEST_ID, request_id);
                    answer = read(question.send().await).await;
                    if answer.is_ok() {
                        break;
                    }
                }
                answer
            }
            Client::Retrying(http) => {
                read(http.get(self.url(user_id)).header(X_REQUEST_ID, request_id).send().await).await
            }
        }
    }

    fn url(&self, user_id: &str) -> String {
        let base = &self.bases[self.turn.fetch_add(1, Ordering::Relaxed) % self.bases.len()];
        format!("{base}/users/{user_id}")
    }
}

/// What the tutorial makes of it.
async fn read<E: std::fmt::Display>(answer: Result<reqwest::Response, E>) -> Result<Existence, Unavailable> {
    let response = answer.map_err(|error| Unavailable::new(error.to_string()))?;
    let existence = match response.status() {
        StatusCode::OK => Existence::Exists,
        StatusCode::NOT_FOUND => Existence::Unknown,
        other => return Err(Unavailable::new(format!("it answered {other}"))),
    };
    // The tutorial parses the user; it must arrive whole in either case.
    response.bytes().await.map_err(|error| Unavailable::new(error.to_string()))?;
    Ok(existence)
}

impl UserLookup for NaiveUsers {
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        Box::pin(self.ask(lookup))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_called_on_the_command_line_what_it_is_called_in_the_report() {
        for kind in Naive::value_variants() {
            assert_eq!(kind.to_possible_value().expect("none is hidden").get_name(), kind.name());
        }
    }

    #[tokio::test]
    async fn each_kind_asks_as_often_as_it_says() {
        use axum::routing::get;
        for (kind, calls) in [(Naive::NoTimeout, 1), (Naive::Loop, TRIES)] {
            let count = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&count);
            let refuse = async move || {
                counter.fetch_add(1, Ordering::Relaxed);
                StatusCode::SERVICE_UNAVAILABLE
            };
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let base = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                axum::serve(listener, axum::Router::new().route("/users/{id}", get(refuse))).await
            });
            let users = NaiveUsers::new(kind, &base).unwrap();
            users.ask(LookupRequest { user_id: "1", request_id: "2" }).await.unwrap_err();
            assert_eq!(count.load(Ordering::Relaxed), calls, "{}", kind.name());
        }
    }
}
