//! A scripted server behind a client, on tokio's paused clock, with all that happened.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::script::{Script, ScriptBody, Step};
use crate::authority::Authority;
use crate::engine::{Core, Setup};
use crate::event::{Event, Observer};
#[cfg(test)]
use crate::hook::Hook;
use crate::policy::Policy;
#[cfg(test)]
use crate::policy::PolicySet;
use crate::policy::breaker::State;
use crate::rng::Entropy;
use crate::time;
use crate::upstream::{Upstream, UpstreamSnapshot};
use crate::{CallOptions, Error, Resilience, ResilienceLayer, ResponseBody};

/// What its calls ask for.
pub const URL: &str = "http://users:3000/users/7";

/// See the [module docs](self).
pub struct Rig {
    pub script: Script,
    pub service: Resilience<Script>,
    pub(crate) core: Arc<Core>,
    pub events: Arc<Mutex<Vec<Event>>>,
}

pub type Answer = Result<Response<ResponseBody<ScriptBody>>, Error>;

impl Rig {
    pub fn new(policy: &Policy, steps: impl IntoIterator<Item = Step>) -> Self {
        Self::seeded(policy, 42, steps)
    }

    pub fn seeded(policy: &Policy, seed: u64, steps: impl IntoIterator<Item = Step>) -> Self {
        let setup = Setup { policies: policy.clone().into(), ..Setup::default() };
        Self::at(&Script::new(steps), setup, seed)
    }

    #[cfg(test)]
    pub(crate) fn with(
        policies: PolicySet,
        hook: Option<Hook>,
        steps: impl IntoIterator<Item = Step>,
    ) -> Self {
        Self::set_up(Setup { policies, hook, ..Setup::default() }, steps)
    }

    #[cfg(test)]
    pub(crate) fn set_up(setup: Setup, steps: impl IntoIterator<Item = Step>) -> Self {
        Self::at(&Script::new(steps), setup, 42)
    }

    /// One client of a server that may have several.
    pub fn before(script: &Script, policy: &Policy) -> Self {
        Self::at(script, Setup { policies: policy.clone().into(), ..Setup::default() }, 42)
    }

    pub(crate) fn at(script: &Script, setup: Setup, seed: u64) -> Self {
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

    pub fn request(method: Method, options: CallOptions) -> Request<String> {
        let mut request = Request::builder().method(method).uri(URL).body(String::new()).unwrap();
        request.extensions_mut().insert(options);
        request
    }

    pub fn start(&self, method: Method, options: CallOptions) -> impl Future<Output = Answer> + use<> {
        self.service.clone().call(Self::request(method, options))
    }

    pub async fn get(&self) -> Answer {
        self.start(Method::GET, CallOptions::new()).await
    }

    pub async fn post(&self) -> Answer {
        self.start(Method::POST, CallOptions::new()).await
    }

    pub(crate) fn upstream(&self) -> Arc<Upstream> {
        self.core.upstream_of(&Authority::of_uri(&URL.parse().unwrap()))
    }

    pub fn state(&self) -> State {
        self.upstream().breaker_snapshot(time::now()).state
    }

    pub fn snapshot(&self) -> Vec<UpstreamSnapshot> {
        self.core.snapshot()
    }

    pub fn reload(&self, policy: Policy) {
        self.core.reload(policy.into()).expect("a policy that works");
    }

    /// Attempts holding a slot.
    pub fn in_use(&self) -> u32 {
        self.upstream().in_use()
    }

    /// Attempts waiting for a slot.
    pub fn queued(&self) -> usize {
        self.core.snapshot().iter().map(|upstream| upstream.queued).sum()
    }

    pub fn tokens(&self) -> f64 {
        self.upstream().budget().available()
    }
}

/// The whole body as text.
pub async fn text(response: Response<ResponseBody<ScriptBody>>) -> Result<String, Error> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).expect("scripts speak UTF-8"))
}
