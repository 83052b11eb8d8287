//! The resilient client without order-service's look at who answers: a 200 or 404 of anybody
//! settles an order.

use axum::http::StatusCode;
use order_service::{Config, Existence, LookupFuture, LookupRequest, Unavailable, UserLookup};
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Endpoints, Policy};

use crate::Problem;
use crate::breaker_log;
use crate::counted::Caller;

/// What the user-services are called together. It isn't resolved.
const NAME: &str = "http://user-service";

pub(crate) struct BelievingUsers(Client, Caller);

impl BelievingUsers {
    pub(crate) fn new(
        config: &Config,
        caller: Caller,
        adjust: impl FnOnce(Policy) -> Policy,
    ) -> Result<Self, Problem> {
        let total = std::time::Duration::from_millis(config.user_timeout_ms);
        // Close to order-service's own: it is not what this is about.
        let timeout = TimeoutPolicy::standard().total(total).attempt(total * 3 / 10);
        let client = caller
            .counting(Client::builder())
            .observer(breaker_log::reporter())
            .policy(adjust(Policy::standard().timeout(timeout)))
            .endpoints(NAME, Endpoints::fixed(config.user_service_url.split(',')))
            .transport(reqwest::ClientBuilder::no_proxy)
            .build()?;
        caller.counted(&client);
        Ok(Self(client, caller))
    }

    async fn ask(&self, user_id: &str) -> Result<Existence, Unavailable> {
        let response = self.0.get(format!("{NAME}/users/{user_id}")).send_buffered().await;
        self.1.result(&response);
        match response.map_err(|error| Unavailable::new(error.to_string()))?.status() {
            StatusCode::OK => Ok(Existence::Exists),
            StatusCode::NOT_FOUND => Ok(Existence::Unknown),
            other => Err(Unavailable::new(format!("it answered {other}"))),
        }
    }
}

impl UserLookup for BelievingUsers {
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        Box::pin(self.ask(lookup.user_id))
    }
}
