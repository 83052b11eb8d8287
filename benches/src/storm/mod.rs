//! Stacks under fault: an open loop over loopback against servers, in other processes, that fail as
//! their seed says.
//!
//! ```text
//! fault.rs    what goes wrong, and when
//! server.rs   the servers' processes: started, ended and started again, and what each has counted
//! faulty.rs   what runs in them, and what only they can count: requests, and retries that came no sooner than told
//! stack.rs    each stack, set up as its docs advise, as one thing: make a call, was it a success?
//! load.rs     the open loop of one stack against one fault
//! table.rs    the tables, and our goals
//! ```

pub mod fault;
mod faulty;
pub mod load;
pub mod server;
pub mod stack;
pub mod table;

use std::time::Duration;

/// Calls a second.
pub const RATE: u64 = 300;
/// A success is a full body within this.
pub const IN_TIME: Duration = Duration::from_secs(2);
/// The bound of an attempt, for every stack that has one.
pub const ATTEMPT: Duration = Duration::from_millis(500);
/// What to get.
pub const PATH: &str = "/users/7";
/// The workers of a server whose answers are work.
pub const WORKERS: u32 = 10;
/// The header that names the call, so that the server knows a retry when it sees one.
const CALL: &str = "x-call";
