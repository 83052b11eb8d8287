//! Whatever fails, three who don't know of one another count the same calls and attempts: the
//! metrics, the callers by their reports, and the server by what it reads. The demo's verdict does
//! it with processes that are killed; here are both transports, hedges, endpoints, bodies that
//! break off and calls that nobody waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use resilient_client::event::{CallEnd, Event};
use resilient_client::policy::hedge::{Delay, HedgePolicy};
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Attempt, CallReport, Endpoints, Error, Metrics, Policy, Prepared};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Heard, Reply, SOON, Server, within};
use service_kit::meters::Meters;
use tokio::task::JoinSet;

const CALLS: usize = 300;
const AT_ONCE: usize = 10;
const NAME: &str = "http://users";
const ATTEMPT: &str = "x-attempt";

/// What a caller got: how its call ended, by its report.
type Ended = (String, CallReport);

fn ended<R>(result: &Result<R, Error>, response: impl Fn(&R) -> Ended) -> Ended {
    match result {
        Ok(it) => response(it),
        Err(error) => (error.kind().as_str().to_owned(), error.report().expect("it was begun").clone()),
    }
}

async fn server() -> Server {
    Server::start(|request| match request.nth % 13 {
        0 => Reply::answer(503, "no"),
        2 => Reply::nothing().then_hang(),
        4 => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbro").then_close(),
        6 => Reply::nothing().then_reset(),
        8 => Reply::answer(200, "late").delayed(Duration::from_millis(60)),
        10 => Reply::answer_with(502, &[("retry-after", "0")], "no"),
        _ => Reply::answer(200, "ok"),
    })
    .await
}

/// Without a breaker and a budget, which would end most of it, and with a hedge for whoever is
/// late: a failure is repeated at once out of the same share, and here would leave little of it.
fn policy() -> Policy {
    let timeout = TimeoutPolicy::standard().total(Duration::from_secs(1)).attempt(Duration::from_millis(200));
    Policy::standard()
        .timeout(timeout)
        .hedge(HedgePolicy::standard().delay(Delay::Fixed(Duration::from_millis(30))).max_share(1.0))
        .breaker(None)
        .budget(None)
}

fn numbered(attempt: &Attempt<'_>) -> Prepared {
    let id = HeaderValue::from_str(&format!("{}-{}", attempt.call(), attempt.number())).unwrap();
    Prepared::now(HeaderMap::from_iter([(HeaderName::from_static(ATTEMPT), id)]))
}

/// The series of a name, summed up by what `key` makes of their labels.
fn by(page: &str, name: &str, key: impl Fn(&BTreeMap<&str, &str>) -> String) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with(&format!("{name}{{"))) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let labels = series[name.len() + 1..series.len() - 1].split(',');
        let labels = labels.map(|label| label.split_once('=').unwrap());
        let labels = labels.map(|(name, value)| (name, value.trim_matches('"'))).collect();
        *counts.entry(key(&labels)).or_default() += value.parse::<u64>().unwrap();
    }
    counts.retain(|_, count| *count > 0);
    counts
}

fn count(keys: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    keys.fold(BTreeMap::new(), |mut counts, key| {
        *counts.entry(key).or_default() += 1;
        counts
    })
}

/// Compares when nothing is under way any more.
async fn compare(meters: &Meters, heard: &Heard, calls: Vec<Ended>, server: &Server) {
    within(SOON, heard.until_all_ended()).await;
    let page = meters.render();
    assert!(by(&page, "http_client_active_requests", |_| String::new()).is_empty());
    let dropped: BTreeSet<_> = heard
        .find(|event| match event {
            Event::CallFinished { call, end: CallEnd::Dropped, .. } => Some(*call),
            _ => None,
        })
        .into_iter()
        .collect();
    assert!(dropped.len() > 3, "some calls were dropped: {}", dropped.len());
    assert_eq!(calls.len() + dropped.len(), CALLS);

    // Calls, by how they ended.
    let ends = by(&page, "resilient_client_call_duration_seconds_count", |labels| {
        let status = labels.get("http_response_status_code").or_else(|| labels.get("error_type"));
        (*status.unwrap()).to_owned()
    });
    let told = calls.iter().map(|(end, _)| end.clone()).chain(dropped.iter().map(|_| "dropped".to_owned()));
    assert_eq!(ends, count(told));

    // Attempts: those of reports, and those of calls that have none.
    let mut sent = BTreeMap::new();
    let of_dropped = heard.find(|event| match event {
        Event::AttemptStarted { call, number, trigger, .. } if dropped.contains(call) => {
            Some((format!("{call}-{number}"), (trigger.as_str(), None)))
        }
        _ => None,
    });
    let of_reports = calls.iter().flat_map(|(_, report)| {
        let attempts = report.attempts().iter();
        attempts.map(|it| {
            let name = format!("{}-{}", report.call(), it.number());
            (name, (it.trigger().as_str(), it.status()))
        })
    });
    for (name, attempt) in of_reports.chain(of_dropped) {
        assert!(sent.insert(name.clone(), attempt).is_none(), "{name} is told twice");
    }
    let by_trigger = by(&page, "resilient_client_attempts_total", |labels| labels["trigger"].to_owned());
    assert_eq!(by_trigger, count(sent.values().map(|(trigger, _)| (*trigger).to_owned())));
    assert!(by_trigger.len() == 3, "retries and hedges, too: {by_trigger:?}");
    let finished = by(&page, "http_client_request_duration_seconds_count", |_| String::new());
    assert_eq!(finished[""], sent.len() as u64, "each that was sent has ended");

    // What came, was sent; what was answered, came; each once.
    let came = server.requests();
    let came: Vec<_> = came.iter().map(|request| request.header(ATTEMPT).unwrap_or_default()).collect();
    let distinct: BTreeSet<_> = came.iter().copied().collect();
    assert_eq!(came.len(), distinct.len(), "none came twice");
    for name in &distinct {
        assert!(sent.contains_key(*name), "{name} came and nobody sent it");
    }
    let missing: Vec<_> = sent.iter().filter(|(name, _)| !distinct.contains(name.as_str())).collect();
    assert!(missing.iter().all(|(_, (_, status))| status.is_none()), "{missing:?}");
    assert_eq!(came.len() + missing.len(), sent.len());
    println!("{CALLS} calls, {by_trigger:?}: {} came, {} never did", came.len(), missing.len());
}

macro_rules! story {
    ($name:ident, $client:ty) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (server, nobody, heard, meters) =
                (server().await, NobodyHome::new(), Heard::new(), Meters::default());
            let (other, metrics) = (nobody.url(), Metrics::with_recorder(meters.recorder()));
            let client = <$client>::builder()
                .policy(policy())
                .endpoints(NAME, Endpoints::fixed([server.url(""), other.trim_end_matches('/').to_owned()]))
                .observer(metrics)
                .observer(heard.clone())
                .on_attempt(numbered)
                .build()
                .unwrap();
            let calls = Arc::new(Mutex::new(Vec::new()));
            let mut under_way = JoinSet::new();
            for n in 0..CALLS {
                if under_way.len() >= AT_ONCE {
                    within(SOON, under_way.join_next()).await.unwrap().unwrap();
                }
                let (client, calls) = (client.clone(), Arc::clone(&calls));
                under_way.spawn(async move {
                    let request = client.get(format!("{NAME}/{n}"));
                    let note = |ended| calls.lock().unwrap().push(ended);
                    match n % 10 {
                        0..4 => {
                            let result = request.send_buffered().await;
                            note(ended(&result, |it| (it.status().as_str().to_owned(), it.report().clone())));
                        }
                        4 => {
                            // Most of those that a fault has made slow.
                            let limit = Duration::from_millis(5);
                            if let Ok(result) = tokio::time::timeout(limit, request.send()).await {
                                note(ended(&result, |it| {
                                    (it.status().as_str().to_owned(), it.report().clone())
                                }));
                            }
                        }
                        _ => {
                            let result = request.send().await;
                            note(ended(&result, |it| (it.status().as_str().to_owned(), it.report().clone())));
                            if let Ok(response) = result {
                                // It may break off; its head has been counted.
                                let _ = response.bytes().await;
                            }
                        }
                    }
                });
            }
            within(SOON, under_way.join_all()).await;
            let calls = std::mem::take(&mut *calls.lock().unwrap());
            compare(&meters, &heard, calls, &server).await;
        }
    };
}

story!(over_reqwest_metrics_reports_and_the_server_count_the_same, resilient_client::Client);
story!(over_hyper_metrics_reports_and_the_server_count_the_same, resilient_client::hyper::Client);
