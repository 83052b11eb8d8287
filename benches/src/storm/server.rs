//! The server that fails as told: the bench binary, started once more for each fault and stack, so that none meets what
//! another left behind.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, sleep_until};

use super::{Fault, Gone};
use crate::clock;

/// Holds the fault's place in [`Fault::ALL`] and the seed, in a process that serves.
const ROLE: &str = "RESILIENT_CLIENT_BENCH_STORM";
/// The header that names the call, so that the server knows a retry when it sees one.
pub const CALL: &str = "x-call";
const COUNTS: &str = "/counts";
const LATE: Duration = Duration::from_secs(5);
const WORKERS: usize = 10;
const WORK: Duration = Duration::from_millis(24);
const TOLD: Duration = Duration::from_secs(1);
const BODY: &[u8] = br#"{"id":7,"name":"Ada"}"#;

/// What the server has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Requests, the first ones and the others.
    pub requests: u64,
    /// Requests of calls that had been told when to come again.
    pub told: u64,
    /// Those of them that came no sooner.
    pub obeyed: u64,
}

/// The server's process. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    origin: String,
}

impl Server {
    /// Starts it. `main` must call [`serve_if_asked`] before anything else.
    pub fn start(fault: Fault, seed: u64) -> Self {
        let place = Fault::ALL.iter().position(|each| *each == fault).expect("one of all");
        let mut child = Command::new(env::current_exe().expect("own path"))
            .env(ROLE, format!("{place} {seed}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("server process");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut address).expect("server's address");
        Self { child, origin: format!("http://{}", address.trim()) }
    }

    /// What to get.
    pub fn url(&self) -> String {
        format!("{}/users/7", self.origin)
    }

    /// What it has seen so far.
    pub async fn counts(&self) -> Counts {
        let client = reqwest::Client::builder().no_proxy().build().expect("reqwest");
        let response = client.get(format!("{}{COUNTS}", self.origin)).send().await.expect("counts");
        let text = response.text().await.expect("counts");
        let mut numbers = text.split(' ').map(|number| number.parse().expect("a count"));
        let mut next = || numbers.next().expect("three counts");
        Counts { requests: next(), told: next(), obeyed: next() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// In the process that [`Server::start`] made: serves until standard input closes, and returns true.
pub fn serve_if_asked() -> bool {
    let Ok(role) = env::var(ROLE) else { return false };
    let (place, seed) = role.split_once(' ').expect("fault and seed");
    let fault = Fault::ALL[place.parse::<usize>().expect("a place")];
    let seed = seed.parse().expect("a seed");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        tokio::task::LocalSet::new().block_on(&runtime, serve(fault, seed));
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    true
}

async fn serve(fault: Fault, seed: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    println!("{}", listener.local_addr().expect("address"));
    std::io::stdout().flush().expect("stdout");
    let server = Rc::new(Faulty {
        fault,
        seed,
        counts: RefCell::default(),
        told: RefCell::default(),
        began: Cell::default(),
        workers: Rc::new(Semaphore::new(WORKERS)),
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let server = server.clone();
        tokio::task::spawn_local(async move {
            let answer = service_fn(|request| server.answer(request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

struct Faulty {
    fault: Fault,
    seed: u64,
    counts: RefCell<Counts>,
    /// When the calls that were told so may come again.
    told: RefCell<HashMap<u64, Instant>>,
    began: Cell<bool>,
    workers: Rc<Semaphore>,
}

impl Faulty {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, &'static str> {
        if request.uri().path() == COUNTS {
            let Counts { requests, told, obeyed } = *self.counts.borrow();
            return Ok(Response::new(full(format!("{requests} {told} {obeyed}"))));
        }
        let now = clock::now();
        let (number, call) = (self.count(&request, now), call_of(&request));
        let struck = share_of(self.seed, number) < self.fault.share();
        match self.fault {
            Fault::Overload | Fault::Stall => self.work().await,
            _ if !struck => {}
            Fault::Some503 | Fault::All503 => return Ok(unavailable(false)),
            Fault::RetryAfter => {
                self.told.borrow_mut().insert(call, clock::now() + TOLD);
                return Ok(unavailable(true));
            }
            Fault::Hang => sleep(LATE).await,
            Fault::StalledBody => return Ok(stalled()),
            Fault::Close => return Err("as told"),
        }
        Ok(Response::new(full(BODY)))
    }

    /// Counts a request; returns its number.
    fn count(&self, request: &Request<Incoming>, now: Instant) -> u64 {
        let mut counts = self.counts.borrow_mut();
        if let Some(not_before) = self.told.borrow_mut().remove(&call_of(request)) {
            counts.told += 1;
            counts.obeyed += u64::from(now >= not_before);
        }
        counts.requests += 1;
        counts.requests
    }

    /// A worker's time, which is spent even if nobody waits for it any more.
    async fn work(&self) {
        if !self.began.replace(true)
            && let Some(gone) = self.fault.gone()
        {
            self.leave(gone);
        }
        let workers = self.workers.clone();
        let work = tokio::task::spawn_local(async move {
            let _worker = workers.acquire().await;
            sleep(WORK).await;
        });
        let _ = work.await;
    }

    /// Each of them leaves when its time has come and it is done with what it has, and comes back together with the others.
    fn leave(&self, gone: Gone) {
        let left = clock::now() + gone.from;
        for _ in 0..gone.workers {
            let workers = self.workers.clone();
            tokio::task::spawn_local(async move {
                sleep_until(left.into()).await;
                let _worker = workers.acquire().await;
                sleep_until((left + gone.length).into()).await;
            });
        }
    }
}

fn call_of(request: &Request<Incoming>) -> u64 {
    let call = request.headers().get(CALL).and_then(|value| value.to_str().ok()?.parse().ok());
    call.expect("a call's number")
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed_unsync()
}

fn unavailable(retry_after: bool) -> Response<Body> {
    let mut response = Response::new(full("unavailable"));
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    if retry_after {
        response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    response
}

/// Half a body now, the rest later.
fn stalled() -> Response<Body> {
    let (first, rest) = BODY.split_at(BODY.len() / 2);
    let parts = futures_util::stream::unfold(0, move |part| async move {
        match part {
            0 => Some((Ok(Frame::data(Bytes::from_static(first))), 1)),
            1 => {
                sleep(LATE).await;
                Some((Ok(Frame::data(Bytes::from_static(rest))), 2))
            }
            _ => None,
        }
    });
    let mut response = Response::new(StreamBody::new(parts).boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_LENGTH, BODY.len().into());
    response
}

/// The place of a request among its hundred, over a hundred: each hundred meets exactly its share of faults, in an order
/// that depends on nothing but the seed.
fn share_of(seed: u64, number: u64) -> f64 {
    let first = number - number % 100;
    let own = mixed(seed, number);
    (first..first + 100).filter(|other| mixed(seed, *other) < own).count() as f64 / 100.0
}

/// `SplitMix64`.
fn mixed(seed: u64, number: u64) -> u64 {
    let mut mixed = (seed << 32).wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
