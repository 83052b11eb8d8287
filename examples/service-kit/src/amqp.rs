//! A session with `RabbitMQ` that begins again whenever it ends.
//!
//! The protocol is lapin's. Its recovery stays off: it would bring channels back under the feet of
//! whoever uses them, and what was sent and not confirmed, or received and not acknowledged,
//! belongs to the connection that is gone. So all that depends on a connection is one future, the
//! session; a lost connection ends it, and the next begins from what the database says. The waits
//! between sessions are resilient-client's.

mod line;

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::{
    Connection, ConnectionProperties,
    uri::{AMQPScheme, AMQPUri},
};
use resilient_client::{
    policy::retry::{Backoff, RetryPolicy, Rules},
    rng::Rng,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::line::Line;
use crate::error::{Error, causes};

pub use lapin;

/// How long the broker may take over one thing: to connect, to declare a queue, to confirm a
/// message.
const STEP: Duration = Duration::from_secs(5);
/// Unless the URL says otherwise: how soon a peer is noticed that is gone without a word.
const HEARTBEAT_SECONDS: u16 = 10;
/// The first and the longest wait before another session, before jitter.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long a broker may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// AMQP's code for an end in good order.
const SUCCESS: u16 = 200;

/// Where the broker is, and what this client is called there.
#[derive(Clone)]
pub struct Broker {
    uri: AMQPUri,
    name: &'static str,
    rules: Rules,
    /// How long a connection may take.
    patience: Duration,
}

/// Leaves out the URL, which may hold a password.
impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a session ended.
#[derive(Debug)]
pub enum Ended {
    /// The broker is gone, or refuses.
    Broker(lapin::Error),
    /// The service's own database.
    Database(sqlx::Error),
    /// Anything else, in words for the log.
    Other(String),
}

impl From<lapin::Error> for Ended {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error)
    }
}

impl From<sqlx::Error> for Ended {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => f.write_str(&causes(error)),
            Self::Database(error) => f.write_str(&causes(error)),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// One connection and what a session says about itself.
#[derive(Clone)]
pub struct Session {
    connection: Arc<Connection>,
    worked: Arc<AtomicBool>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// A channel of this connection.
    pub async fn channel(&self) -> Result<lapin::Channel, Ended> {
        step(self.connection.create_channel()).await
    }

    /// Messages have passed: should the session end, the next comes soon.
    pub fn works(&self) {
        self.worked.store(true, Ordering::Relaxed);
    }
}

/// Waits for the broker, but not for ever.
pub async fn step<T>(answer: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, Ended> {
    step_within(STEP, answer).await
}

async fn step_within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Ended> {
    match timeout(patience, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(Ended::Other(format!("the broker did not answer within {patience:?}"))),
    }
}

impl Broker {
    /// Refuses a URL that can't work, without repeating it. `name` is what connections are called
    /// in the broker's lists.
    pub fn new(url: &str, name: &'static str) -> Result<Self, Error> {
        let not_valid =
            || Error::config("amqp-url must be a URL such as amqp://user:password@127.0.0.1:5672/%2f");
        let mut uri: AMQPUri = url.parse().map_err(|_: String| not_valid())?;
        if uri.scheme != AMQPScheme::AMQP {
            // Services in one cluster; TLS would be a feature of lapin and a line here.
            return Err(Error::config("amqp-url must begin with amqp://"));
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let rules = RetryPolicy::standard().initial(FIRST_WAIT).cap(LONGEST_WAIT).compile();
        let rules = rules.map_err(|invalid| Error::config(invalid.to_string()))?;
        Ok(Self { uri, name, rules, patience: STEP })
    }

    /// Runs one session after another until `stop` is cancelled.
    pub async fn sessions<F>(self, stop: CancellationToken, session: impl Fn(Session) -> F)
    where
        F: Future<Output = Result<Infallible, Ended>>,
    {
        let (mut rng, mut backoff, mut is_down) = (Rng::from_thread(), Backoff::new(&self.rules), false);
        loop {
            let worked = Arc::new(AtomicBool::new(false));
            let (line, connected) = (Line::default(), OnceLock::new());
            let one = async {
                let connection = Arc::new(self.connect(&line).await?);
                let connection = connected.get_or_init(|| connection).clone();
                if is_down {
                    tracing::info!("the broker is back");
                }
                session(Session { connection, worked: worked.clone() }).await
            };
            let ended = stop.run_until_cancelled(one).await;
            if let Some(connection) = connected.get() {
                // A broker that is gone is told nothing.
                let _ = timeout(GOODBYE, connection.close(SUCCESS, "the session is over".into())).await;
            }
            drop(line);
            let Some(Err(ended)) = ended else { return };
            if worked.load(Ordering::Relaxed) {
                (backoff, is_down) = (Backoff::new(&self.rules), false);
            }
            if is_down {
                tracing::debug!(%ended, "still no session with the broker");
            } else {
                tracing::warn!(%ended, "no session with the broker: trying again until there is one");
            }
            is_down = true;
            // These waits never end by themselves.
            let wait = Duration::from_nanos(backoff.next(&mut rng).unwrap_or_default());
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn connect(&self, line: &Line) -> Result<Connection, Ended> {
        let properties = ConnectionProperties::default().with_connection_name(self.name.into());
        step_within(self.patience, line.connect(self.uri.clone(), properties)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_work_is_refused_without_repeating_it() {
        Broker::new("amqp://127.0.0.1:5672", "test").unwrap();
        for bad in
            ["", "localhost:5672", "http://u:secret@h", "amqps://u:secret@h", "amqp://u:secret@h:99999"]
        {
            let error = Broker::new(bad, "test").unwrap_err();
            assert!(error.is_config() && error.to_string().contains("amqp-url"), "{bad}: {error}");
            assert!(!error.to_string().contains("secret"), "{bad}: {error}");
        }
        let broker = Broker::new("amqp://u:secret@h", "test").unwrap();
        assert!(!format!("{broker:?}").contains("secret"));
    }

    /// As one that was sent `SIGSTOP` is, or whose disk hangs.
    #[cfg(target_os = "linux")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_broker_that_accepts_and_never_answers_costs_no_more_however_often_it_is_tried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://{}", listener.local_addr().unwrap());
        let broker = Broker { patience: Duration::from_millis(50), ..Broker::new(&url, "test").unwrap() };
        let stop = CancellationToken::new();
        let sessions =
            tokio::spawn(broker.sessions(stop.clone(), async |_session| std::future::pending().await));
        let mut tries = Vec::new();
        for _ in 0..6 {
            tries.push(timeout(Duration::from_secs(5), listener.accept()).await.unwrap().unwrap());
        }
        stop.cancel();
        timeout(Duration::from_secs(5), sessions).await.unwrap().unwrap();
        // A thread ends a moment after it was told to.
        for _ in 0..200 {
            if threads_of_lapin() == 0 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{} threads are left of {} tries", threads_of_lapin(), tries.len());
    }

    #[cfg(target_os = "linux")]
    fn threads_of_lapin() -> usize {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| name.starts_with("lapin")).count()
    }
}
