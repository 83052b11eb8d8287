//! Many callers at once, over the clients that are compared: reqwest as it comes, and ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use resilient_client::event::Event;
use resilient_client::hyper::Client as OverHyper;
use resilient_client::{Client, ErrorKind, Policy};
use tokio::task::JoinSet;

use crate::h2_peer::ID;
use crate::tls::Tls;
use crate::{Heard, SOON, within};

/// A client among those compared.
#[derive(Clone, Debug)]
pub enum Any {
    /// reqwest, as it comes.
    Bare(reqwest::Client),
    /// Ours over reqwest.
    Reqwest(Client, Heard),
    /// Ours over hyper.
    Hyper(OverHyper, Heard),
}

/// What became of many calls.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answered with 200.
    pub served: usize,
    /// Everything else, by what it says.
    pub failed: Vec<String>,
    /// Of those, the requests that the client says were never processed.
    pub unsent: Vec<usize>,
    /// Of those of ours, how many were on a connection when it broke, so that the server may have
    /// read them.
    pub in_doubt: usize,
    /// Of those of ours, how many used up an attempt's time or all of the call's.
    pub stuck: usize,
}

/// A failed call.
#[derive(Debug)]
pub struct Failed {
    /// What it says.
    pub says: String,
    /// Whether the client says that the request was never processed.
    pub unsent: bool,
    /// Whether a client of ours says that its connection broke when the server may have read it.
    pub in_doubt: bool,
    /// Whether a client of ours says that it used up its time.
    pub stuck: bool,
}

impl Any {
    /// All three, over HTTP/2 from the start if so wished, under this policy.
    pub fn all(http2: bool, policy: &Policy) -> [Self; 3] {
        let bare = reqwest::Client::builder().no_proxy();
        let bare = if http2 { bare.http2_prior_knowledge() } else { bare };
        [
            Self::Bare(bare.build().expect("a client")),
            Self::reqwest(http2, policy),
            Self::hyper(http2, policy),
        ]
    }

    /// All three, over HTTP/2 from the start and TLS, under the standard policy.
    pub fn over_tls(tls: &Tls) -> [Self; 3] {
        let adjust = |transport: reqwest::ClientBuilder| {
            transport.no_proxy().http2_prior_knowledge().tls_danger_accept_invalid_certs(true)
        };
        let (one, other) = (Heard::new(), Heard::new());
        let reqwest = Client::builder().observer(one.clone()).transport(adjust);
        let hyper = OverHyper::builder().observer(other.clone());
        let hyper = hyper.http2_prior_knowledge().tls_config(tls.trusted());
        [
            Self::Bare(adjust(reqwest::Client::builder()).build().expect("a client")),
            Self::Reqwest(reqwest.build().expect("a client"), one),
            Self::Hyper(hyper.build().expect("a client"), other),
        ]
    }

    /// Ours over reqwest.
    pub fn reqwest(http2: bool, policy: &Policy) -> Self {
        let heard = Heard::new();
        let ours =
            Client::builder().policy(policy.clone()).observer(heard.clone()).transport(move |transport| {
                let transport = transport.no_proxy();
                if http2 { transport.http2_prior_knowledge() } else { transport }
            });
        Self::Reqwest(ours.build().expect("a client"), heard)
    }

    /// Ours over hyper.
    pub fn hyper(http2: bool, policy: &Policy) -> Self {
        let heard = Heard::new();
        let ours = OverHyper::builder().policy(policy.clone()).observer(heard.clone());
        let ours = if http2 { ours.http2_prior_knowledge() } else { ours };
        Self::Hyper(ours.build().expect("a client"), heard)
    }

    /// Whose it is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bare(_) => "bare",
            Self::Reqwest(..) => "reqwest",
            Self::Hyper(..) => "hyper",
        }
    }

    /// Whether it is the one that the others are compared with.
    pub fn is_bare(&self) -> bool {
        matches!(self, Self::Bare(_))
    }

    /// How often its breaker changed; reqwest has none.
    pub fn transitions(&self) -> usize {
        let (Self::Reqwest(_, heard) | Self::Hyper(_, heard)) = self else { return 0 };
        heard.count(|event| matches!(event, Event::BreakerTransition(_)))
    }

    /// How many failures its breaker has counted and not forgotten; reqwest has none.
    pub fn counted(&self) -> u32 {
        let snapshot = match self {
            Self::Bare(_) => return 0,
            Self::Reqwest(client, _) => client.snapshot(),
            Self::Hyper(client, _) => client.snapshot(),
        };
        snapshot.iter().map(|upstream| upstream.breaker.failures).sum()
    }

    /// One whole call: `Ok` when it was answered with 200.
    ///
    /// # Errors
    /// Anything else.
    pub async fn call(&self, method: Method, url: &str, id: usize, body: &'static str) -> Result<(), Failed> {
        let says = |error: &dyn std::error::Error, unsent, in_doubt, stuck| {
            let (mut says, mut link) = (error.to_string(), error.source());
            while let Some(this) = link {
                says = format!("{says}: {this}");
                link = this.source();
            }
            Failed { says, unsent, in_doubt, stuck }
        };
        let status = |status: u16| match status {
            200 => Ok(()),
            _ => Err(Failed { says: status.to_string(), unsent: false, in_doubt: false, stuck: false }),
        };
        let ours = |error: resilient_client::Error| {
            let unsent = error.is_unsent();
            let stuck = matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Deadline);
            says(&error, unsent, error.kind() == ErrorKind::Transport && !unsent, stuck)
        };
        let bare = |error: reqwest::Error| says(&error, false, false, false);
        match self {
            Self::Bare(client) => {
                let request = client.request(method, url).header(ID, id);
                let request = if body.is_empty() { request } else { request.body(body) };
                let whole = async {
                    let response = request.send().await.map_err(bare)?;
                    let head = response.status();
                    response.bytes().await.map_err(bare)?;
                    status(head.as_u16())
                };
                // It would wait for ever for a request that its connection neither sends nor
                // refuses.
                let waits = Failed { says: "no end".into(), unsent: false, in_doubt: false, stuck: true };
                tokio::time::timeout(SOON, whole).await.unwrap_or(Err(waits))
            }
            Self::Reqwest(client, _) => {
                let request = client.request(method, url).header(ID, id);
                let request = if body.is_empty() { request } else { request.body(body) };
                let response = request.send().await.map_err(ours)?;
                let head = response.status();
                response.bytes().await.map_err(ours)?;
                status(head.as_u16())
            }
            Self::Hyper(client, _) => {
                let request = client.request(method, url).header(ID, &*id.to_string());
                let request = if body.is_empty() { request } else { request.body(body) };
                let response = request.send().await.map_err(ours)?;
                let head = response.status();
                response.bytes().await.map_err(ours)?;
                status(head.as_u16())
            }
        }
    }
}

/// What the callers do.
#[derive(Clone, Debug)]
pub struct Work {
    /// With what.
    pub method: Method,
    /// With this body, or none.
    pub body: &'static str,
    /// So many at once,
    pub callers: usize,
    /// each so often,
    pub each: usize,
    /// with such a pause after each call.
    pub pause: Duration,
}

impl Work {
    /// Bodyless calls, one straight after the other.
    pub fn of(method: Method, callers: usize, each: usize) -> Self {
        Self { method, body: "", callers, each, pause: Duration::ZERO }
    }

    /// The same with a body.
    #[must_use]
    pub fn body(self, body: &'static str) -> Self {
        Self { body, ..self }
    }

    /// The same with pauses.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// How many calls that is.
    pub fn calls(&self) -> usize {
        self.callers * self.each
    }

    /// Does it.
    pub async fn over(&self, client: &Any, url: &str) -> Tally {
        let (mut crowd, ids) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..self.callers {
            let (client, url, work, ids) = (client.clone(), url.to_owned(), self.clone(), Arc::clone(&ids));
            crowd.spawn(async move {
                let mut tally = Tally::default();
                for _ in 0..work.each {
                    let id = ids.fetch_add(1, Ordering::Relaxed);
                    match client.call(work.method.clone(), &url, id, work.body).await {
                        Ok(()) => tally.served += 1,
                        Err(failed) => {
                            tally.failed.push(failed.says);
                            tally.in_doubt += usize::from(failed.in_doubt);
                            tally.stuck += usize::from(failed.stuck);
                            if failed.unsent {
                                tally.unsent.push(id);
                            }
                        }
                    }
                    if !work.pause.is_zero() {
                        tokio::time::sleep(work.pause).await;
                    }
                }
                tally
            });
        }
        let mut all = Tally::default();
        while let Some(tally) = within(6 * SOON, crowd.join_next()).await {
            all.add(tally.expect("a caller doesn't panic"));
        }
        all
    }
}

impl Tally {
    /// What became of these, too.
    pub fn add(&mut self, more: Self) {
        self.served += more.served;
        self.failed.extend(more.failed);
        self.unsent.extend(more.unsent);
        self.in_doubt += more.in_doubt;
        self.stuck += more.stuck;
    }

    /// Of the failed calls, those that `client` can't help. Over HTTP/2 a connection that goes away
    /// now and then neither sends a request nor refuses it: bare reqwest and hyper wait for ever.
    /// Ours ends it with its time. Over hyper it then knows that the server excluded the request,
    /// and sends it again; over reqwest nothing proves that, and what isn't safe to repeat is lost.
    pub fn beyond_help(&self, client: &Any) -> usize {
        if matches!(client, Any::Reqwest(..)) { self.stuck } else { 0 }
    }

    /// Each thing that failed calls say, with how often.
    pub fn said(&self) -> String {
        let mut said = std::collections::BTreeMap::<&str, usize>::new();
        for failed in &self.failed {
            // Without the time that differs each time.
            let failed = failed.split(": next probe").next().unwrap_or(failed);
            *said.entry(failed).or_default() += 1;
        }
        format!("{} served; {said:?}", self.served)
    }
}
