//! In the scenario `streams` the order-services follow user-service's events as well, on
//! [`STREAMS`] streams each, which they open again when they end.
//!
//! user-service gives a sign of life every [`HEARTBEAT`]. A stream on which nothing has come for
//! [`ALIVE`] is no longer counted as alive, whatever its reader thinks of it.
//!
//! What happens is told as bytes down standard output: how many are alive, and that one has ended.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use resilient_client::Policy;
use resilient_client::policy::timeout::TimeoutPolicy;
use tokio::time::{interval, sleep};

use crate::Problem;
use crate::clock::now;
use crate::counted::Caller;
use crate::naive::Naive;
use crate::parts::{Part, Without};

/// How many streams each order-service keeps open.
pub(crate) const STREAMS: usize = 4;
/// Between signs of life.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long after the last one a stream counts as alive.
const ALIVE: Duration = Duration::from_millis(2500);
/// How long a stream of the resilient order-service may be silent: three signs of life.
const SILENCE: Duration = Duration::from_secs(3);
/// Before an ended one is opened again.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is told how many are alive.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// What is said of an order-service's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Alive(u8),
    /// One has ended that had been open.
    Ended,
}

impl Told {
    const ENDED: u8 = b'x';

    const fn byte(self) -> u8 {
        match self {
            Self::Alive(count) => b'0' + count,
            Self::Ended => Self::ENDED,
        }
    }

    /// `None` for a byte that is something else.
    pub(crate) const fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            b'0'..=b'9' => Some(Self::Alive(byte - b'0')),
            Self::ENDED => Some(Self::Ended),
            _ => None,
        }
    }

    fn tell(self) {
        let mut out = std::io::stdout().lock();
        // The reader is gone only when the demo is, and then this process ends too.
        let _ = out.write_all(&[self.byte()]).and_then(|()| out.flush());
    }
}

/// What has been told of an order-service's streams.
#[derive(Debug, Default)]
pub(crate) struct StreamLog {
    alive: AtomicU64,
    ended: AtomicU64,
}

impl StreamLog {
    pub(crate) fn note(&self, told: Told) {
        match told {
            Told::Alive(count) => self.alive.store(u64::from(count), Ordering::Relaxed),
            Told::Ended => drop(self.ended.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Reads streams with one client or another.
#[derive(Clone)]
pub(crate) enum Reader {
    Plain(reqwest::Client),
    Retrying(reqwest_middleware::ClientWithMiddleware),
    Resilient(resilient_client::Client, Caller),
}

impl Reader {
    pub(crate) fn naive(kind: Naive) -> Result<Self, Problem> {
        Ok(match kind {
            Naive::NoTimeout | Naive::Loop => Self::Plain(kind.http()?),
            Naive::ReqwestRetry => Self::Retrying(Naive::retrying(kind.http()?)),
        })
    }

    /// The standard policy, but for the silence that this stream's signs of life allow. A client of
    /// its own: what happens to streams says little of short calls.
    pub(crate) fn resilient(without: &Without, caller: &Caller) -> Result<Self, Problem> {
        let timeout = TimeoutPolicy::standard().stream_idle(SILENCE);
        let policy = without.adjust(Policy::standard().timeout(timeout));
        let mut client = caller.counting(resilient_client::Client::builder().policy(policy));
        if !without.has(Part::Deadlines) {
            client = client.deadline_header(None);
        }
        let client = client.transport(reqwest::ClientBuilder::no_proxy).build()?;
        caller.counted(&client);
        Ok(Self::Resilient(client, caller.clone()))
    }

    /// Reads one stream to its end, however it ends; `heard` is called for each piece. Whether
    /// there was one.
    async fn read(&self, url: &str, heard: impl Fn()) -> bool {
        let mut response = match self {
            Self::Plain(http) => http.get(url).send().await.ok(),
            Self::Retrying(http) => http.get(url).send().await.ok(),
            Self::Resilient(client, caller) => {
                let result = client.get(url).streaming().send().await;
                caller.result(&result);
                let Ok(mut response) = result else { return false };
                let opened = response.status().is_success();
                while opened && matches!(response.chunk().await, Ok(Some(_))) {
                    heard();
                }
                return opened;
            }
        };
        let Some(response) = response.as_mut().filter(|response| response.status().is_success()) else {
            return false;
        };
        while matches!(response.chunk().await, Ok(Some(_))) {
            heard();
        }
        true
    }

    /// Keeps [`STREAMS`] streams open for as long as the process lives.
    pub(crate) fn follow(self, user_service: &str) {
        let url: Arc<str> = format!("{user_service}/users/events").into();
        let heard: Arc<[Mutex<Option<Instant>>]> = (0..STREAMS).map(|_| Mutex::default()).collect();
        for stream in 0..STREAMS {
            let (reader, url, heard) = (self.clone(), Arc::clone(&url), Arc::clone(&heard));
            tokio::spawn(async move {
                let note = || *heard[stream].lock().unwrap_or_else(PoisonError::into_inner) = Some(now());
                loop {
                    if reader.read(&url, note).await {
                        Told::Ended.tell();
                    }
                    sleep(PAUSE).await;
                }
            });
        }
        tokio::spawn(async move {
            let mut ticks = interval(TELL_EVERY);
            loop {
                ticks.tick().await;
                let alive = |heard: &&Mutex<Option<Instant>>| {
                    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.is_some_and(|at| at.elapsed() < ALIVE)
                };
                Told::Alive(heard.iter().filter(alive).count() as u8).tell();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service_kit::meters::Meters;

    use crate::breaker_log::Breaker;

    #[test]
    fn a_byte_says_how_many_are_alive_and_is_no_breakers() {
        for told in [Told::Alive(0), Told::Alive(STREAMS as u8), Told::Ended] {
            assert_eq!(Told::of_byte(told.byte()), Some(told));
            assert_eq!(Breaker::of_mark(told.byte()), None);
        }
        for mark in *b"COH" {
            assert_eq!(Told::of_byte(mark), None);
        }
    }

    #[test]
    fn the_log_has_the_last_count_and_all_ends() {
        let log = StreamLog::default();
        for told in [Told::Alive(4), Told::Ended, Told::Alive(3), Told::Ended] {
            log.note(told);
        }
        assert_eq!((log.alive(), log.ended()), (3, 2));
    }

    #[test]
    fn every_kind_of_reader_can_be_made() {
        for kind in [Naive::NoTimeout, Naive::Loop, Naive::ReqwestRetry] {
            Reader::naive(kind).unwrap();
        }
        for part in [Part::Timeouts, Part::Breaker, Part::Deadlines] {
            let caller = Caller::new(&Meters::default(), None).unwrap();
            Reader::resilient(&Without { unprotected: false, parts: vec![part] }, &caller).unwrap();
        }
    }
}
