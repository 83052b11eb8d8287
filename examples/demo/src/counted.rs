//! What the resilient order-service's calls came to, counted three ways by programs that don't know
//! of one another, and compared to the last one:
//!
//! | | counted by | where it is |
//! |---|---|---|
//! | counters | the client's metrics | order-service's `/metrics` |
//! | reports | whoever made the call, from the report it got | [`CALLS`], a line a call |
//! | the server's log | the door of every user-service, before anything else is done | a [file](arrivals_file) for each, a line as a call comes and one as it is answered |
//!
//! Every attempt has a header with its call's number and its own ([`ATTEMPT`]), so a request in the
//! server's log is one attempt of one report, and the difference is a list, not a number.
//!
//! A log is written with one system call a line and read after the run: `kill -9` takes none of it.
//! What a process never took up, because it was dead, stopped or gone before it had read the
//! request, isn't in its log; those attempts are told apart by what they came to at the caller, and
//! none of them may have an answer. order-service isn't killed in any scenario.
//!
//! A call that nobody waited for any more has no report: what it did is written down from its
//! events, and told apart as well.

mod caller;
mod compare;
mod page;
mod server_log;

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

pub(crate) use self::caller::Caller;
pub(crate) use self::compare::Counted;
use self::compare::{Arrival, Evidence, ToldCall};
use self::page::Page;
pub(crate) use self::server_log::ServerLog;
use crate::Problem;
use crate::clock::now;

/// The header that says which attempt a request is.
const ATTEMPT: &str = "x-demo-attempt";
/// Where the reports are.
const CALLS: &str = "calls.log";
/// How long the three may take to agree once all is quiet: a hedge may still be in flight.
const QUIET_LIMIT: Duration = Duration::from_secs(5);

/// Where a user-service writes what came to the resilient order-service's door.
pub(crate) fn arrivals_file(replica: usize) -> String {
    format!("arrivals-{}.log", replica + 1)
}

/// Counts, when the load has ended and nothing is pending. What is still under way at the first
/// look may have ended at the next; a count that is wrong stays wrong.
pub(crate) async fn count(
    directory: &Path,
    order_service: &str,
    replicas: usize,
    others: bool,
) -> Result<Counted, Problem> {
    let http = reqwest::Client::builder().timeout(QUIET_LIMIT).no_proxy().build()?;
    let url = format!("{order_service}/metrics");
    let since = now();
    loop {
        let page = http.get(&url).send().await?.error_for_status()?.text().await?;
        let mut arrivals = Vec::new();
        for replica in 0..replicas {
            arrivals.append(&mut lines::<Arrival>(&directory.join(arrivals_file(replica)))?);
        }
        let calls = lines::<ToldCall>(&directory.join(CALLS))?;
        let evidence = Evidence { metrics: Page::read(&page), calls, arrivals, others };
        let counted = Counted::of(&evidence);
        if counted.is_equal() || since.elapsed() > QUIET_LIMIT {
            return Ok(counted);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The whole lines of a log. One that was never begun has none.
fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, Problem> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let read = whole.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    read.map_err(|error| format!("{}: {error}", path.display()).into())
}
