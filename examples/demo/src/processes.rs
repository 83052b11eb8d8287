//! The other processes: started, stopped, killed and started again, each a real one with its own
//! database.

mod breakable;
mod heard;
mod process;
mod starting;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use uuid::Uuid;

use self::breakable::Breakable;
use self::heard::Arrivals;
use self::process::{Process, log_path, spawn};
use crate::Problem;
use crate::breaker_log::BreakerLog;
use crate::budget_log::BudgetLog;
use crate::by_hand::Handle;
use crate::cli::{Cast, Client, Options};
use crate::clock::now;
use crate::counted::{self, Counted};
use crate::faults::{CONTROL_PATH, Faults, Mark};
use crate::follow::StreamLog;
use crate::orphan_guard::{ended, started};
use crate::parts::Without;
use crate::ports::Ports;
use crate::results::Work;
use crate::scenario::Scenario;
use crate::signal::{self, Signal};

/// How long a process may take from its start to its first answer.
const STARTUP_LIMIT: Duration = Duration::from_secs(15);

/// How long a process may take to end once it was told to.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// How long after it has ended a span is in its file: a second, and what a busy machine needs.
const TRACED_WITHIN: Duration = Duration::from_millis(1500);

/// All the processes. Dropping it kills them.
pub(crate) struct Fleet {
    program: PathBuf,
    directory: PathBuf,
    seed: u64,
    cast: Cast,
    without: Without,
    ports: Ports,
    http: reqwest::Client,
    /// By replica of user-service.
    arrivals: Vec<Arc<Arrivals>>,
    /// By order-service; locks, because the readers of the pipes write them.
    breakers: [Arc<Mutex<BreakerLog>>; Client::ALL.len()],
    streams: [Arc<StreamLog>; Client::ALL.len()],
    /// The resilient one's.
    budget: Arc<BudgetLog>,
    /// Whether they follow events, too.
    follow: bool,
    broker: bool,
    /// Whether the run comes to an end at which calls are compared.
    counted: bool,
    watchdog: Process,
    /// What the resilient one's admin page asks for.
    admin_token: String,
    /// What the user-services ask for when a scenario sets their faults.
    control_token: String,
    /// Where spans go, if anywhere.
    traces: Option<PathBuf>,
    /// Only in a held demo.
    breakable: Option<Breakable>,
    /// By replica; `None` for a dead one.
    users: Vec<Option<Process>>,
    orders: Vec<Process>,
    /// In front of them, where the scenario has any.
    gateways: Vec<Process>,
}

/// The processes and where they answer.
pub(crate) struct Held {
    /// Pid and URL.
    pub(crate) users: Vec<(u32, String)>,
    pub(crate) orders: Vec<(Client, u32, String)>,
    /// In front of the order-services, where anything is.
    pub(crate) gateways: Vec<(Client, u32, String)>,
    /// What is needed to break it.
    pub(crate) handle: Option<Handle>,
    pub(crate) directory: PathBuf,
}

impl Fleet {
    /// Starts everything that the scenario needs, and returns when all of it answers. Databases and
    /// logs go to `directory`; the watchdog removes what `remove` names if the demo is killed.
    pub(crate) async fn start(
        directory: &Path,
        remove: &[&Path],
        options: &Options,
        scenario: &Scenario,
    ) -> io::Result<Self> {
        let user_services = options.user_services();
        let program = std::env::current_exe()?;
        let mut command = Command::new(&program);
        command.arg("watchdog");
        for path in remove {
            command.arg("--remove").arg(path);
        }
        let watchdog = spawn("watchdog", command.kill_on_drop(false), directory)?;
        let ports = Ports::choose(user_services)?;
        let cast = options.cast(scenario);
        let breakable = if options.hold { Some(Breakable::start(&ports.users, &cast).await?) } else { None };
        let mut fleet = Self {
            program,
            directory: directory.to_owned(),
            seed: options.seed,
            cast,
            without: options.without(scenario),
            ports,
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(2))
                .pool_max_idle_per_host(0)
                .no_proxy()
                .build()
                .map_err(io::Error::other)?,
            arrivals: (0..user_services).map(|_| Arc::default()).collect(),
            breakers: Default::default(),
            streams: Default::default(),
            budget: Arc::default(),
            follow: scenario.streams,
            broker: scenario.broker,
            counted: !options.hold,
            watchdog,
            admin_token: Uuid::new_v4().simple().to_string(),
            control_token: Uuid::new_v4().simple().to_string(),
            traces: options.traces.clone(),
            breakable,
            users: (0..user_services).map(|_| None).collect(),
            orders: Vec::new(),
            gateways: Vec::new(),
        };
        for replica in 0..user_services {
            fleet.start_user_service(replica).await?;
            fleet.set_faults(replica, scenario.always).await?;
        }
        for client in fleet.cast.clients() {
            fleet.start_order_service(client).await?;
        }
        if scenario.gateway {
            for client in fleet.cast.clients() {
                fleet.start_gateway(client).await?;
            }
        }
        Ok(fleet)
    }

    /// Where the load goes: to the order-service, or to what is in front of it.
    pub(crate) fn entrance(&self, client: Client) -> String {
        if self.gateways.is_empty() {
            self.order_service(client)
        } else {
            url(self.ports.gateway[client as usize])
        }
    }

    /// The base URL at which the demo, unfaulted and uncounted, talks to a replica of user-service.
    pub(crate) fn user_control(&self, replica: usize) -> String {
        url(self.ports.users[replica].control)
    }

    /// The base URL of an order-service.
    pub(crate) fn order_service(&self, client: Client) -> String {
        url(self.ports.order[client as usize])
    }

    /// The admin page of the resilient one's client, and what it asks for.
    pub(crate) fn admin(&self) -> (String, &str) {
        (format!("{}/admin", url(self.ports.admin)), &self.admin_token)
    }

    /// Calls of an order-service that reached each replica of user-service so far.
    pub(crate) fn arrivals(&self, caller: Client) -> Vec<u64> {
        self.arrivals.iter().map(|arrivals| arrivals.of(caller, Mark::Call)).collect()
    }

    /// What the user-services' workers began for an order-service so far, and how much of that for
    /// callers who had gone.
    pub(crate) fn work(&self, caller: Client) -> Work {
        let all = |mark| self.arrivals.iter().map(|arrivals| arrivals.of(caller, mark)).sum::<u64>();
        let in_vain = all(Mark::InVain);
        Work { begun: all(Mark::Worked) + in_vain, in_vain }
    }

    /// How many retries the resilient order-service could pay for now.
    pub(crate) fn budget(&self) -> Option<u8> {
        self.budget.tokens()
    }

    /// What is known of an order-service's streams.
    pub(crate) fn streams(&self, client: Client) -> &StreamLog {
        &self.streams[client as usize]
    }

    /// What an order-service's circuit breaker has done so far.
    pub(crate) fn breaker(&self, client: Client) -> BreakerLog {
        self.breakers[client as usize].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the resilient order-service's calls came to, counted three ways.
    pub(crate) async fn count(&self) -> Result<Counted, Problem> {
        let order_service = self.order_service(Client::Resilient);
        counted::count(&self.directory, &order_service, self.users.len(), self.broker).await
    }

    /// Switches the faults of a replica of user-service.
    pub(crate) async fn set_faults(&self, replica: usize, faults: Faults) -> io::Result<()> {
        let url = format!("{}{CONTROL_PATH}", self.user_control(replica));
        let mut tries = 3;
        loop {
            let answer = self.http.put(&url).bearer_auth(&self.control_token).json(&faults).send().await;
            tries -= 1;
            match answer.and_then(reqwest::Response::error_for_status) {
                Ok(_) => return Ok(()),
                // A machine that is too busy to judge by is no reason to stop.
                Err(error) if tries > 0 && error.is_timeout() => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Freezes a replica of user-service with `SIGSTOP`.
    pub(crate) fn hang_user_service(&self, replica: usize) -> io::Result<()> {
        self.users[replica].as_ref().map_or(Ok(()), |user| signal::send(user.pid, Signal::Stop))
    }

    /// Lets a frozen one go on.
    pub(crate) fn resume_user_service(&self, replica: usize) -> io::Result<()> {
        self.users[replica].as_ref().map_or(Ok(()), |user| signal::send(user.pid, Signal::Continue))
    }

    /// `kill -9` to a replica of user-service, running or frozen.
    pub(crate) async fn kill_user_service(&mut self, replica: usize) -> io::Result<()> {
        match self.users[replica].take() {
            Some(user) => self.bury(user).await,
            None => Ok(()),
        }
    }

    /// Tells a replica of user-service to stop, and waits until it has: it finishes what it does.
    pub(crate) async fn terminate_user_service(&mut self, replica: usize) -> io::Result<()> {
        let Some(mut user) = self.users[replica].take() else { return Ok(()) };
        signal::send(user.pid, Signal::Terminate)?;
        self.watchdog.stdin.write_all(ended(user.pid).as_bytes()).await?;
        match tokio::time::timeout(DRAIN_LIMIT, user.child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_elapsed) => user.child.kill().await,
        }
    }

    /// Where everything is, for whoever breaks it by hand.
    pub(crate) fn held(&self) -> Held {
        let users = self.users.iter().zip(&self.ports.users);
        let list = |processes: &[Process], url: &dyn Fn(Client) -> String| {
            let named = processes.iter().zip(self.cast.clients());
            named.map(|(process, client)| (client, process.pid, url(client))).collect()
        };
        Held {
            users: users
                .map(|(user, ports)| (user.as_ref().map_or(0, |user| user.pid), url(ports.control)))
                .collect(),
            orders: list(&self.orders, &|client| self.order_service(client)),
            gateways: list(&self.gateways, &|client| self.entrance(client)),
            directory: self.directory.clone(),
            handle: self.handle(),
        }
    }

    /// Names an order-service or what is in front of one that has ended, which none should.
    pub(crate) fn casualty(&mut self) -> Option<String> {
        let ended = self.orders.iter_mut().chain(&mut self.gateways).find_map(|order| {
            let status = order.child.try_wait().ok().flatten()?;
            Some((order.name.clone(), status))
        });
        ended.map(|(name, status)| format!("{name} ended: {status}{}", self.log_tail(&name)))
    }

    /// Ends every process and waits until each is gone.
    pub(crate) async fn stop(mut self) -> io::Result<()> {
        if self.traces.is_some() {
            // They are killed, and what has ended waits for company for a second.
            tokio::time::sleep(TRACED_WITHIN).await;
        }
        let users = self.users.drain(..).flatten();
        let rest = std::mem::take(&mut self.orders).into_iter().chain(std::mem::take(&mut self.gateways));
        for process in users.chain(rest).collect::<Vec<_>>() {
            self.bury(process).await?;
        }
        let Process { mut child, stdin, .. } = self.watchdog;
        drop(stdin);
        let _ = tokio::time::timeout(Duration::from_secs(3), child.wait()).await;
        Ok(())
    }

    async fn spawn(&mut self, name: &str, mut command: Command) -> io::Result<Process> {
        let process = spawn(name, command.kill_on_drop(true), &self.directory)?;
        self.watchdog.stdin.write_all(started(process.pid).as_bytes()).await?;
        Ok(process)
    }

    async fn bury(&mut self, mut process: Process) -> io::Result<()> {
        process.child.start_kill()?;
        // Observed between the kill and the wait: until it is waited for, the pid can't become
        // another process's.
        self.watchdog.stdin.write_all(ended(process.pid).as_bytes()).await?;
        process.child.wait().await.map(drop)
    }

    async fn wait_until_ready(&self, process: &mut Process, base: &str) -> io::Result<()> {
        let started = now();
        loop {
            if let Some(status) = process.child.try_wait()? {
                let why = format!("{} ended at once: {status}{}", process.name, self.log_tail(&process.name));
                return Err(io::Error::other(why));
            }
            let answer = self.http.get(format!("{base}/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if started.elapsed() > STARTUP_LIMIT {
                let why = format!("{} did not get ready{}", process.name, self.log_tail(&process.name));
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log_tail(&self, name: &str) -> String {
        let log = std::fs::read_to_string(log_path(&self.directory, name)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(5)..];
        if last.is_empty() { String::new() } else { format!("\n    {}", last.join("\n    ")) }
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
