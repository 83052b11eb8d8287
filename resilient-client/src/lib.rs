//! Resilient HTTP calls between services.
//!
//! Swap one type and calls to another service get deadlines, retries, a retry budget, a circuit
//! breaker and a bulkhead, all decided in one place:
//!
//! ```no_run
//! use resilient_client::Client;
//!
//! #[derive(serde::Deserialize)]
//! struct User {
//!     name: String,
//! }
//!
//! # async fn run() -> Result<(), resilient_client::Error> {
//! let client = Client::builder().build()?;
//! let url = "http://127.0.0.1:3000/users/1";
//! let user: User = client.get(url).send().await?.error_for_status()?.json().await?;
//! println!("{}", user.name);
//! # Ok(())
//! # }
//! ```
//!
//! # How a call travels
//!
//! ```text
//! request
//!   |  client/      build the request                          (or layer/: round any tower service)
//!   v                                     +----------------------------------------------+
//! call/    loop:  ledger.decide(now) -----| Launch | Hedge | WaitUntil | Expire | Finish |
//!   ^   |                                 +----------------------------------------------+
//!   |   v
//!   |  upstream/    per attempt: limits, choice of endpoint, circuit breaker; one permit for all
//!   |   |           (in which order: see `policy`); an attempt may have to wait
//!   |   v
//!   |  exchange     reqwest, hyper, or any tower service
//!   |   v
//!   +- outcome/     classified once; a failure goes back to the ledger
//!   v
//! call/response_body.rs  the permit lasts until the body has ended; a body that fails takes its head's success back
//!   v
//! response + CallReport
//! ```
//!
//! Layers that don't know of each other can't answer "may this call send another attempt?": a retry
//! doesn't know the deadline, a timeout doesn't know that a retry is coming, a breaker doesn't see
//! the body fail. Here one pure state machine, the ledger, hears of everything and decides.
//!
//! # Floors
//!
//! A module imports only from floors below its own, and none of its neighbours on the same one. A
//! test reads this diagram and checks it (`tests/tests/floors`).
//!
//! ```text
//! testing                                           tests of one's own code: a scripted wire, and a policy simulated
//! bench_internals, testkit                          what the benches time alone; what tests of whole calls are made with
//! admin                                             what an operator sees of clients, and does to them
//! blocking                                          the client for code that isn't async
//! client, hyper, layer, server, circuit, adapters   doors: reqwest's verbs, hyper's, tower services; servers; a breaker alone
//! shared_methods, pool_defaults, faulted            what doors have in common
//! control                                           an operator's hand on breakers
//! call                                              one call: its loop, its ledger, its attempts, its response's body
//! engine                                            what all calls share; lets them in, makes none
//! trace_context                                     which trace a request belongs to, handed on
//! hook, stale, fault, metrics, defaults, multipart  something to do before an attempt; older answers for when a server fails; faults on purpose; counts; what all requests begin with; forms
//! upstream                                          live state of one host: admission, permits, endpoints
//! telemetry                                         sends events to observers and to the log
//! event                                             what happens, as values
//! policy, endpoints                                 what you ask for, and the pure machines; the addresses behind a name
//! grpc                                              what a gRPC call is sent with, and what its errors are to its caller
//! outcome::classify, header_limit                   what an attempt's end means
//! replay                                            bodies that can be sent again
//! access                                            who may use an admin service
//! error                                             the one error
//! outcome                                           the words all share: outcome, verdict, rejection, report
//! origin, authority, redirects                      whom a call is addressed to, and where an answer may lead
//! invalid                                           why a setting can't work
//! redact, connections                               URLs without their secrets; connections, counted
//! reqwest_error, refused, deadline, advice, media, body_length, rng, sync   small things that know nothing of the rest
//! time                                              the only clock
//! ```
//!
//! # When it goes wrong
//!
//! ```no_run
//! # async fn run(client: resilient_client::Client) -> Option<String> {
//! use resilient_client::ErrorKind;
//!
//! match client.get("http://127.0.0.1:3000/users/1").send().await {
//!     Ok(response) if response.status().is_success() => response.text().await.ok(),
//!     // The last real response, after whatever retries made sense.
//!     Ok(response) => None,
//!     // Refused here at once, because the upstream is known to be down.
//!     Err(error) if error.kind() == ErrorKind::CircuitOpen => None,
//!     Err(error) => {
//!         eprintln!("{error}");
//!         eprintln!("{}", error.report()?); // every attempt, and why there was no other
//!         None
//!     }
//! }
//! # }
//! ```
//!
//! # Where to go on
//!
//! - [`Policy`] and [`policy`]: what can be set, and every default.
//! - [`outcome::classify`]: what counts as a failure and what is tried again, as a table.
//! - `hyper`, with the feature of that name: the same client without reqwest, in half the
//!   instructions.
//! - `blocking`, with the feature of that name: the same client for code that isn't async.
//! - `multipart`, with the feature of that name: forms that can be sent again.
//! - [`ResilienceLayer`]: the same for a tower service of your own.
//! - `grpc`, with the feature of that name: gRPC's status, pushback and deadlines, round tonic's
//!   channel.
//! - `stale`, with the feature `cache`: an older answer when the server fails.
//! - `server`, with the feature of that name: layers for servers, who read their callers' deadlines
//!   and shed what comes too late.
//! - `fault`, with the feature of that name: faults on purpose, in servers, clients and at the
//!   wire.
//! - `metrics`, with the feature of that name: what happens, counted, for Prometheus and others.
//! - `admin`, with the feature of that name: a live page, JSON and a hand on breakers, for whoever
//!   is on call.
//! - `testing`, with the feature of that name: a scripted wire for tests of your own code,
//!   responses and errors of any kind, assertions on reports, and a simulator of policies.
//! - [`circuit`]: the breaker on its own, round a database call or anything else.
//! - [`event`]: what happens inside, for logs and metrics.
//!
//! # Examples
//!
#![doc = include_str!("examples.md")]
//!
//! # Features
//!
#![doc = include_str!("features.md")]
//!
//! Leave `reqwest` on where the service inside a layer is made of reqwest: it is what tells its
//! timeouts from other errors, and takes the secrets out of URLs in its messages.

// On docs.rs each item says which feature brings it.
#![cfg_attr(docsrs, feature(doc_cfg))]
// What only clients use: builds that have both look for dead code.
#![cfg_attr(not(feature = "reqwest"), allow(dead_code))]
#![cfg_attr(not(any(feature = "reqwest", feature = "hyper")), allow(unused_imports, unused_macros))]
// They say "as `Client`", which a build without it hasn't.
#![cfg_attr(not(feature = "reqwest"), allow(rustdoc::broken_intra_doc_links))]

#[cfg(any(feature = "fault", feature = "admin"))]
pub mod access;
#[cfg(any(feature = "backoff", feature = "failsafe"))]
mod adapters;
#[cfg(feature = "admin")]
pub mod admin;
pub mod advice;
mod authority;
#[cfg(feature = "__bench")]
#[doc(hidden)]
pub mod bench_internals;
#[cfg(feature = "blocking")]
pub mod blocking;
mod body_length;
mod call;
pub mod circuit;
#[cfg(feature = "reqwest")]
mod client;
mod connections;
mod control;
pub mod deadline;
mod defaults;
pub mod endpoints;
mod engine;
mod error;
pub mod event;
#[cfg(feature = "fault")]
pub mod fault;
#[cfg(any(feature = "reqwest", feature = "hyper"))]
mod faulted;
#[cfg(feature = "grpc")]
pub mod grpc;
mod header_limit;
mod hook;
#[cfg(feature = "hyper")]
pub mod hyper;
mod invalid;
mod layer;
mod media;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "multipart")]
pub mod multipart;
mod origin;
pub mod outcome;
pub mod policy;
#[cfg(any(feature = "reqwest", feature = "hyper"))]
mod pool_defaults;
mod redact;
pub mod redirects;
#[cfg(any(test, feature = "testing", feature = "__testkit"))]
mod refused;
mod replay;
mod reqwest_error;
pub mod rng;
#[cfg(any(test, feature = "server"))]
pub mod server;
mod shared_methods;
#[cfg(feature = "cache")]
pub mod stale;
mod sync;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(test, feature = "__testkit"))]
#[doc(hidden)]
pub mod testkit;
pub mod time;
pub mod trace_context;
mod upstream;

// A thing has one path: its module's, where that is public, and here what it isn't. In both are
// those words alone that most programs name: docs/stability.md has them, and a test compares.
pub use call::exchange::ATTEMPT_COUNT;
pub use call::options::{CallOptions, IDEMPOTENCY_KEY};
pub use call::response_body::ResponseBody;
#[cfg(feature = "reqwest")]
pub use client::{Client, ClientBuilder, Pending, RequestBuilder, Response};
pub use connections::Connections;
pub use control::BreakerControl;
pub use deadline::Deadline;
pub use endpoints::{Endpoints, EndpointsHandle};
pub use engine::Reloaded;
pub use error::{Error, ErrorKind};
pub use event::{Event, Observer};
pub use hook::{Attempt, AttemptHook, Prepared};
pub use layer::{LayerBuilder, Resilience, ResilienceLayer, ResponseFuture};
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use outcome::rejection::Rejection;
pub use outcome::report::{AttemptReport, CallReport, Decline, Trigger};
pub use policy::Policy;
pub use policy::breaker::Control;
pub use redirects::Redirects;
pub use replay::{Replay, ReplayBody, ReplayError, ReplayMemory, SendOnce};
pub use upstream::{EndpointSnapshot, UpstreamSnapshot};

/// The crate that [`Client`] is built on, for its types: the version whose requests, bodies,
/// proxies, certificates and redirect policies fit.
#[cfg(feature = "reqwest")]
pub use reqwest;
#[cfg(feature = "cookies")]
pub use reqwest::cookie;
#[cfg(any(feature = "native-tls", feature = "rustls", feature = "rustls-no-provider"))]
pub use reqwest::{Certificate, Identity, tls};

/// A result whose error is this crate's, unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;
/// reqwest's names that a program may use beside the client, so that `use resilient_client as
/// reqwest` is all that such a program changes. `docs/reqwest-api.tsv` has the counterpart of every
/// public item of reqwest's.
#[cfg(feature = "reqwest")]
pub use reqwest::{
    Body, IntoUrl, Method, NoProxy, Proxy, Request, ResponseBuilderExt, StatusCode, Upgraded, Url, Version,
    dns, header, redirect, retry,
};

/// The README's code compiles, or this crate's tests fail.
#[cfg(all(doctest, feature = "reqwest"))]
#[doc = include_str!("../README.md")]
struct Readme;
