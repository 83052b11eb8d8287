//! What `resilient-client` costs, beside its peers, in one run. `cargo bench` runs it all; see the
//! README beside this.
//!
//! ```text
//! benches/machines.rs      each pure machine alone, one thread and two              time
//! benches/call.rs          the whole stack round a service that does nothing        time
//! benches/http.rs          over loopback, the server being another process          time
//! benches/allocations.rs   both of the above, counted by the allocator              counts
//! benches/storm.rs         stacks against a server that fails                        outcomes
//! benches/instructions.rs  both of the above, counted by callgrind where it exists  counts
//! ```
//!
//! Everything measured is a [`subject::Subject`], so that a thing is timed, counted and profiled as
//! the very same code.

#![allow(clippy::missing_panics_doc, reason = "a bench that can't go on has nothing better to do")]

pub mod args;
pub mod clock;
pub mod lookups;
pub mod loopback;
pub mod machines;
pub mod noop;
pub mod peers;
pub mod recorder;
pub mod side_by_side;
pub mod storm;
pub mod subject;
pub mod table;
pub mod wire;
