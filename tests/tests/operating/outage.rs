//! A service through more than an hour of trouble, on a virtual clock: its calls are the library's,
//! and so are its metrics, by the exporter that both example services have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use resilient_client::event::Event;
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::hedge::HedgePolicy;
use resilient_client::policy::rate_limit::RateLimitPolicy;
use resilient_client::policy::{Policy, PolicySet};
use resilient_client::{Control, Endpoints, Metrics, ResilienceLayer};
use service_kit::meters::Meters;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tower::{ServiceExt as _, service_fn};
use tower_layer::Layer as _;

use super::recording::{INTERVAL_SECS, Recording};

/// One server.
pub(crate) const USERS: &str = "http://users:3000";
/// Three.
pub(crate) const STOCK: &str = "http://stock:3000";

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Answers within 20 ms.
    Fine,
    /// Answers 503.
    Down,
    /// Answers after 1.6 s.
    Slow,
    /// Answers every sixth call with 503, however often it is asked again.
    Spoilt,
    /// Answers after 1.6 s, and callers wait a second.
    Forsaken,
    /// Answers after 2.5 s, and is asked far more often.
    Crowded,
}

/// What happens for so many minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    pub(crate) minutes: u64,
    pub(crate) users: Weather,
    pub(crate) stock: Weather,
    /// What an operator does to the breaker for users meanwhile.
    pub(crate) hand: Option<Control>,
    /// Whether somebody's observer panics.
    pub(crate) sick_observer: bool,
}

impl Phase {
    pub(crate) const fn calm(minutes: u64) -> Self {
        let (users, stock) = (Weather::Fine, Weather::Fine);
        Self { minutes, users, stock, hand: None, sick_observer: false }
    }

    pub(crate) const fn users(minutes: u64, users: Weather) -> Self {
        Self { users, ..Self::calm(minutes) }
    }

    pub(crate) const fn stock(minutes: u64, stock: Weather) -> Self {
        Self { stock, ..Self::calm(minutes) }
    }
}

/// What its `/metrics` said meanwhile.
pub(crate) async fn record(phases: &[Phase]) -> Recording {
    let meters = Meters::default();
    let metrics = Metrics::with_recorder(meters.recorder());
    // A rate that is only looked at changes nothing.
    let rate = RateLimitPolicy::new(1, Duration::from_secs(1)).observe_only(true);
    let policies = PolicySet::new(Policy::standard())
        .host(USERS, |policy| policy.bulkhead(BulkheadPolicy::standard().max_in_flight(32)))
        .host(STOCK, |policy| policy.hedge(HedgePolicy::standard()).rate_limit(rate));
    let sick = Arc::new(AtomicBool::new(false));
    let is_sick = Arc::clone(&sick);
    let observer = move |_: &str, event: &Event| {
        if is_sick.load(Ordering::Relaxed) && matches!(event, Event::CallFinished { .. }) {
            std::panic::resume_unwind(Box::new("it is"));
        }
    };
    let replicas = ["a", "b", "c"].map(|replica| format!("http://{replica}:3000"));
    let layer = ResilienceLayer::builder()
        .policy(policies)
        .observer(metrics.clone())
        .observer(observer)
        .endpoints(STOCK, Endpoints::fixed(replicas))
        .seed(7)
        .build()
        .unwrap();
    let of = layer.clone();
    meters.before_rendering(move || metrics.record_snapshot(&of.snapshot()));

    let mut recording = Recording::default();
    for phase in phases {
        sick.store(phase.sick_observer, Ordering::Relaxed);
        if let Some(control) = phase.hand {
            layer.breaker(USERS).unwrap().control(control).unwrap();
        }
        let mut scrapes = interval(Duration::from_secs(INTERVAL_SECS));
        let mut calls = JoinSet::new();
        let traffic = async {
            let crowd = if phase.users == Weather::Crowded { 5 } else { 1 };
            loop {
                for _ in 0..crowd {
                    calls.spawn(call(layer.clone(), USERS, phase.users));
                }
                calls.spawn(call(layer.clone(), STOCK, phase.stock));
                while calls.try_join_next().is_some() {}
                sleep(Duration::from_millis(250)).await;
            }
        };
        let scraping = async {
            for _ in 0..phase.minutes * 60 / INTERVAL_SECS {
                scrapes.tick().await;
                recording.add(&meters.render());
            }
        };
        tokio::select! {
            () = scraping => {}
            never = traffic => match never {},
        }
        while calls.join_next().await.is_some() {}
        if phase.hand.is_some() {
            layer.breaker(USERS).unwrap().enable().unwrap();
        }
    }
    recording
}

async fn call(layer: ResilienceLayer, origin: &'static str, weather: Weather) {
    static MADE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let nth = MADE[usize::from(origin == USERS)].fetch_add(1, Ordering::Relaxed);
    let answer = service_fn(move |_: Request<String>| async move {
        let (after, status) = match weather {
            Weather::Fine => (10 + nth % 10, 200),
            Weather::Down => (3, 503),
            Weather::Slow | Weather::Forsaken => (1600, 200),
            Weather::Spoilt => (12, if nth.is_multiple_of(6) { 503 } else { 200 }),
            Weather::Crowded => (2500, 200),
        };
        sleep(Duration::from_millis(after)).await;
        Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(String::new()).unwrap())
    });
    let request = Request::get(format!("{origin}/things/7")).body(String::new()).unwrap();
    // What comes of it is what the metrics say.
    let patience = Duration::from_secs(if weather == Weather::Forsaken { 1 } else { 60 });
    drop(timeout(patience, layer.layer(answer).oneshot(request)).await);
}

/// All that the alerts are about, one after the other.
pub(crate) const TROUBLE: &[Phase] = &[
    Phase::calm(4),
    Phase::users(5, Weather::Down),
    Phase::calm(6),
    Phase::users(9, Weather::Slow),
    Phase::calm(7),
    Phase::users(7, Weather::Spoilt),
    Phase::calm(7),
    Phase::stock(4, Weather::Down),
    Phase::calm(6),
    Phase { hand: Some(Control::ForceClosed), ..Phase::calm(12) },
    Phase::calm(2),
    Phase::users(3, Weather::Crowded),
    Phase::calm(6),
    Phase { sick_observer: true, ..Phase::calm(3) },
    Phase::calm(8),
    Phase { hand: Some(Control::Observe), ..Phase::calm(12) },
    Phase::calm(2),
];

/// All there is to count, in a few minutes.
pub(crate) const BRIEF: &[Phase] = &[
    Phase::calm(1),
    Phase::users(1, Weather::Down),
    Phase::calm(1),
    Phase::users(2, Weather::Spoilt),
    Phase::stock(1, Weather::Forsaken),
    Phase::calm(1),
];

/// So many minutes without.
pub(crate) const CALM: &[Phase] = &[Phase::calm(20)];
