//! The servers that fail as told: the bench binary, started once more for each, so that none meets
//! what another left behind.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use super::fault::{Fault, Restart};
use super::faulty::{self, Tally};
use crate::args::Effort;
use crate::clock;

/// Holds the fault's place in [`Fault::ALL`], whether the effort is full, the seed, the replica and
/// its address, in a process that serves.
const ROLE: &str = "RESILIENT_CLIENT_BENCH_STORM";

/// What servers have seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Requests, the first ones and the others.
    pub requests: u64,
    /// Requests of calls that this server had told when to come again.
    pub told: u64,
    /// Those of them that came no sooner.
    pub obeyed: u64,
    /// Requests that a worker has served.
    pub worked: u64,
    /// What that took.
    pub busy: Duration,
}

impl Counts {
    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
        let mut next = || numbers.next()?;
        Some(Self {
            requests: next()?,
            told: next()?,
            obeyed: next()?,
            worked: next()?,
            busy: Duration::from_micros(next()?),
        })
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.told += other.told;
        self.obeyed += other.obeyed;
        self.worked += other.worked;
        self.busy += other.busy;
    }
}

/// The servers of one fault. They end when this is dropped.
#[derive(Debug)]
pub struct Servers {
    replicas: Vec<Replica>,
}

impl Servers {
    /// Starts them. `main` must call [`serve_if_asked`] before anything else.
    pub fn start(fault: Fault, effort: Effort, seed: u64) -> Self {
        let place = Fault::ALL.iter().position(|each| *each == fault).expect("one of all");
        let full = u8::from(effort == Effort::Full);
        let replicas = (0..fault.replicas())
            .map(|replica| {
                let (address, reserved) = reserve();
                let role = format!("{place} {full} {seed} {replica} {address}");
                let process = Some(Process::start(&role));
                Replica { address, _reserved: reserved, role, process, counts: Counts::default() }
            })
            .collect();
        Self { replicas }
    }

    /// Where they are.
    pub fn origins(&self) -> Vec<String> {
        self.replicas.iter().map(|replica| format!("http://{}", replica.address)).collect()
    }

    /// Ends and starts servers as planned, in time from `start`; says when each was up again.
    pub fn restart(&mut self, plan: &[Restart], start: Instant) -> Vec<Instant> {
        let wait = |until: Instant| thread::sleep(until.saturating_duration_since(clock::now()));
        plan.iter()
            .map(|restart| {
                wait(start + restart.from);
                self.replicas[restart.replica].end();
                wait(start + restart.from + restart.length);
                let replica = &mut self.replicas[restart.replica];
                replica.process = Some(Process::start(&replica.role));
                clock::now()
            })
            .collect()
    }

    /// Ends them; says what they have seen.
    pub fn end(mut self) -> Counts {
        let mut counts = Counts::default();
        for replica in &mut self.replicas {
            replica.end();
            counts += replica.counts;
        }
        counts
    }
}

#[derive(Debug)]
struct Replica {
    address: SocketAddr,
    /// Bound and never listening: keeps the system from giving the port to somebody else's
    /// connection while the server is away.
    _reserved: TcpSocket,
    role: String,
    process: Option<Process>,
    /// What its processes had seen when they ended.
    counts: Counts,
}

impl Replica {
    fn end(&mut self) {
        if let Some(process) = self.process.take() {
            self.counts += process.end();
        }
    }
}

/// As many open files as the system allows: a client that waits for everything waits on thousands
/// of connections.
pub fn raise_file_limit() {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
        }
    }
}

fn reserve() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.set_reuseaddr(true).expect("an address to share");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
    (socket.local_addr().expect("address"), socket)
}

/// A server's process. It ends when its standard input closes, at once: its connections are as
/// after a kill.
#[derive(Debug)]
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Returns once it listens.
    fn start(role: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("own path"))
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("server process");
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut listening = String::new();
        stdout.read_line(&mut listening).expect("server's word");
        assert!(!listening.is_empty(), "the server doesn't listen");
        Self { child, stdin, stdout }
    }

    fn end(mut self) -> Counts {
        drop(self.stdin.take());
        let mut counts = String::new();
        self.stdout.read_to_string(&mut counts).expect("server's counts");
        Counts::read(&counts).expect("five counts")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// In a process that [`Servers`] made: serves until standard input closes, says what it has seen,
/// and returns true.
pub fn serve_if_asked() -> bool {
    let Ok(role) = env::var(ROLE) else { return false };
    let [place, full, seed, replica, address] = role.split(' ').collect::<Vec<_>>()[..] else {
        panic!("fault, effort, seed, replica and address, not {role}")
    };
    let served = faulty::Served {
        fault: Fault::ALL[place.parse::<usize>().expect("a place")],
        effort: if full == "1" { Effort::Full } else { Effort::Quick },
        seed: seed.parse().expect("a seed"),
        replica: replica.parse().expect("a replica"),
    };
    let address: SocketAddr = address.parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let listener = runtime.block_on(faulty::listen(address)).expect("the reserved address");
    let tally = Arc::new(Tally::default());
    let counted = tally.clone();
    thread::spawn(move || {
        tokio::task::LocalSet::new().block_on(&runtime, faulty::serve(listener, served, counted));
    });
    say("listening");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let Counts { requests, told, obeyed, worked, busy } = tally.counts();
    say(&format!("{requests} {told} {obeyed} {worked} {}", busy.as_micros()));
    true
}

fn say(what: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{what}").and_then(|()| stdout.flush()).expect("stdout");
}
