//! A million distinct hosts through one client: what is kept for them is bounded, and so is what
//! each call costs.
//!
//! There are no sockets: the layer's service answers at once, so what is measured is the crate.

use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use resilient_client::{Policy, ResilienceLayer};
use resilient_client_tests::clock;
use tower::{Layer as _, Service as _, service_fn};

/// A million where it's quick. A newcomer to a full registry copies it, which a build without
/// optimisations does 2,000 times a second; the bounds hold from the second thousand of hosts on.
const HOSTS: u32 = if cfg!(debug_assertions) { 10_000 } else { 1_000_000 };
const KNOWN: u32 = 16;
/// Unless the builder says otherwise.
const CAP: usize = 1024;
/// Generous: the registry was full before. 64 bytes for each host, not enough to remember them, and
/// 4 MiB for the allocator.
const MOST_GROWTH: usize = (4 << 20) + 64 * HOSTS as usize;

/// Bytes of memory this process has in use; zero where that can't be asked.
fn resident() -> usize {
    const PAGE: usize = 4096;
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * PAGE
}

#[tokio::test]
async fn a_million_hosts_leave_no_more_behind_than_the_cap() {
    let layer = ResilienceLayer::new(Policy::standard()).unwrap();
    let mut service = layer.layer(service_fn(async |_request: Request<String>| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let mut call = async |host: u32| {
        let uri = format!("http://host-{host}.example:3000/");
        service.call(Request::get(uri).body(String::new()).unwrap()).await.map(drop).unwrap();
    };
    let per_call = |took: Duration, calls: u32| took / calls;

    // Full from here on, so that what grows is not what a full registry costs.
    for host in 0..CAP as u32 {
        call(host).await;
    }
    let begun = clock::now();
    for n in 0..HOSTS / 10 {
        call(CAP as u32 - 1 - n % KNOWN).await;
    }
    let known = per_call(begun.elapsed(), HOSTS / 10);

    let before = resident();
    let (begun, mut most) = (clock::now(), 0);
    for n in 0..HOSTS {
        call(1_000_000 + n).await;
        if n % 1_000 == 0 {
            most = most.max(layer.snapshot().len());
        }
    }
    let unknown = per_call(begun.elapsed(), HOSTS);
    most = most.max(layer.snapshot().len());
    let growth = resident().saturating_sub(before);

    println!(
        "{HOSTS} hosts: {most} upstreams at most (cap {CAP}), {:.1} MiB more memory; a call to a known host {known:.1?}, \
         to an unknown one {unknown:.1?}, {:.1?} in all",
        growth as f64 / f64::from(1 << 20),
        begun.elapsed(),
    );
    assert!(most <= CAP, "{most} upstreams");
    assert!(growth <= MOST_GROWTH, "{growth} bytes more");
}
