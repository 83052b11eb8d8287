//! Several servers behind one name, on tokio's paused clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Empty;
use tower::service_fn;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::rig::Rig;
use super::script::ms;
use crate::advice::{SHED, SHED_DEADLINE};
use crate::endpoints::Endpoints;
use crate::error::{BoxError, Error};
use crate::policy::Policy;
use crate::refused::refused;
use crate::{CallOptions, CallReport, ResilienceLayer};

/// The name that the replicas are behind.
pub const NAME: &str = "http://users:3000";

/// What a replica does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Replica {
    /// With 200, after so many milliseconds.
    Answers(u64),
    /// With 503, after so many milliseconds.
    Fails(u64),
    /// With this status and `Retry-After`, after a millisecond.
    Says(u16, &'static str),
    /// For want of time, as a `DeadlineLayer` does.
    Sheds,
    /// Connections.
    Refuses,
    Hangs,
}

/// Replicas by authority, as the network would have them, and who was asked with which `Host`.
#[derive(Clone, Default)]
pub struct Network {
    replicas: Arc<Mutex<HashMap<String, Replica>>>,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

/// Who was asked, and under which `Host`.
pub(crate) type Asked = (String, Option<String>);

impl Network {
    pub fn of(replicas: &[(&str, Replica)]) -> Self {
        let network = Self::default();
        for (authority, replica) in replicas {
            network.set(authority, *replica);
        }
        network
    }

    pub fn set(&self, authority: &str, replica: Replica) {
        self.replicas.lock().unwrap().insert(authority.to_owned(), replica);
    }

    pub async fn answer(self, request: Request<String>) -> Result<Response<Empty<Bytes>>, BoxError> {
        let authority = request.uri().authority().unwrap().to_string();
        assert_eq!(request.uri().path(), "/users/7", "only the origin changes");
        let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        let replica = self.replicas.lock().unwrap().get(&authority).copied();
        self.asked.lock().unwrap().push((authority, host));
        match replica.unwrap_or(Replica::Refuses) {
            Replica::Answers(after) => tokio::time::sleep(ms(after)).await,
            Replica::Hangs => std::future::pending().await,
            Replica::Refuses => return Err(refused().await),
            Replica::Fails(after) => {
                tokio::time::sleep(ms(after)).await;
                return Ok(Response::builder().status(503).body(Empty::new()).unwrap());
            }
            Replica::Says(status, retry_after) => {
                tokio::time::sleep(ms(1)).await;
                let response = Response::builder().status(status).header("retry-after", retry_after);
                return Ok(response.body(Empty::new()).unwrap());
            }
            Replica::Sheds => {
                tokio::time::sleep(ms(1)).await;
                let response = Response::builder().status(504).header(SHED, SHED_DEADLINE);
                return Ok(response.body(Empty::new()).unwrap());
            }
        }
        Ok(Response::new(Empty::new()))
    }

    pub fn share(&self, authority: &str) -> f64 {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(who, _)| who == authority).count() as f64 / asked.len() as f64
    }

    pub fn count(&self, authority: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|(who, _)| who == authority).count()
    }
}

pub fn layer(policy: Policy, endpoints: Endpoints) -> ResilienceLayer {
    ResilienceLayer::builder().policy(policy).endpoints(NAME, endpoints).seed(7).build().unwrap()
}

pub fn three() -> Endpoints {
    Endpoints::fixed(["http://a:1", "http://b:2", "http://c:3"])
}

/// A call that can be a task of its own.
pub fn start(
    layer: &ResilienceLayer,
    network: &Network,
    method: Method,
    options: CallOptions,
) -> impl Future<Output = Result<(u16, CallReport), Error>> + Send + use<> {
    let network = network.clone();
    let mut service = layer.layer(service_fn(move |request| network.clone().answer(request)));
    async move {
        let response = service.call(Rig::request(method, options)).await?;
        let report = response.body().report().clone();
        Ok((response.status().as_u16(), report))
    }
}
