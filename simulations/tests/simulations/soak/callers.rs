//! Who calls whom, and how.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use tokio::time::sleep;
use tower_service::Service as _;

use super::world::World;
use resilient_client::deadline::{self, Deadline};
use resilient_client::policy::priority::Priority;
use resilient_client::rng::Rng;
use resilient_client::testkit::rig::{Answer, Rig, text};
use resilient_client::testkit::script::ms;
use resilient_client::{CallOptions, Resilience};

const HOSTS: [&str; 6] = ["plain-0", "plain-1", "plain-2", "plain-3", "users", "zone"];

/// Who is asked.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) key: Option<&'static str>,
}

/// All that are asked again and again.
pub(super) fn regulars() -> Vec<Target> {
    let of = |method: &Method, host: &str, path: &str, key| Target {
        method: method.clone(),
        url: format!("http://{host}:3000/{path}"),
        key,
    };
    let mut all: Vec<_> = HOSTS.iter().map(|host| of(&Method::GET, host, "users/7", None)).collect();
    all.push(of(&Method::POST, "plain-0", "orders/1", None));
    all.extend(["a", "b"].map(|key| of(&Method::GET, "plain-1", "users/7", Some(key))));
    all.push(of(&Method::POST, "users", "users/7", Some("a")));
    all
}

pub(super) fn once(number: u64) -> Target {
    Target { method: Method::GET, url: format!("http://once-{number}:3000/users/7"), key: None }
}

pub(super) type End = Result<(), String>;

pub(super) type Kept = Arc<Mutex<Vec<Box<dyn Any + Send>>>>;

/// How a caller goes about it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Patient,
    /// Drops the call.
    Leaves(Duration),
    /// Has so much time.
    Ambient(Duration),
    /// Holds the response unread, then drops it.
    Holds(Duration),
    /// Polls the call once, looks away, and then goes on, or drops it.
    Neglects(Duration, bool),
    /// Never drops the call's future.
    Keeps,
}

impl Way {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let long = ms(rng.between(10, 40_000));
        match rng.between(0, 9) {
            0 | 1 => Self::Leaves(ms(rng.between(0, 4_000))),
            2 => Self::Leaves(ms(rng.between(0, 20))),
            3 => Self::Ambient(ms(rng.between(50, 2_000))),
            4 => Self::Holds(long),
            5 if rng.unit() < 0.3 => Self::Neglects(long / 4, rng.unit() < 0.5),
            6 => Self::Keeps,
            _ => Self::Patient,
        }
    }
}

/// What a call asks for differently.
pub(super) fn options(rng: &mut Rng) -> CallOptions {
    let options = CallOptions::new();
    let options = match rng.between(0, 5) {
        0 | 1 => options.buffered(1_000),
        2 => options.streaming(),
        _ => options,
    };
    match rng.between(0, 9) {
        0 => options.priority(Priority::Critical),
        1 => options.priority(Priority::Sheddable),
        2 => options.timeout(ms(900)),
        3 => options.idempotent(true),
        _ => options,
    }
}

/// A 200 with the whole of its body, or what it was.
async fn whole(answer: Answer) -> End {
    let response = answer.map_err(|error| error.to_string())?;
    let status = response.status();
    text(response).await.map_err(|error| error.to_string())?;
    if status == 200 { Ok(()) } else { Err(status.to_string()) }
}

/// One call; what it came to, if its caller waits for that.
pub(super) fn call(
    service: &Resilience<World>,
    kept: &Kept,
    target: &Target,
    options: CallOptions,
    way: Way,
) -> impl Future<Output = Option<End>> + Send + use<> {
    let mut request = Rig::request(
        target.method.clone(),
        match target.key {
            Some(key) => options.key(key),
            None => options,
        },
    );
    *request.uri_mut() = target.url.parse().unwrap();
    let (mut service, kept) = (service.clone(), Arc::clone(kept));
    async move {
        let call = service.call(request);
        match way {
            Way::Patient => Some(whole(call.await).await),
            Way::Leaves(after) => tokio::time::timeout(after, async { whole(call.await).await }).await.ok(),
            Way::Ambient(within) => {
                let call = async { whole(call.await).await };
                Some(deadline::scope(Deadline::within(within), call).await)
            }
            Way::Holds(long) => {
                let answer = call.await;
                sleep(long).await;
                drop(answer);
                None
            }
            Way::Neglects(long, goes_on) => {
                let mut call = Box::pin(call);
                if let Ok(answer) = tokio::time::timeout(Duration::ZERO, &mut call).await {
                    return Some(whole(answer).await);
                }
                sleep(long).await;
                if goes_on { Some(whole((&mut call).await).await) } else { None }
            }
            Way::Keeps => {
                let mut call = Box::pin(call);
                let end = whole((&mut call).await).await;
                kept.lock().unwrap().push(Box::new(call));
                Some(end)
            }
        }
    }
}
