//! One process that is killed and started again.

use std::{
    fs::File,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use service_kit::testing::servers::{Bound, Postgres};
use tokio::{task::JoinHandle, time::sleep};

use crate::{Problem, clock::Moment};

/// How often one that starts is asked whether it is ready.
const ASK: Duration = Duration::from_millis(50);

pub(crate) struct Member {
    pub(crate) name: String,
    what: What,
    state: State,
    pub(crate) kills: u32,
    /// Kills before it was ready.
    pub(crate) kills_in_start: u32,
    /// How often it ended by itself: it could not start then.
    pub(crate) gave_up: u32,
}

pub(crate) enum What {
    Postgres(Postgres),
    #[cfg(feature = "amqp")]
    Rabbit(service_kit::testing::servers::Rabbit),
    Service(Service),
}

/// This program in another role.
pub(crate) struct Service {
    pub(crate) role: String,
    pub(crate) port: u16,
    pub(crate) health_port: u16,
    pub(crate) database: String,
    pub(crate) broker: Option<String>,
    pub(crate) user_services: Option<String>,
    pub(crate) log: File,
    pub(crate) http: reqwest::Client,
    pub(crate) process: Option<Bound>,
}

enum State {
    /// To be started then.
    Dead(Moment),
    Running {
        is_ready: Arc<AtomicBool>,
        asking: JoinHandle<()>,
    },
}

impl Member {
    pub(crate) fn new(name: &str, what: What) -> Self {
        let state = State::Dead(Moment::now());
        Self { name: name.into(), what, state, kills: 0, kills_in_start: 0, gave_up: 0 }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(&self.state, State::Running { is_ready, .. } if is_ready.load(Ordering::Relaxed))
    }

    pub(crate) fn is_user_service(&self) -> bool {
        matches!(&self.what, What::Service(service) if service.user_services.is_none())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, dead_for: Duration) {
        self.kills += 1;
        self.kills_in_start += u32::from(!self.is_ready());
        self.buried(dead_for);
    }

    /// Starts it when it is time, also when it has ended by itself.
    pub(crate) fn tend(&mut self, dead_for: impl FnOnce() -> Duration) -> Result<(), Problem> {
        let ended = self.is_running() && self.has_ended();
        match self.state {
            State::Dead(until) if Moment::now() >= until => {
                self.start().map_err(|error| format!("{} can't be started: {error}", self.name))?;
                let is_ready = Arc::<AtomicBool>::default();
                let asking = tokio::spawn(self.ask(is_ready.clone()));
                self.state = State::Running { is_ready, asking };
            }
            State::Running { .. } if ended => {
                self.gave_up += 1;
                self.buried(dead_for());
            }
            _ => {}
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        match &self.what {
            What::Postgres(postgres) => format!(":\n{}", postgres.log()),
            #[cfg(feature = "amqp")]
            What::Rabbit(rabbit) => format!(":\n{}", rabbit.log()),
            What::Service(_) => String::new(),
        }
    }

    fn buried(&mut self, dead_for: Duration) {
        if let State::Running { asking, .. } = &self.state {
            asking.abort();
        }
        match &mut self.what {
            What::Postgres(postgres) => postgres.kill(),
            #[cfg(feature = "amqp")]
            What::Rabbit(rabbit) => rabbit.kill(),
            What::Service(service) => service.process = None,
        }
        self.state = State::Dead(Moment::now() + dead_for);
    }

    fn start(&mut self) -> std::io::Result<()> {
        match &mut self.what {
            What::Postgres(postgres) => postgres.start(),
            #[cfg(feature = "amqp")]
            What::Rabbit(rabbit) => rabbit.start(),
            What::Service(service) => service.start(),
        }
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.what {
            What::Postgres(postgres) => !postgres.is_running(),
            #[cfg(feature = "amqp")]
            What::Rabbit(rabbit) => !rabbit.is_running(),
            What::Service(service) => {
                service.process.as_mut().is_none_or(|process| process.ended().is_some())
            }
        }
    }

    /// Asks until it is ready, and notes that.
    fn ask(&self, is_ready: Arc<AtomicBool>) -> Asking {
        match &self.what {
            What::Postgres(postgres) => {
                let url = postgres.url();
                Box::pin(until(is_ready, move || {
                    let url = url.clone();
                    async move { Postgres::is_ready(&url).await }
                }))
            }
            #[cfg(feature = "amqp")]
            What::Rabbit(rabbit) => {
                let url = rabbit.url();
                Box::pin(until(is_ready, move || {
                    let url = url.clone();
                    async move { service_kit::testing::servers::Rabbit::is_ready(&url).await }
                }))
            }
            What::Service(service) => {
                let (http, url) =
                    (service.http.clone(), format!("http://127.0.0.1:{}/readyz", service.health_port));
                Box::pin(until(is_ready, move || {
                    let answer = http.get(&url).send();
                    async move { answer.await.is_ok_and(|answer| answer.status().is_success()) }
                }))
            }
        }
    }
}

type Asking = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn until<F: Future<Output = bool> + Send>(is_ready: Arc<AtomicBool>, ask: impl Fn() -> F) {
    while !ask().await {
        sleep(ASK).await;
    }
    is_ready.store(true, Ordering::Relaxed);
}

impl Service {
    fn start(&mut self) -> std::io::Result<()> {
        let mut command = Bound::command(std::env::current_exe()?);
        command.arg(&self.role).args(["--port", &self.port.to_string()]);
        command.args(["--health-port", &self.health_port.to_string()]);
        // What the shell may have for the services isn't meant for these.
        for setting in ["AMQP_URL", "USER_SERVICE_URL", "FAULTS", "FAULTS_TOKEN", "HOST"] {
            command.env_remove(setting);
        }
        command.env("DATABASE_URL", &self.database);
        if let Some(broker) = &self.broker {
            command.env("AMQP_URL", broker);
        }
        if let Some(user_services) = &self.user_services {
            command.env("USER_SERVICE_URL", user_services);
        }
        command.stdout(Stdio::null()).stderr(self.log.try_clone()?);
        self.process = Some(Bound::start(&mut command)?);
        Ok(())
    }
}
