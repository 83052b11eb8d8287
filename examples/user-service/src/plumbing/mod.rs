//! What any small HTTP service needs and what this one is not about: errors, ids, idempotency, a database, a drain.
//!
//! order-service compiles these same files (`#[path]` in its `lib.rs`), so that there is one copy of every rule.

pub mod clock;
pub mod database;
pub mod error;
pub mod extract;
pub mod health;
pub mod http;
pub mod idempotency;
pub mod limits;
pub mod logs;
pub mod page;
pub mod problem;
pub mod request_id;
pub mod server;
