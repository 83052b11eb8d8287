//! Faults on purpose (feature `fault`).

pub mod admin;
mod body;
mod client;
mod connection;
mod envoy;
mod far_end;
mod faults;
mod limits;
mod machine;
mod read;
mod rule;
mod server;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use body::Body;
pub use client::{ClientFuture, ClientLayer, FaultyClient};
pub use connection::{BreakableStream, Connection, ResetOnDrop};
pub use faults::{ENVIRONMENT, Faults, FaultsSnapshot, Settings};
pub use limits::Limits;
pub use machine::RuleCounts;
pub use rule::{Delay, Kind, Rule};
pub use server::{FaultyServer, ServerFuture, ServerLayer};
