//! Allocations per call, counted by the allocator; and what a breaker keeps in memory. Exact, so
//! once is enough.

use std::alloc::System;
use std::mem::size_of_val;

use resilient_client::Policy;
use resilient_client_benches::args::Args;
use resilient_client_benches::loopback::{Server, serve_if_asked};
use resilient_client_benches::subject::Subject;
use resilient_client_benches::table::{Goal, Table};
use resilient_client_benches::wire::{self, Client};
use resilient_client_benches::{machines, noop};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

const AS_IT_COMES: &str = "reqwest as it comes";
const HYPER: &str = "hyper-util";
const NO_RETRIES: &str = "reqwest, no retries";

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    if serve_if_asked() {
        return;
    }
    let args = Args::from_env();
    if !args.wants("allocations") {
        return;
    }
    let n = args.effort.pick(2000, 500, 5);
    let mut table = Table::new("Allocations per call (a growing buffer's reallocations are allocations too)");

    let standard = Policy::standard();
    let none = Policy::none();
    let ours = per_call(noop::ours("ours", &standard), n);
    let bare = ("bare service", per_call(noop::bare("bare service"), n));
    table.versus("round a service that does nothing", ours, bare, f64::NAN, Goal::AtMost(0.0));
    for peer in [
        ("tower: retry, limit, timeout", per_call(noop::tower("tower"), n)),
        ("seatbelt: retry, breaker, timeout", per_call(noop::seatbelt("seatbelt"), n)),
        ("tower-resilience", per_call(noop::tower_resilience("tower-resilience"), n)),
    ] {
        table.versus("round a service that does nothing", ours, peer, f64::NAN, Goal::None);
    }
    let untold = per_call(noop::ours_untold("no deadline header", &standard), n);
    table.alone("the same, no deadline header", untold, Goal::AtMost(0.0));
    table.alone("the same, no policy", per_call(noop::ours("none", &none), n), Goal::AtMost(0.0));
    let rejected = per_call(machines::rejected("rejected", 1), n);
    table.alone("a rejection of the open breaker", rejected, Goal::AtMost(0.0));

    let server = Server::start();
    let over = |client| per_call(wire::sequential("http", client, server.url()), n);
    let ours = over(Client::ours(standard.clone()));
    // The goal was set against reqwest keeping a copy of each request, as it does unless told
    // otherwise.
    table.counts("over reqwest", ours, (AS_IT_COMES, over(Client::bare_as_it_comes())), Goal::Ratio(1.0));
    table.counts("over reqwest", ours, (NO_RETRIES, over(Client::bare())), Goal::None);
    for (peer, client) in [
        ("reqwest-retry", Client::middleware()),
        ("tower", Client::tower()),
        ("tower-resilience", Client::tower_resilience()),
    ] {
        table.counts("over reqwest", ours, (peer, over(client)), Goal::None);
    }
    table.alone("over reqwest, no policy", over(Client::ours(none.clone())), Goal::None);
    let ours = over(Client::ours_on_hyper(standard));
    table.counts("over hyper", ours, (HYPER, over(Client::bare_hyper())), Goal::AtMost(16.0));
    table.alone("over hyper, no policy", over(Client::ours_on_hyper(none)), Goal::None);
    table.publish(&args);

    let mut table = Table::new("Bytes a breaker takes, heap included");
    let ours = bytes(machines::breaker);
    for peer in [
        ("failsafe", bytes(machines::failsafe)),
        ("recloser", bytes(machines::recloser)),
        ("tower-resilience", bytes(machines::tower_resilience)),
    ] {
        table.counts("breaker", ours, peer, Goal::AtMost(400.0));
    }
    table.publish(&args);
}

/// What a call allocates once everything is warm: connections, tables, buffers.
fn per_call(mut subject: Subject, n: u64) -> f64 {
    subject.run(n);
    let region = Region::new(ALLOCATOR);
    subject.run(n);
    let change = region.change();
    // What happens less often than every tenth call belongs to the runtime, not to the call.
    let each = (change.allocations + change.reallocations) as f64 / n as f64;
    (each * 10.0).round() / 10.0
}

fn bytes<T>(make: impl Fn() -> T) -> f64 {
    // The first one also makes what all share.
    drop(make());
    let region = Region::new(ALLOCATOR);
    let made = make();
    let change = region.change();
    let heap = change.bytes_allocated - change.bytes_deallocated;
    (heap + size_of_val(&made)) as f64
}
