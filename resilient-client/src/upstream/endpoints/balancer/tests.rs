use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use tokio::time::{Instant, sleep};

use super::*;
use crate::endpoints::{Endpoints, Resolving};
use crate::policy::balance::BalancePolicy;

/// Answers as scripted, the last entry ever after.
#[derive(Clone, Default)]
struct Script(Arc<ScriptState>);

#[derive(Default)]
struct ScriptState {
    answers: std::sync::Mutex<VecDeque<Scripted>>,
    asked: AtomicUsize,
    dropped: AtomicBool,
}

#[derive(Clone, Debug)]
enum Scripted {
    Hosts(&'static [u8]),
    Fail(&'static str),
    After(u64, &'static [u8]),
    Hang,
    Panic,
    PanicAtOnce,
}

impl Script {
    fn of(answers: &[Scripted]) -> Self {
        let script = Self::default();
        *script.0.answers.lock().unwrap() = answers.iter().cloned().collect();
        script
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }
}

struct SetOnDrop(Arc<ScriptState>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::SeqCst);
    }
}

impl Resolve for Script {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        assert_eq!((host, port), ("users.internal", 3000));
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.0.answers.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        drop(answers);
        assert!(!matches!(next, Some(Scripted::PanicAtOnce)), "scripted");
        let watch = SetOnDrop(Arc::clone(&self.0));
        Box::pin(async move {
            let _watch = watch;
            let hosts = match next.unwrap() {
                Scripted::Hosts(hosts) => hosts,
                Scripted::Fail(message) => return Err(message.into()),
                Scripted::After(millis, hosts) => {
                    sleep(Duration::from_millis(millis)).await;
                    hosts
                }
                Scripted::Hang => std::future::pending().await,
                Scripted::Panic | Scripted::PanicAtOnce => panic!("scripted"),
            };
            Ok(hosts.iter().map(|host| SocketAddr::from(([10, 0, 0, *host], port))).collect())
        })
    }
}

fn rules() -> Rules {
    BalancePolicy::standard().compile().unwrap()
}

fn balancer(endpoints: &Endpoints) -> Balancer {
    let checks = Checks { entropy: Entropy::seeded(1), ..Checks::default() };
    Balancer::new(endpoints.compile().unwrap(), rules(), checks, time::now())
}

fn dns(script: &Script) -> Balancer {
    balancer(&Endpoints::dns("http://users.internal:3000").resolver(script.clone()))
}

/// The endpoints there are, by the last number of their address.
fn hosts(balancer: &Balancer) -> Vec<String> {
    let endpoints = balancer.set().snapshot(time::now());
    endpoints.iter().map(|endpoint| endpoint.origin.as_str().replace("http://10.0.0.", "")).collect()
}

async fn ready(balancer: &Balancer) -> Result<(), NoEndpoint> {
    balancer.ready(time::now()).await
}

/// A call, and time for what it may have started.
async fn call(balancer: &Balancer) {
    ready(balancer).await.unwrap();
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_first_calls_wait_for_one_answer() {
    let script = Script::of(&[Scripted::After(300, &[2, 1])]);
    let balancer = Arc::new(dns(&script));
    let start = Instant::from_std(time::instant(time::now()).into_std());
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let balancer = Arc::clone(&balancer);
            tokio::spawn(async move { ready(&balancer).await.is_ok() })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
    assert_eq!(script.asked(), 1);
    assert_eq!(time::instant(time::now()).duration_since(start), Duration::from_millis(300));
    assert_eq!(hosts(&balancer), ["1:3000", "2:3000"]);
    assert_eq!(balancer.host().unwrap(), "users.internal:3000");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_first_call_takes_no_one_elses_answer_away() {
    let script = Script::of(&[Scripted::After(300, &[1])]);
    let balancer = dns(&script);
    let impatient = tokio::time::timeout(Duration::from_millis(100), ready(&balancer)).await;
    assert!(impatient.is_err());
    ready(&balancer).await.unwrap();
    assert_eq!((script.asked(), hosts(&balancer).len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn later_calls_go_on_with_the_old_set_while_one_asks() {
    let script = Script::of(&[Scripted::Hosts(&[1]), Scripted::After(500, &[2])]);
    let balancer = dns(&script);
    call(&balancer).await;
    sleep(Duration::from_secs(40)).await;
    assert_eq!(script.asked(), 1, "nobody asks between calls");
    let before = time::now();
    ready(&balancer).await.unwrap();
    ready(&balancer).await.unwrap();
    assert_eq!((time::now(), hosts(&balancer)), (before, vec!["1:3000".to_owned()]));
    sleep(Duration::from_millis(600)).await;
    assert_eq!((script.asked(), hosts(&balancer)), (2, vec!["2:3000".to_owned()]));
}

/// After an idle hour, all pods replaced meanwhile, the first call went to an address of an hour
/// ago.
#[tokio::test(start_paused = true)]
async fn after_an_idle_hour_the_name_is_looked_up_before_it_is_used() {
    use Scripted::{After, Fail, Hang, Hosts};
    for (second, waits, expected) in [
        (After(200, &[2]), 200, "2:3000"),
        (Fail("servfail"), 0, "1:3000"),
        (Hang, 1_000, "1:3000"),
        (After(2_000, &[2]), 1_000, "1:3000"),
    ] {
        let script = Script::of(&[Hosts(&[1]), second]);
        let balancer = Arc::new(dns(&script));
        call(&balancer).await;
        sleep(Duration::from_secs(3600)).await;
        assert!(!balancer.is_fresh(time::now()));
        let begun = time::now();
        let other = tokio::spawn({
            let balancer = Arc::clone(&balancer);
            async move { ready(&balancer).await.is_ok() }
        });
        ready(&balancer).await.unwrap();
        assert!(other.await.unwrap());
        assert_eq!((time::now().since(begun).as_millis(), script.asked()), (waits, 2));
        assert_eq!(hosts(&balancer), [expected]);
        let begun = time::now();
        ready(&balancer).await.unwrap();
        assert_eq!(time::now(), begun, "nobody waits again");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_hangs_panics_and_empty_answers_keep_the_last_good_set() {
    use Scripted::{Fail, Hang, Hosts, Panic, PanicAtOnce};
    let script =
        Script::of(&[Hosts(&[1, 2]), Fail("servfail"), Hosts(&[]), Panic, PanicAtOnce, Hang, Hosts(&[3])]);
    let balancer = dns(&script);
    call(&balancer).await;
    for asked in 2..=6 {
        sleep(Duration::from_secs(40)).await;
        call(&balancer).await;
        assert_eq!((script.asked(), hosts(&balancer).len()), (asked, 2));
    }
    sleep(Duration::from_secs(12)).await;
    call(&balancer).await;
    assert_eq!((script.asked(), hosts(&balancer)), (7, vec!["3:3000".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_resolve_is_a_typed_error_and_tried_again() {
    use std::error::Error;

    let script = Script::of(&[Scripted::Fail("no such host"), Scripted::Panic, Scripted::Hosts(&[1])]);
    let balancer = dns(&script);
    for _ in 0..5 {
        let error = ready(&balancer).await.unwrap_err();
        assert_eq!(error.to_string(), "users.internal doesn't resolve");
        assert_eq!(error.source().unwrap().to_string(), "no such host");
        let rng = &mut Rng::seeded(1);
        assert!(matches!(balancer.admit(&Seek::first(), time::now(), rng), Err(Shut::Empty)));
        assert!(matches!(balancer.nobody(), NoEndpoint::Unresolved { .. }));
    }
    assert_eq!(script.asked(), 1, "believed for a second");
    sleep(Duration::from_secs(1)).await;
    let error = ready(&balancer).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("panicked"));
    sleep(Duration::from_secs(1)).await;
    ready(&balancer).await.unwrap();
    assert!(balancer.admit(&Seek::first(), time::now(), &mut Rng::seeded(1)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_hangs_is_given_up() {
    let script = Script::of(&[Scripted::Hang]);
    let balancer = dns(&script);
    let before = time::now();
    ready(&balancer).await.unwrap_err();
    assert_eq!(time::now().since(before), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn nothing_outlives_the_balancer() {
    let script = Script::of(&[Scripted::Hosts(&[1]), Scripted::Hang]);
    let balancer = dns(&script);
    call(&balancer).await;
    sleep(Duration::from_secs(40)).await;
    script.0.dropped.store(false, Ordering::SeqCst);
    call(&balancer).await;
    assert!(!script.0.dropped.load(Ordering::SeqCst));
    drop(balancer);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert!(script.0.dropped.load(Ordering::SeqCst));
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let script = Script::of(&[Scripted::Hosts(&[1])]);
    let balancer = dns(&script);
    let mut ready = Box::pin(balancer.ready(time::now()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let answer = ready.as_mut().poll(&mut context);
    assert!(matches!(answer, std::task::Poll::Ready(Err(NoEndpoint::Unresolved { .. }))));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_flaps_every_interval_keeps_its_state() {
    let script = Script::of(&[
        Scripted::Hosts(&[1, 2]),
        Scripted::Hosts(&[1]),
        Scripted::Hosts(&[2]),
        Scripted::Hosts(&[1, 2]),
    ]);
    let balancer = dns(&script);
    call(&balancer).await;
    let mut rng = Rng::seeded(1);
    let held: Vec<_> =
        (0..10).map(|_| balancer.admit(&Seek::first(), time::now(), &mut rng).unwrap()).collect();
    for expected in [&["1:3000"][..], &["2:3000"], &["1:3000", "2:3000"]] {
        sleep(Duration::from_secs(40)).await;
        call(&balancer).await;
        assert_eq!(hosts(&balancer), expected);
    }
    let in_flight: u32 = balancer.set().snapshot(time::now()).iter().map(|endpoint| endpoint.in_flight).sum();
    assert_eq!(in_flight, 10, "the calls it had are still known");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_address_gone_for_longer_is_new_again() {
    let script = Script::of(&[Scripted::Hosts(&[1, 2]), Scripted::Hosts(&[1]), Scripted::Hosts(&[1, 2])]);
    let balancer = dns(&script);
    call(&balancer).await;
    let mut rng = Rng::seeded(1);
    let held: Vec<_> =
        (0..10).map(|_| balancer.admit(&Seek::first(), time::now(), &mut rng).unwrap()).collect();
    for _ in 0..2 {
        sleep(Duration::from_secs(61)).await;
        call(&balancer).await;
    }
    let snapshot = balancer.set().snapshot(time::now());
    assert_eq!((snapshot.len(), snapshot[1].in_flight), (2, 0));
    assert!(snapshot[0].in_flight > 0);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_watched_list_is_followed_from_the_next_attempt_on() {
    let (endpoints, handle) = Endpoints::watched();
    let balancer = balancer(&endpoints);
    let mut rng = Rng::seeded(1);
    let mut admit = || balancer.admit(&Seek::first(), time::now(), &mut rng);
    assert!(matches!(admit(), Err(Shut::Empty)) && matches!(balancer.nobody(), NoEndpoint::NotSet));
    handle.set(["http://10.0.0.1"]).unwrap();
    let held = admit().unwrap();
    assert_eq!(held.endpoint().origin().as_str(), "http://10.0.0.1");
    handle.set(["http://10.0.0.2"]).unwrap();
    assert_eq!(admit().unwrap().endpoint().origin().as_str(), "http://10.0.0.2");
    handle.set(Vec::<String>::new()).unwrap_err();
    assert_eq!(admit().unwrap().endpoint().origin().as_str(), "http://10.0.0.2");
    assert_eq!(held.endpoint().in_flight(), 1, "the attempt under way is left alone");
}

#[tokio::test]
async fn the_systems_resolver_knows_localhost() {
    let balancer = balancer(&Endpoints::dns("http://localhost:3000"));
    ready(&balancer).await.unwrap();
    let endpoints = balancer.set().snapshot(time::now());
    assert!(endpoints.iter().any(|endpoint| endpoint.origin.as_str() == "http://127.0.0.1:3000"
        || endpoint.origin.as_str() == "http://[::1]:3000"));
}
