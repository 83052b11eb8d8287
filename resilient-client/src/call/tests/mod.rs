//! Whole calls over a scripted server, on a virtual clock.

mod admission;
mod buffered;
mod calls;
mod cancel;
mod closures;
mod controls;
mod deadlines;
mod doors;
mod endpoints;
mod experiments;
mod hedging;
mod hooks;
mod identity;
mod metastable;
mod names;
mod nothing_absorbs;
mod outages;
mod overload;
mod ready;
mod recovery;
mod reload;
mod replay;
mod script;
mod shared;
mod sizes;
mod soak;
mod verdicts;

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use tower_layer::Layer as _;
use tower_service::Service as _;

use self::script::{Script, ScriptBody};
use crate::authority::Authority;
use crate::engine::{Core, Setup};
use crate::event::{Event, Observer};
use crate::hook::Hook;
use crate::policy::breaker::State;
use crate::policy::{Policy, PolicySet};
use crate::rng::Entropy;
use crate::upstream::Upstream;
use crate::{CallOptions, Error, Resilience, ResilienceLayer, ResponseBody};

const URL: &str = "http://users:3000/users/7";

/// A scripted server behind the engine, with everything that happened.
struct Rig {
    script: Script,
    service: Resilience<Script>,
    core: Arc<Core>,
    events: Arc<Mutex<Vec<Event>>>,
}

type Answer = Result<Response<ResponseBody<ScriptBody>>, Error>;

impl Rig {
    fn new(policy: &Policy, steps: impl IntoIterator<Item = script::Step>) -> Self {
        Self::with(policy.clone().into(), None, steps)
    }

    fn with(policies: PolicySet, hook: Option<Hook>, steps: impl IntoIterator<Item = script::Step>) -> Self {
        Self::set_up(Setup { policies, hook, ..Setup::default() }, steps)
    }

    fn set_up(setup: Setup, steps: impl IntoIterator<Item = script::Step>) -> Self {
        Self::set_up_seeded(setup, 42, steps)
    }

    fn set_up_seeded(setup: Setup, seed: u64, steps: impl IntoIterator<Item = script::Step>) -> Self {
        Self::at(&Script::new(steps), setup, seed)
    }

    /// One client of a server that may have several.
    fn before(script: &Script, policy: &Policy) -> Self {
        Self::at(script, Setup { policies: policy.clone().into(), ..Setup::default() }, 42)
    }

    fn at(script: &Script, setup: Setup, seed: u64) -> Self {
        let script = script.clone();
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let heard = Arc::clone(&events);
        let observer = move |_: &str, event: &Event| heard.lock().unwrap().push(event.clone());
        let observers: Vec<Arc<dyn Observer>> = vec![Arc::new(observer)];
        let core = Core::new(Setup { observers, entropy: Entropy::seeded(seed), ..setup });
        let core = Arc::new(core.expect("policies that work"));
        let service = ResilienceLayer::of(Arc::clone(&core)).layer(script.clone());
        Self { script, service, core, events }
    }

    fn request(method: Method, options: CallOptions) -> Request<String> {
        let mut request = Request::builder().method(method).uri(URL).body(String::new()).unwrap();
        request.extensions_mut().insert(options);
        request
    }

    fn start(&self, method: Method, options: CallOptions) -> impl Future<Output = Answer> + use<> {
        self.service.clone().call(Self::request(method, options))
    }

    async fn get(&self) -> Answer {
        self.start(Method::GET, CallOptions::new()).await
    }

    async fn post(&self) -> Answer {
        self.start(Method::POST, CallOptions::new()).await
    }

    fn upstream(&self) -> Arc<Upstream> {
        self.core.upstream_of(&Authority::of_uri(&URL.parse().unwrap()))
    }

    fn state(&self) -> State {
        self.upstream().breaker_snapshot(crate::time::now()).state
    }

    /// Attempts holding a slot.
    fn in_use(&self) -> u32 {
        self.upstream().in_use()
    }

    /// Attempts waiting for a slot.
    fn queued(&self) -> usize {
        self.core.snapshot().iter().map(|upstream| upstream.queued).sum()
    }

    fn tokens(&self) -> f64 {
        self.upstream().budget().available()
    }
}

/// The whole body as text.
async fn text(response: Response<ResponseBody<ScriptBody>>) -> Result<String, Error> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).expect("scripts speak UTF-8"))
}
