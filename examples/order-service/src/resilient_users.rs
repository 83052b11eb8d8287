//! Asking user-service through resilient-client: the only file that knows the crate.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use resilient_client::{
    CallReport, Client, ClientBuilder, Endpoints, Metrics, Policy, UpstreamSnapshot,
    event::{CallEnd, Observer},
    outcome::{
        FailureKind,
        classify::{Classified, Ended, Repeat},
    },
    policy::{hedge::HedgePolicy, timeout::TimeoutPolicy},
};
use url::Url;

use crate::user_answer::{self, Unsettled};
use crate::{Config, Error, LookupFuture, LookupRequest, Unavailable, UserLookup};
use service_kit::{error::causes, meters::Meters, request_id::X_REQUEST_ID, traces::Propagate};

/// One try. The rest of the call's time is for another, should this one hang.
const ATTEMPT: Duration = Duration::from_millis(300);
/// A user is far smaller.
const MAX_BODY: usize = 64 * 1024;
/// A page of a hundred users, each field as long as it may be and written in escapes.
#[cfg(feature = "amqp")]
const MAX_PAGE: usize = 1024 * 1024;
/// What several replicas of user-service are called together, here and in logs. It isn't resolved.
const NAME: &str = "http://user-service";

type HearReport = Arc<dyn Fn(&CallReport, CallEnd) + Send + Sync>;

/// user-service, asked through resilient-client.
///
/// The standard policy with a short total: whoever places an order waits for this call, and an
/// order that can't be verified in time is kept as pending anyway. Once the circuit breaker is
/// open, the answer is immediate.
///
/// With several replicas each try goes to one that does well, and one that takes unusually long is
/// overtaken by a second try elsewhere (a hedge). A lookup changes nothing, so asking twice does no
/// harm.
#[derive(Clone)]
pub struct ResilientUsers {
    client: Client,
    base: String,
    reports: Option<HearReport>,
    /// Whether the last answer was somebody else's: that is logged once.
    is_impostor: Arc<AtomicBool>,
}

impl ResilientUsers {
    /// A client for the user-service that the configuration names.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::adjusted(config, Client::builder(), |policy| policy)
    }

    /// The same, counting there what its calls do.
    pub fn metered(config: &Config, meters: &Meters) -> Result<Self, Error> {
        let metrics = Metrics::with_recorder(meters.recorder());
        let users = Self::observed(config, metrics.clone())?;
        let client = users.client.clone();
        meters.before_rendering(move || metrics.record_snapshot(&client.snapshot()));
        Ok(users)
    }

    /// The same, and `observer` hears all that happens to its calls.
    pub fn observed(config: &Config, observer: impl Observer) -> Result<Self, Error> {
        Self::adjusted(config, Client::builder().observer(observer), |policy| policy)
    }

    /// The same of another builder, and with another policy, made of this one: the demo shows what
    /// is missing without parts of either.
    pub fn adjusted(
        config: &Config,
        builder: ClientBuilder,
        adjust: impl FnOnce(Policy) -> Policy,
    ) -> Result<Self, Error> {
        // First: what can't work is refused by the name that it was given by.
        config.validate()?;
        let total = Duration::from_millis(config.user_timeout_ms);
        let attempt = ATTEMPT.min(total);
        let timeout = TimeoutPolicy::standard().total(total).attempt(attempt);
        let (base, client) = client(config, builder.max_body(MAX_BODY), timeout, adjust)?;
        Ok(Self { client, base, reports: None, is_impostor: Arc::default() })
    }

    /// The same, and `hear` is given the report of every call that has its result. One that nobody
    /// waits for any more has none.
    #[must_use]
    pub fn reporting(self, hear: impl Fn(&CallReport, CallEnd) + Send + Sync + 'static) -> Self {
        Self { reports: Some(Arc::new(hear)), ..self }
    }

    fn tell(&self, report: Option<&CallReport>, end: CallEnd) {
        if let (Some(hear), Some(report)) = (&self.reports, report) {
            hear(report, end);
        }
    }

    /// The client, for an operator.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How its upstreams are: in flight, breaker, budget and more.
    pub fn snapshot(&self) -> Vec<UpstreamSnapshot> {
        self.client.snapshot()
    }
}

/// A client for the user-service that the configuration names, and what its URLs begin with.
fn client(
    config: &Config,
    builder: ClientBuilder,
    timeout: TimeoutPolicy,
    adjust: impl FnOnce(Policy) -> Policy,
) -> Result<(String, Client), Error> {
    let policy = Policy::standard().timeout(timeout).classify(only_its_own);
    let (base, builder) = if config.user_service_url.contains(',') {
        let policy = policy.hedge(HedgePolicy::standard());
        (NAME.to_owned(), builder.policy(adjust(policy)).endpoints(NAME, replicas(&config.user_service_url)?))
    } else {
        let base = base_url(&config.user_service_url);
        let base = base.map_err(|why| Error::config(format!("user-service-url {why}")))?;
        // Told to the client, too: before the first call it knows whom an operator names.
        let builder = builder.base_url(&base);
        (base, builder.policy(adjust(policy)))
    };
    let client = builder
        .on_attempt(Propagate)
        // A redirect must not pass for user-service's own answer.
        .transport(|transport| transport.redirect(reqwest::redirect::Policy::none()).no_proxy())
        .build()
        .map_err(|error| Error::config(format!("the client for user-service: {}", causes(&error))))?;
    Ok((base, client))
}

/// All users, page by page: for the copy, which nobody waits for.
#[cfg(feature = "amqp")]
#[derive(Clone, Debug)]
pub(crate) struct UserPages {
    client: Client,
    base: String,
}

/// One page of user-service's list.
#[cfg(feature = "amqp")]
#[derive(Debug, serde::Deserialize)]
pub(crate) struct UserPage {
    pub(crate) users: Vec<crate::user_copy::CopiedUser>,
    pub(crate) next: Option<String>,
    #[serde(flatten)]
    pub(crate) last: crate::user_copy::LastChange,
}

#[cfg(feature = "amqp")]
impl UserPages {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let (base, client) =
            client(config, Client::builder().max_body(MAX_PAGE), TimeoutPolicy::standard(), |policy| policy)?;
        Ok(Self { client, base })
    }

    /// At most `limit` users behind the one with the id `after`. An answer that isn't such a page
    /// is none.
    pub(crate) async fn page(&self, after: Option<&str>, limit: u8) -> Result<UserPage, Unavailable> {
        let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
        let url = format!("{}/users?limit={limit}{after}", self.base);
        let response = self.client.get(url).send_buffered().await.map_err(|error| unavailable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(|error| unavailable(&error))?;
        if status != 200 || !user_answer::is_fitting(status, &headers) {
            return Err(Unavailable::new(format!("it answered {status} to a question for its list")));
        }
        serde_json::from_slice(&body)
            .map_err(|error| Unavailable::new(format!("the list is not user-service's own: {error}")))
    }
}

impl fmt::Debug for ResilientUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientUsers").field("client", &self.client).finish_non_exhaustive()
    }
}

impl UserLookup for ResilientUsers {
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        Box::pin(async move {
            let url = format!("{}/users/{}", self.base, lookup.user_id);
            let call = self.client.get(url).header(X_REQUEST_ID, lookup.request_id);
            let response = call.send().await.map_err(|error| {
                self.tell(error.report(), CallEnd::Error(error.kind()));
                unavailable(&error)
            })?;
            let (status, headers) = (response.status(), response.headers().clone());
            self.tell(Some(response.report()), CallEnd::Response(status));
            // Reading the body to its end gives the connection back, and an answer that breaks off
            // is none.
            let body = response.bytes().await.map_err(|error| unavailable(&error))?;
            let answer = user_answer::read(status, &headers, &body, lookup.user_id);
            match &answer {
                Ok(_) => self.is_impostor.store(false, Ordering::Relaxed),
                Err(Unsettled::NotItsOwn(why)) if !self.is_impostor.swap(true, Ordering::Relaxed) => {
                    tracing::warn!(
                        why,
                        "what answers is not user-service's own: orders stay pending until it is"
                    );
                }
                Err(_) => {}
            }
            answer.map_err(|unsettled| Unavailable::new(unsettled.to_string()))
        })
    }
}

/// A page that some proxy shows is a failure like any other: worth another try elsewhere, and
/// counted.
fn only_its_own(end: Ended<'_>, standard: Classified) -> Classified {
    match end {
        Ended::Response(status, headers)
            if standard.is_success() && !user_answer::is_fitting(status, headers) =>
        {
            Classified::failure(FailureKind::Status, Repeat::IfSafe)
        }
        _ => standard,
    }
}

fn unavailable(error: &resilient_client::Error) -> Unavailable {
    Unavailable::new(causes(error))
}

/// The URL without its trailing slash, so that a path can follow; or what is wrong with it. That
/// never repeats the URL, which may hold a password.
fn base_url(raw: &str) -> Result<String, &'static str> {
    let url = Url::parse(raw).map_err(|_| "is not a URL, such as http://127.0.0.1:3000")?;
    if url.scheme() != "http" {
        // Services in one cluster; TLS would be a feature of the crate and a line here.
        return Err("must begin with http://");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Several origins, separated by commas.
fn replicas(raw: &str) -> Result<Endpoints, Error> {
    let origins = raw.split(',').map(str::trim);
    for (number, origin) in (1..).zip(origins.clone()) {
        base_url(origin).map_err(|why| Error::config(format!("user-service-url number {number} {why}")))?;
    }
    let endpoints = Endpoints::fixed(origins);
    // What it repeats of an origin holds no password.
    endpoints.check().map_err(|invalid| Error::config(format!("user-service-url: {invalid}")))?;
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_origins_separated_by_commas() {
        let config = |urls: &str| Config { user_service_url: urls.into(), ..Config::default() };
        let one = ResilientUsers::new(&config("http://gateway/users-v1/")).unwrap();
        assert_eq!(one.base, "http://gateway/users-v1");
        let three = ResilientUsers::new(&config("http://a:1, http://b:2,http://c:3/")).unwrap();
        assert_eq!(three.base, "http://user-service");
    }

    #[test]
    fn a_list_that_cannot_work_is_refused_saying_which_replica_and_why() {
        for (urls, why) in [
            ("http://a,", "user-service-url number 2 is not a URL, such as http://127.0.0.1:3000"),
            (",", "user-service-url number 1 is not"),
            ("http://a,https://b", "user-service-url number 2 must begin with http://"),
            ("http://a:1,http://b:1,HTTP://A:1/", "endpoints number 3, HTTP://A:1/: is number 1 again"),
            ("http://a,http://b/v1", "endpoints number 2, http://b/v1: must be a scheme, a host and a port"),
            ("http://a,http://u:secret@b", "endpoints number 2, http://***@b: must not carry a user"),
            ("http://a,http://b?x=secret", "number 2 must not have a query or a fragment"),
        ] {
            let error = replicas(urls).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{urls}: {error}");
            assert!(!error.to_string().contains("secret"), "{urls}: {error}");
        }
    }

    #[test]
    fn a_time_that_cannot_work_is_refused_by_the_name_of_its_flag() {
        let config = Config { user_timeout_ms: 0, ..Config::default() };
        let error = ResilientUsers::new(&config).unwrap_err().to_string();
        assert!(error.contains("user-timeout-ms must be at least 1"), "{error}");
    }

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
            let config = Config { user_service_url: bad.into(), ..Config::default() };
            let error = ResilientUsers::new(&config).unwrap_err();
            assert!(error.is_config() && !error.to_string().contains("secret"), "{bad}: {error}");
        }
    }
}
