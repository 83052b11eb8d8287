//! A server that keeps closing its keep-alive connections: nothing is executed twice, and what may
//! be repeated succeeds.
//!
//! One caveat about the counts. reqwest's pool (hyper-util) sends a request again by itself when
//! the pooled connection it had chosen closed before a byte was written, and reqwest offers no way
//! to switch that off (`retry_canceled_requests`). Such a repeat is invisible to us and to the
//! server alike: the first try never reached the wire. So the server may see fewer requests than
//! attempts, never more.

use std::collections::HashMap;
use std::time::Duration;

use resilient_client::outcome::Outcome;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::{Client, Error, Policy, RequestBuilder};
use resilient_client_tests::server::Request;
use resilient_client_tests::{Heard, Reply, Server, within};
use tokio::task::JoinSet;

const CALLS: usize = 600;
const AT_ONCE: usize = 50;

/// How the server ends its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closes {
    /// After each answer, with `Connection: close` in it.
    Announced,
    /// After each answer, without a word: the client's next request may already be on its way.
    Unannounced,
    /// After reading a second request whole, without answering it: it may have been executed.
    WithTheNextRequestInHand,
}

impl Closes {
    fn reply(self, request: &Request) -> Reply {
        match self {
            Self::Announced => Reply::answer_with(200, &[("connection", "close")], "done").then_close(),
            Self::Unannounced => Reply::answer(200, "done").then_close(),
            Self::WithTheNextRequestInHand if request.nth_on_connection == 1 => Reply::answer(200, "done"),
            Self::WithTheNextRequestInHand => Reply::nothing().then_close(),
        }
    }
}

type Ended = Result<(), Error>;

async fn answered(call: RequestBuilder) -> Ended {
    let text = call.send().await?.text().await?;
    assert_eq!(text, "done");
    Ok(())
}

struct Rig {
    server: Server,
    client: Client,
    heard: Heard,
}

impl Rig {
    async fn new(closes: Closes) -> Self {
        let server = Server::start(move |request| closes.reply(request)).await;
        let heard = Heard::new();
        let mut policy = Policy::standard();
        if closes == Closes::WithTheNextRequestInHand {
            // A server that drops half of all requests opens any breaker and empties any budget,
            // which would leave nothing to count here. And a retry can meet another connection that
            // will drop it.
            let retry = RetryPolicy::standard().initial(Duration::from_millis(1)).max_attempts(10);
            policy = policy.breaker(None).budget(None).retry(retry);
        }
        let client = Client::builder().policy(policy).observer(heard.clone()).build().unwrap();
        Self { server, client, heard }
    }

    fn post(&self, id: usize) -> impl Future<Output = Ended> + Send + use<> {
        answered(self.client.post(self.server.url("/orders")).body(format!("order {id}")))
    }

    fn get(&self) -> impl Future<Output = Ended> + Send + use<> {
        answered(self.client.get(self.server.url("/orders")))
    }

    /// How often the server read each body: what a server with side effects would have executed.
    fn executed(&self) -> HashMap<String, usize> {
        let mut executed = HashMap::new();
        for request in self.server.requests() {
            *executed.entry(String::from_utf8(request.body.to_vec()).unwrap()).or_default() += 1;
        }
        executed
    }

    fn assert_no_post_was_executed_twice(&self) {
        let twice: Vec<_> = self.executed().into_iter().filter(|(_, times)| *times > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    /// See the caveat at the top.
    fn assert_nothing_was_sent_unseen(&self, closes: Closes) {
        let (sent, read) = (self.heard.attempts(), self.server.count());
        let answered = self.server.seen().read(|seen| seen.answered);
        assert_eq!(
            answered,
            self.heard.ended_as(Outcome::Success),
            "an answer is a success, and nothing else is"
        );
        match closes {
            // It reads whatever is written, so every attempt must be there: no fewer, and no hidden
            // ones.
            Closes::Announced | Closes::WithTheNextRequestInHand => assert_eq!(read, sent),
            // What is written into a closed socket is never read.
            Closes::Unannounced => assert!(read <= sent, "{read} requests for {sent} attempts"),
        }
    }
}

/// Runs `CALLS` calls, `AT_ONCE` of them at a time; how many succeeded.
async fn concurrently<F>(mut call: impl FnMut(usize) -> F) -> usize
where
    F: Future<Output = Ended> + Send + 'static,
{
    let mut running: JoinSet<Ended> = JoinSet::new();
    let mut succeeded = 0;
    for n in 0..CALLS {
        if running.len() == AT_ONCE {
            succeeded += usize::from(running.join_next().await.unwrap().unwrap().is_ok());
        }
        running.spawn(call(n));
    }
    while let Some(ended) = running.join_next().await {
        succeeded += usize::from(ended.unwrap().is_ok());
    }
    succeeded
}

async fn posts(closes: Closes) {
    within(Duration::from_secs(30), async {
        let one_by_one = Rig::new(closes).await;
        for id in 0..CALLS {
            let _ = one_by_one.post(id).await;
        }
        let at_once = Rig::new(closes).await;
        concurrently(|id| at_once.post(id)).await;
        for rig in [one_by_one, at_once] {
            rig.assert_no_post_was_executed_twice();
            rig.assert_nothing_was_sent_unseen(closes);
            assert!(rig.executed().len() >= CALLS / 3, "most of them did arrive");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_post_is_executed_twice_when_each_close_is_announced() {
    posts(Closes::Announced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_post_is_executed_twice_when_connections_close_without_a_word() {
    posts(Closes::Unannounced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_post_is_executed_twice_when_the_server_takes_it_along_to_its_grave() {
    posts(Closes::WithTheNextRequestInHand).await;
}

/// 99.9 % of 600 is every one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_get_succeeds_when_connections_close_without_a_word() {
    within(Duration::from_secs(30), async {
        for closes in [Closes::Announced, Closes::Unannounced] {
            let one_by_one = Rig::new(closes).await;
            for n in 0..CALLS {
                one_by_one.get().await.unwrap_or_else(|error| panic!("{closes:?}, call {n}: {error:?}"));
            }
            let at_once = Rig::new(closes).await;
            assert_eq!(concurrently(|_| at_once.get()).await, CALLS, "{closes:?}");
            one_by_one.assert_nothing_was_sent_unseen(closes);
            at_once.assert_nothing_was_sent_unseen(closes);
        }
    })
    .await;
}

/// One after another only: fifty at once leave the pool full of connections that drop the next
/// request, and any number of attempts in a row can meet such a one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_get_succeeds_when_every_second_request_is_swallowed() {
    within(Duration::from_secs(30), async {
        let closes = Closes::WithTheNextRequestInHand;
        let rig = Rig::new(closes).await;
        for n in 0..CALLS {
            rig.get().await.unwrap_or_else(|error| panic!("call {n}: {error:?}"));
        }
        rig.assert_nothing_was_sent_unseen(closes);
        assert!(rig.heard.attempts() > CALLS, "some were swallowed");
    })
    .await;
}
