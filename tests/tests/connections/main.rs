//! Connections end, all the time: a server goes away in good order, is restarted, tires of idle
//! ones, allows fewer streams than are asked of it. That is housekeeping. Each story here is told
//! by reqwest as it comes, too, and ours serves no fewer calls.

mod connecting;
mod deaths;
mod mute;
mod streams;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use resilient_client::Policy;
use resilient_client::deadline::{self, Deadline};
use resilient_client::outcome::Outcome;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client_tests::crowd::{Any, Tally, Work};
use resilient_client_tests::h2_peer::{H2Peer, Manners};
use resilient_client_tests::h2_server::{Act, End, H2Server, NO_ERROR};
use resilient_client_tests::{Gate, Heard, Reply, SOON, Server, Watched, clock, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

const LONG: Duration = Duration::from_mins(1);

/// Every call of each client is answered, none is taken twice, and no breaker has moved.
async fn everyone_is_served(manners: Manners, work: Work) {
    let mut failures = Vec::new();
    for client in Any::all(true, &Policy::standard()) {
        let server = H2Peer::start(manners).await;
        let tally = work.over(&client, &server.url("/")).await;
        let twice = server.taken_twice();
        println!(
            "{}: {}, {} twice, {} transitions",
            client.name(),
            tally.said(),
            twice.len(),
            client.transitions()
        );
        if client.is_bare() {
            continue;
        }
        // What is safe to repeat may be.
        let twice = if work.method == Method::POST { twice } else { Vec::new() };
        if tally.served + tally.beyond_help(&client) != work.calls()
            || client.transitions() != 0
            || !twice.is_empty()
        {
            failures.push(format!("{}: {}, {twice:?}", client.name(), tally.said()));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
