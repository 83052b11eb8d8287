//! One harness for tests of whole calls, on tokio's paused clock: the library's own tests and the
//! simulations use it.
//!
//! | what | stands for |
//! |---|---|
//! | [`Script`](script::Script), a service | one server that follows a list of steps, or a rule |
//! | [`Network`](network::Network) | several servers by authority, each with a behaviour that can be changed |
//! | [`Rig`](rig::Rig) | a client of a script, with the events and the live state of its upstream |
//! | [`planted_faults`] | what simulations break on purpose, to see that they find it |
//!
//! Behind the feature `__testkit`, which is no part of the API.

pub mod network;
pub mod planted_faults;
pub mod rig;
pub mod script;
