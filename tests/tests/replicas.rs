//! Many endpoints behind one name, over real sockets: one bad replica of three costs no call, the
//! replicas count what the client counts, a list can be replaced under load, and lists and names
//! that can't work say so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resilient_client::endpoints::{Endpoints, Resolve, Resolving};
use resilient_client::event::Event;
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::policy::hedge::HedgePolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, ClientBuilder, Error, ErrorKind, Policy};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Heard, Reply, SOON, Server, clock, everything_it_says, within};
use tokio::task::JoinSet;

/// Nobody resolves it.
const NAME: &str = "http://users:3000";
const SECOND: Duration = Duration::from_secs(1);
/// 200 calls a second.
const EVERY: Duration = Duration::from_millis(5);
const A_SECOND: usize = 200;

/// One that works takes this long, so that calls overlap.
async fn replica() -> Server {
    Server::start(|_| works()).await
}

fn works() -> Reply {
    Reply::answer(200, "well").delayed(Duration::from_millis(5))
}

fn builder(endpoints: Endpoints, hedge: Option<HedgePolicy>, heard: &Heard) -> ClientBuilder {
    let timeout = TimeoutPolicy::standard().attempt(Duration::from_millis(300)).total(3 * SECOND);
    let policy = Policy::standard().timeout(timeout).hedge(hedge);
    Client::builder().policy(policy).endpoints(NAME, endpoints).observer(heard.clone()).seed(7)
}

/// Calls at a steady rate, through the buffered path: the body is part of the attempt.
async fn calls(client: &Client, how_many: usize) -> Vec<(Result<String, Error>, Duration)> {
    let mut calls = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    for _ in 0..how_many {
        ticks.tick().await;
        let (begun, call) = (clock::now(), client.get(format!("{NAME}/users/7")).fetch_text());
        calls.spawn(async move { (call.await, begun.elapsed()) });
    }
    calls.join_all().await
}

fn p99(ended: &[(Result<String, Error>, Duration)]) -> Duration {
    let mut took: Vec<_> = ended.iter().map(|(_, took)| *took).collect();
    took.sort();
    took[took.len() * 99 / 100]
}

/// Attempts that set out for `origin`.
fn attempts_to(heard: &Heard, origin: &str) -> usize {
    heard.count(|event| {
        matches!(event, Event::AttemptStarted { endpoint: Some(endpoint), .. } if endpoint.as_str() == origin)
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Turns {
    /// It takes requests and never answers.
    Hung,
    /// It dies with every answer half written.
    BreakingMidBody,
    /// It answers 503 at once.
    Refusing,
}

/// A second while all is well, one in which a replica turns bad, and two more.
async fn one_turns(turns: Turns, hedge: Option<HedgePolicy>) {
    let replicas = [replica().await, replica().await, replica().await];
    let origins = [0, 1, 2].map(|n: usize| replicas[n].url(""));
    let heard = Heard::new();
    let client = builder(Endpoints::fixed(origins.clone()), hedge.clone(), &heard).build().unwrap();
    let before = calls(&client, A_SECOND).await;
    let bad = &replicas[1];
    bad.now(move |_| match turns {
        Turns::Hung => Reply::nothing().then_hang(),
        Turns::BreakingMidBody => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwe").then_reset(),
        Turns::Refusing => Reply::answer(503, "no"),
    });
    let met = (bad.count(), heard.attempts());
    let first = calls(&client, A_SECOND).await;
    let after = calls(&client, 2 * A_SECOND).await;
    let share = (bad.count() - met.0) as f64 / (heard.attempts() - met.1) as f64;
    let bad_ones = [&before, &first, &after].map(|calls| {
        calls.iter().filter(|(ended, _)| ended.as_ref().map_or(true, |text| text != "well")).count()
    });
    println!(
        "one of three {turns:?}{}: failed {bad_ones:?}; p99 {:.1?} before, {:.1?} in the first second, {:.1?} after it; \
         its share then {:.1} %",
        if hedge.is_some() { ", hedging" } else { "" },
        p99(&before),
        p99(&first),
        p99(&after),
        share * 100.0
    );
    // 99.9 % of 800 is every one of them.
    assert_eq!(bad_ones, [0; 3]);
    assert!(share <= 1.2 / 3.0, "{share}");
    assert!(met.0 > A_SECOND / 10, "it was trusted before: {} calls", met.0);
    assert!(bad.count() > met.0, "it was met while bad");
    // A hedge that loses before it is written is an attempt nobody counts.
    if hedge.is_none() {
        for (replica, origin) in replicas.iter().zip(&origins) {
            assert_eq!(replica.count(), attempts_to(&heard, origin), "{origin}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hung_replica_costs_no_call() {
    within(30 * SECOND, async {
        one_turns(Turns::Hung, None).await;
        one_turns(Turns::Hung, Some(HedgePolicy::standard())).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_mid_body_costs_no_call() {
    within(30 * SECOND, one_turns(Turns::BreakingMidBody, None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_refuses_at_once_costs_no_call_and_attracts_none() {
    within(30 * SECOND, one_turns(Turns::Refusing, None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_where_nobody_listens_costs_no_call() {
    within(30 * SECOND, async {
        let (one, two, nobody) = (replica().await, replica().await, NobodyHome::new());
        let heard = Heard::new();
        let list = Endpoints::fixed([one.url(""), two.url(""), nobody.url()]);
        let client = builder(list, None, &heard).build().unwrap();
        let ended = calls(&client, 2 * A_SECOND).await;
        let refused = heard.ended_as(Outcome::Failure(FailureKind::Connect));
        println!("one of three has nobody listening: {refused} attempts refused of {}", heard.attempts());
        for (ended, _) in ended {
            assert_eq!(ended.unwrap(), "well");
        }
        assert!(refused > 0 && refused as f64 <= 0.4 * heard.attempts() as f64, "{refused}");
        assert_eq!(one.count() + two.count() + refused, heard.attempts());
        assert_eq!(attempts_to(&heard, nobody.url().trim_end_matches('/')), refused);
    })
    .await;
}

/// In bursts, with `Policy::standard()` as it is: 0 to 91 % were served, when the name's own
/// breaker took one for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_are_served_while_one_of_two_or_three_has_nobody_listening() {
    let bursts = async |others: usize| {
        let (nobody, mut well) = (NobodyHome::new(), Vec::new());
        for _ in 0..others {
            well.push(replica().await);
        }
        let origins: Vec<_> = well.iter().map(|server| server.url("")).chain([nobody.url()]).collect();
        let client = Client::builder().endpoints(NAME, Endpoints::fixed(origins)).build().unwrap();
        for _ in 0..5 {
            let burst: JoinSet<_> =
                (0..20).map(|_| client.get(format!("{NAME}/users/7")).fetch_text()).collect();
            for text in burst.join_all().await {
                assert_eq!(text.unwrap(), "well");
            }
            tokio::time::sleep(SECOND).await;
        }
        assert_eq!(well.iter().map(Server::count).sum::<usize>(), 100);
    };
    within(30 * SECOND, async { tokio::join!(bursts(1), bursts(2)) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_replaced_under_load_loses_no_call() {
    within(30 * SECOND, async {
        let replicas = [replica().await, replica().await, replica().await, replica().await];
        for replica in &replicas {
            // Long enough that whoever leaves the list has calls in flight.
            replica.now(|_| Reply::answer(200, "well").delayed(Duration::from_millis(60)));
        }
        let heard = Heard::new();
        let (endpoints, handle) = Endpoints::watched();
        let client = builder(endpoints, None, &heard).build().unwrap();
        let url = |n: usize| replicas[n % 4].url("");
        handle.set([url(0), url(1)]).unwrap();
        let load = tokio::spawn({
            let client = client.clone();
            async move { calls(&client, 3 * A_SECOND).await }
        });
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let mut left_with_calls = 0;
        for turn in 1..25 {
            ticks.tick().await;
            let leaver = client.snapshot()[..].first().map_or(0, |upstream| {
                let gone =
                    upstream.endpoints.iter().find(|endpoint| endpoint.origin.as_str() == url(turn - 1));
                gone.map_or(0, |endpoint| endpoint.in_flight)
            });
            left_with_calls += usize::from(leaver > 0);
            let changed = handle.set([url(turn), url(turn + 1)]).unwrap();
            assert_eq!((changed.added, changed.removed), (1, 1));
        }
        let ended = load.await.unwrap();
        for (ended, _) in &ended {
            assert_eq!(ended.as_deref().unwrap(), "well");
        }
        let counts: Vec<_> = replicas.iter().map(Server::count).collect();
        println!(
            "24 lists under load: {} calls, {counts:?} requests, {left_with_calls} left with calls in flight",
            ended.len()
        );
        // One attempt each: nobody who left broke off what it had.
        assert_eq!((heard.attempts(), ended.len()), (3 * A_SECOND, 3 * A_SECOND));
        assert_eq!(counts.iter().sum::<usize>(), 3 * A_SECOND);
        assert!(left_with_calls >= 12, "{left_with_calls}: nothing was tried");
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

        // From a replacement on, only the list is called.
        handle.set([url(0)]).unwrap();
        calls(&client, 50).await;
        let since: Vec<_> = replicas.iter().map(Server::count).collect();
        assert_eq!(since, [counts[0] + 50, counts[1], counts[2], counts[3]]);
    })
    .await;
}

/// Answers each time it is asked with something else: one address, the other, both and each twice,
/// none, an error.
struct Flapping {
    addresses: [SocketAddr; 2],
    asked: std::sync::Arc<AtomicUsize>,
}

impl Resolve for Flapping {
    fn resolve(&self, _host: &str, _port: u16) -> Resolving {
        let [one, two] = self.addresses;
        let answer = match self.asked.fetch_add(1, Ordering::SeqCst) % 5 {
            0 => Ok(vec![one]),
            1 => Ok(vec![two]),
            2 => Ok(vec![one, two, one, two]),
            3 => Ok(Vec::new()),
            _ => Err("the resolver is out of order".into()),
        };
        Box::pin(async { answer })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_changes_whenever_it_is_asked_costs_no_call() {
    within(30 * SECOND, async {
        let (one, two) = (replica().await, replica().await);
        let asked = std::sync::Arc::<AtomicUsize>::default();
        let resolver = Flapping { addresses: [one.address(), two.address()], asked: asked.clone() };
        let heard = Heard::new();
        let endpoints =
            Endpoints::dns("http://users.internal:3000").every(Duration::from_millis(100)).resolver(resolver);
        let client = builder(endpoints, None, &heard).build().unwrap();
        for (ended, _) in calls(&client, 4 * A_SECOND).await {
            assert_eq!(ended.unwrap(), "well");
        }
        let asked = asked.load(Ordering::SeqCst);
        println!(
            "a name that flaps: asked {asked} times in 4 s, {} and {} requests for {} attempts",
            one.count(),
            two.count(),
            heard.attempts()
        );
        assert!((4..=45).contains(&asked), "{asked}");
        assert!(one.count() > 0 && two.count() > 0);
        assert_eq!((heard.attempts(), one.count() + two.count()), (4 * A_SECOND, 4 * A_SECOND));
        let known = client.snapshot()[0].endpoints.len();
        assert!((1..=2).contains(&known), "{known} endpoints are kept");
        let host = one.requests()[0].header("host").map(str::to_owned);
        assert_eq!(host.as_deref(), Some("users.internal:3000"));
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_and_a_list_never_given_are_errors_of_their_own() {
    within(SOON, async {
        struct NoSuchName;
        impl Resolve for NoSuchName {
            fn resolve(&self, _host: &str, _port: u16) -> Resolving {
                Box::pin(async { Err("no such name".into()) })
            }
        }
        struct Empty;
        impl Resolve for Empty {
            fn resolve(&self, _host: &str, _port: u16) -> Resolving {
                Box::pin(async { Ok(Vec::new()) })
            }
        }
        let (never_set, _handle) = Endpoints::watched();
        let dns = || Endpoints::dns("http://users.invalid:3000");
        for (endpoints, why) in [
            (dns().resolver(NoSuchName), "users.invalid doesn't resolve"),
            (dns().resolver(Empty), "users.invalid doesn't resolve"),
            (never_set, "no list of endpoints has been given yet"),
        ] {
            let heard = Heard::new();
            let client = builder(endpoints, None, &heard).build().unwrap();
            let error = client.get(format!("{NAME}/users/7")).send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoEndpoint, "{error:?}");
            assert!(error.is_unsent() && everything_it_says(&error).contains(why), "{error:?}");
            assert_eq!(heard.attempts(), 0);
        }
    })
    .await;
}

#[test]
fn lists_that_cannot_work_are_refused_before_any_call() {
    for (endpoints, why) in [
        (Endpoints::fixed(Vec::<String>::new()), "endpoints must be at least one, got none"),
        (Endpoints::fixed(["http://a:1", "HTTP://A:1/"]), "number 2, HTTP://A:1/: is number 1 again"),
        (
            Endpoints::fixed(["http://a:1", "https://b:1"]),
            "number 2, https://b:1: must be http as number 1 is",
        ),
        (Endpoints::dns("https://users"), "must be http, since over TLS"),
    ] {
        let error = builder(endpoints, None, &Heard::new()).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(everything_it_says(&error).contains(why), "{error:?}");
    }
}
