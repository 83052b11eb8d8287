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
#[cfg(feature = "grpc")]
mod grpc;
mod heads;
mod hedging;
mod hooks;
mod identity;
mod names;
mod observers;
mod overload;
mod ready;
mod reload;
mod replay;
mod shared;
mod silence;
mod sizes;
mod swap;
mod verdicts;

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use tower_layer::Layer as _;
use tower_service::Service as _;

use crate::authority::Authority;
use crate::engine::{Core, Setup};
use crate::event::{Event, Observer};
use crate::hook::Hook;
use crate::policy::breaker::State;
use crate::policy::{Policy, PolicySet};
use crate::rng::Entropy;
use crate::testkit::rig::{Answer, Rig, URL, text};
use crate::testkit::script::{Script, ScriptBody};
use crate::testkit::{network, script};
use crate::{CallOptions, Error, ResilienceLayer, ResponseBody};
