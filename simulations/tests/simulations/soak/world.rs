//! The servers of the soak: each does one thing for a while, and then another.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::sync::Notify;
use tower_service::Service;

use crate::BoxError;
use resilient_client::advice::SHED;
use resilient_client::endpoints::{Resolve, Resolving};
use resilient_client::rng::Rng;
use resilient_client::testkit::script::{Piece, ScriptBody, Step, answer_with, ms};

/// What a server does with every request for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mood {
    Well,
    Slow,
    Hangs,
    Refuses,
    Loses,
    Says(u16, Option<&'static str>),
    Sheds,
    /// Its bodies begin and stop, for good.
    Stalls,
    /// Its bodies come for a minute.
    Trickles,
    Truncates,
    /// Each request finds it in another one.
    Mixed,
}

const SICK: [Mood; 14] = [
    Mood::Slow,
    Mood::Hangs,
    Mood::Refuses,
    Mood::Loses,
    Mood::Says(500, None),
    Mood::Says(503, None),
    Mood::Says(503, Some("1")),
    Mood::Says(503, Some("30")),
    Mood::Says(429, Some("1")),
    Mood::Says(429, None),
    Mood::Sheds,
    Mood::Stalls,
    Mood::Trickles,
    Mood::Truncates,
];

impl Mood {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.between(0, 9) {
            0..=3 => Self::Well,
            4 => Self::Mixed,
            _ => Self::sick(rng),
        }
    }

    fn sick(rng: &mut Rng) -> Self {
        SICK[rng.between(0, SICK.len() as u64 - 1) as usize]
    }

    fn step(self, rng: &mut Rng) -> Step {
        let data = || Piece::Data("piece".into());
        let after = ms(rng.between(1, 15));
        match self {
            Self::Well => {
                let body = if rng.unit() < 0.2 {
                    (0..5).flat_map(|_| [data(), Piece::Pause(ms(rng.between(1, 20)))]).collect()
                } else {
                    vec![data()]
                };
                Step::Answer { after, status: 200, retry_after: None, body }
            }
            Self::Slow => {
                let after = ms(rng.between(200, 4_000));
                Step::Answer { after, status: 200, retry_after: None, body: vec![data()] }
            }
            Self::Hangs => Step::Hang,
            Self::Refuses => Step::Refuse,
            Self::Loses => Step::Lose { after },
            Self::Says(status, retry_after) => {
                Step::Answer { after, status, retry_after, body: vec![data()] }
            }
            Self::Sheds => Step::Marked { status: 504, name: SHED, value: "deadline" },
            Self::Stalls => answer_with(200, vec![data(), Piece::Pause(ms(3_600_000))]),
            Self::Trickles => {
                let each = ms(rng.between(500, 3_000));
                answer_with(200, (0..20).flat_map(|_| [data(), Piece::Pause(each)]).collect())
            }
            Self::Truncates => answer_with(200, vec![data(), Piece::Pause(after), Piece::Break]),
            Self::Mixed if rng.unit() < 0.5 => Self::Well.step(rng),
            Self::Mixed => Self::sick(rng).step(rng),
        }
    }
}

#[derive(Default)]
struct Server {
    mood: Option<Mood>,
    asked: usize,
    /// Tells the requests it has that it is gone.
    killed: Arc<Notify>,
}

/// All of them, by authority. Those that are met once are one.
#[derive(Clone)]
pub(super) struct World {
    servers: Arc<Mutex<HashMap<String, Server>>>,
    rng: Arc<Mutex<Rng>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self { servers: Arc::default(), rng: Arc::new(Mutex::new(Rng::seeded(seed))) }
    }

    fn named(authority: &str) -> String {
        authority.split_once('-').filter(|(name, _)| *name == "once").map_or(authority, |_| "once").to_owned()
    }

    pub(super) fn set(&self, authority: &str, mood: Mood) {
        self.servers.lock().unwrap().entry(authority.to_owned()).or_default().mood = Some(mood);
    }

    /// Its process ends, and what it was working on with it.
    pub(super) fn kill(&self, authority: &str) {
        if let Some(server) = self.servers.lock().unwrap().get(authority) {
            server.killed.notify_waiters();
        }
    }

    /// Every one is well, and those that were started anew have lost what they were working on.
    pub(super) fn turns_well(&self) {
        for server in self.servers.lock().unwrap().values_mut() {
            server.mood = None;
            server.killed.notify_waiters();
        }
    }

    pub(super) fn asked(&self, authority: &str) -> usize {
        self.servers.lock().unwrap().get(authority).map_or(0, |server| server.asked)
    }
}

impl Service<Request<String>> for World {
    type Response = Response<ScriptBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let authority = Self::named(request.uri().authority().unwrap().as_str());
        let mut servers = self.servers.lock().unwrap();
        let server = servers.entry(authority).or_default();
        server.asked += 1;
        let (mood, killed) = (server.mood.unwrap_or(Mood::Well), Arc::clone(&server.killed));
        let step = mood.step(&mut self.rng.lock().unwrap());
        Box::pin(async move {
            tokio::select! {
                biased;
                () = killed.notified() => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                answer = step.act() => answer,
            }
        })
    }
}

/// What the name of the zone resolves to: how many addresses, from which on; none when the resolver
/// is ill.
#[derive(Clone, Default)]
pub(super) struct Zone(Arc<Mutex<Option<(u8, u8)>>>);

impl Zone {
    pub(super) fn set(&self, addresses: Option<(u8, u8)>) {
        *self.0.lock().unwrap() = addresses;
    }
}

impl Resolve for Zone {
    fn resolve(&self, _host: &str, port: u16) -> Resolving {
        let addresses = *self.0.lock().unwrap();
        Box::pin(async move {
            tokio::time::sleep(ms(5)).await;
            let (first, number) = addresses.ok_or("the resolver is ill")?;
            Ok((first..first + number).map(|n| ([10, 1, 0, n], port).into()).collect())
        })
    }
}
