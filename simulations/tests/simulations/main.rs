//! Simulations and experiments on a virtual clock: what many calls come to over minutes, where the
//! library's own tests look at one. Each names its seed, prints its figures (`--nocapture`), and
//! has a control that fails.
//!
//! | module | what is simulated |
//! |---|---|
//! | `experiments` | an outage, random failures, spoilt bodies, a long tail: requests per call and the share of good calls |
//! | `metastable` | a server that is overloaded for a while, three services in a row, a thousand clients told to come back |
//! | `overload` | what the standard policy serves of an overload, beside a bare client |
//! | `outages`, `nothing_absorbs` | some or all of several endpoints down, in any order, and what is served after |
//! | `recovery`, `breaker_herd` | how soon a server that is up again has its traffic, and what a fleet's probes cost one that isn't |
//! | `soak` | ten minutes of everything, after which nothing may be missing |
//! | `hedge`, `adaptive_limit` | the machines of these policies beside a simulated server |

mod adaptive_limit;
mod breaker_herd;
mod experiments;
mod hedge;
mod metastable;
mod nothing_absorbs;
mod outages;
mod overload;
mod recovery;
mod soak;

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use resilient_client::event::{Event, Observer};
use resilient_client::policy::Policy;
use resilient_client::policy::breaker::State;
use resilient_client::testkit::rig::{Answer, Rig};
use resilient_client::testkit::script::Script;
use resilient_client::testkit::{network, script};
use resilient_client::{CallOptions, Error, Resilience, ResilienceLayer};
use tower_layer::Layer as _;
use tower_service::Service as _;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
