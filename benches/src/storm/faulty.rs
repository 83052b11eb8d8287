//! The server that fails as told, in its own process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, sleep_until};

use super::fault::{Fault, Gone};
use super::server::Counts;
use super::{CALL, WORKERS};
use crate::args::Effort;
use crate::clock;

const LATE: Duration = Duration::from_secs(5);
const WORK: Duration = Duration::from_millis(24);
const TOLD: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(1);
/// How long the slow replica is as quick as the others.
const QUICK: Duration = Duration::from_secs(1);
const BODY: &[u8] = br#"{"id":7,"name":"Ada"}"#;

/// What is counted where requests are served and read where the process ends.
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    told: AtomicU64,
    obeyed: AtomicU64,
    worked: AtomicU64,
    busy_micros: AtomicU64,
}

impl Tally {
    pub(super) fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            requests: of(&self.requests),
            told: of(&self.told),
            obeyed: of(&self.obeyed),
            worked: of(&self.worked),
            busy: Duration::from_micros(of(&self.busy_micros)),
        }
    }
}

/// Which server this is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub(super) fault: Fault,
    pub(super) effort: Effort,
    pub(super) seed: u64,
    pub(super) replica: usize,
}

/// At an address that the parent keeps, and that its own predecessor may just have left.
#[allow(clippy::unused_async, reason = "listening needs a runtime around it")]
pub(super) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

pub(super) async fn serve(listener: TcpListener, served: Served, tally: Arc<Tally>) {
    let server = Rc::new(Faulty {
        served,
        tally,
        told: RefCell::default(),
        began: Cell::default(),
        workers: Rc::new(Semaphore::new(WORKERS as usize)),
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

type Body = UnsyncBoxBody<Bytes, Infallible>;

struct Faulty {
    served: Served,
    tally: Arc<Tally>,
    /// When the calls that were told so may come again.
    told: RefCell<HashMap<u64, Instant>>,
    /// When the first request came.
    began: Cell<Option<Instant>>,
    workers: Rc<Semaphore>,
}

impl Faulty {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, &'static str> {
        let Served { fault, seed, replica, .. } = self.served;
        let now = clock::now();
        let (number, call) = (self.count(&request, now), call_of(&request));
        let struck = share_of(seed, number) < fault.share(replica);
        match fault {
            Fault::SlowReplica if replica == 0 && now >= self.began(now) + QUICK => sleep(SLOW).await,
            Fault::SlowReplica | Fault::Rolling | Fault::Overload | Fault::Stall | Fault::LongOverload => {
                self.work(now).await;
            }
            Fault::Outage => {}
            _ if !struck => {}
            Fault::Some503 | Fault::All503 => return Ok(unavailable(false)),
            Fault::RetryAfter | Fault::RetryAfterOne => {
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
        if let Some(not_before) = self.told.borrow_mut().remove(&call_of(request)) {
            self.tally.told.fetch_add(1, Ordering::Relaxed);
            self.tally.obeyed.fetch_add(u64::from(now >= not_before), Ordering::Relaxed);
        }
        self.tally.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// When the first request came: with it workers begin to leave.
    fn began(&self, now: Instant) -> Instant {
        self.began.get().unwrap_or_else(|| {
            self.began.set(Some(now));
            if let Some(gone) = self.served.fault.gone(self.served.effort) {
                self.leave(gone, now);
            }
            now
        })
    }

    /// A worker's time, which is spent even if nobody waits for it any more.
    async fn work(&self, now: Instant) {
        self.began(now);
        let (workers, tally) = (self.workers.clone(), self.tally.clone());
        let work = tokio::task::spawn_local(async move {
            let _worker = workers.acquire().await;
            let begun = clock::now();
            sleep(WORK).await;
            tally.worked.fetch_add(1, Ordering::Relaxed);
            tally.busy_micros.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        });
        let _ = work.await;
    }

    /// Each of them leaves when its time has come and it is done with what it has, and comes back
    /// together with the others.
    fn leave(&self, gone: Gone, began: Instant) {
        for _ in 0..gone.workers {
            let workers = self.workers.clone();
            tokio::task::spawn_local(async move {
                sleep_until((began + gone.from).into()).await;
                let _worker = workers.acquire().await;
                sleep_until((began + gone.back()).into()).await;
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

/// The place of a request among its hundred, over a hundred: each hundred meets exactly its share
/// of faults, in an order that depends on nothing but the seed.
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
