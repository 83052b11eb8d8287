//! The pool, and an attempt on one of its connections.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::uri::Scheme;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, capture_connection};
use pin_project_lite::pin_project;

use super::connector::Connector;
use super::link::{Link, Sends};
use super::ticket::Ticket;
use crate::authority::Authority;
use crate::call::exchange::{Expired, Overdue, Reached, Target};
use crate::error::BoxError;
use crate::faulted::{Asked, Faulted, Injector};
use crate::hyper::Body;
use crate::outcome::FailureCause;
use crate::outcome::classify::evidence::{Evidence, Sent};
use crate::redirects::Redirects;
use crate::time::Tick;
use crate::upstream::endpoints::Endpoint;

/// A pool of connections.
pub(crate) struct Wire {
    pool: Pool,
    /// One that keeps nothing: each request has a connection of its own.
    fresh: Pool,
    http2_only: bool,
    sends: Sends,
    faults: Injector,
    /// Which redirects are followed, if any.
    redirects: Option<Redirects>,
    /// What pools of endpoints are made from.
    parts: Box<(legacy::Builder, Connector)>,
}

type Pool = legacy::Client<Connector, Body>;

/// An attempt on the wire, or one that suffers a fault on purpose.
pub(crate) type Attempt = Faulted<Sending, Response<Incoming>>;

/// The pool that an attempt goes over. An endpoint's own lives as long as the endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over<'a> {
    /// The one for all that goes where its URL says.
    Shared,
    /// The one that keeps nothing, after an attempt of the same call on a connection that was dead,
    /// or may be.
    Fresh,
    /// One that goes to this endpoint whatever the URL says.
    Named(&'a Endpoint),
    /// One whose connections have as much time to be made as those of this host, for which the
    /// endpoint stands: the connector sees only the endpoint's address.
    Timed(&'a Endpoint, &'a Authority<'static>),
}

impl Wire {
    pub(crate) fn new(
        pool: &legacy::Builder,
        connector: Connector,
        http2_only: bool,
        faults: Injector,
    ) -> Self {
        let sends = connector.sends().clone();
        let shared = pool.build(connector.clone());
        let fresh = pool.clone().pool_max_idle_per_host(0).build(connector.clone());
        let parts = Box::new((pool.clone(), connector));
        Self { pool: shared, fresh, http2_only, sends, faults, redirects: None, parts }
    }

    pub(crate) fn redirecting(mut self, redirects: Option<Redirects>) -> Self {
        self.redirects = redirects;
        self
    }

    pub(super) fn redirects(&self) -> Option<&Redirects> {
        self.redirects.as_ref()
    }

    /// Whether a request to this endpoint names its host and goes over a pool of the endpoint's
    /// own: over HTTP/2, where the host is the URL's (`:authority`, which no `Host` may differ
    /// from: RFC 9113 section 8.3.1), and a pool goes where the URL says.
    pub(super) fn names_host(&self, target: &Target) -> bool {
        self.http2_only && target.host.is_some()
    }

    /// How an attempt goes to an endpoint of `host` that its URL names.
    pub(super) fn over<'a>(&self, endpoint: &'a Endpoint, host: &'a Authority<'static>) -> Over<'a> {
        if self.parts.1.has_own_timeout(host) { Over::Timed(endpoint, host) } else { Over::Shared }
    }

    fn pool<'a>(&'a self, over: Over<'a>) -> &'a Pool {
        let (pool, connector) = &*self.parts;
        let own = match over {
            Over::Shared => None,
            Over::Fresh => Some(&self.fresh),
            Over::Named(endpoint) => {
                let to = endpoint.origin().as_str().parse().ok();
                to.and_then(|to| endpoint.keeps(|| pool.build::<_, Body>(connector.towards(to))))
            }
            Over::Timed(endpoint, host) => endpoint.keeps(|| pool.build::<_, Body>(connector.timed_as(host))),
        };
        own.unwrap_or(&self.pool)
    }

    /// Whether the request goes over HTTP/1.1 for sure, and says in `Host` whom it is for. The pool
    /// would set that itself, at ten times the cost.
    pub(super) fn is_plain(&self, request: &Request<Body>) -> bool {
        !self.http2_only && request.uri().scheme() == Some(&Scheme::HTTP)
    }

    /// What is known of an attempt that has just failed.
    pub(super) fn evidence(&self, fault: &Fault) -> Evidence {
        // Nobody is told of a connection that isn't shared, but whether any was begun since is
        // known.
        let pooled = fault.evidence.connection.is_none() && self.sends.connects() == fault.connects;
        Evidence { pooled, ..fault.evidence }
    }

    /// What is to be known of a request that isn't [plain](Self::is_plain), and may share its
    /// connection with others.
    ///
    /// To know an attempt's connection costs nine allocations. Over HTTP/1.1 nobody needs to know:
    /// hyper closes the connection of an attempt that is cancelled.
    pub(super) fn share(&self, request: &mut Request<Body>) -> Option<Box<Shared>> {
        let shared = self.http2_only || cfg!(feature = "http2");
        shared.then(|| Box::new(Shared::new(request, self.sends.next())))
    }

    /// Sends an attempt off.
    #[inline]
    pub(super) fn send(
        &self,
        request: Request<Body>,
        shared: Option<Box<Shared>>,
        over: Over<'_>,
    ) -> Attempt {
        let drawn = self.faults.draw(|| Asked {
            method: request.method(),
            path: request.uri().path(),
            host: request.uri().host(),
            port: request.uri().port_u16(),
            query: request.uri().query(),
            headers: request.headers(),
            body: request.body().as_bytes(),
        });
        let (pool, connects) = (self.pool(over), self.sends.connects());
        drawn.onto(Sending { response: pool.request(request), shared, connects }, || ())
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("http2_only", &self.http2_only).finish_non_exhaustive()
    }
}

/// An attempt that may share its connection with others.
#[derive(Debug)]
pub(super) struct Shared {
    connection: CaptureConnection,
    ticket: Ticket,
    /// It has content for sure. What a `GOAWAY` ended before any of that was sent can't have been
    /// processed.
    content: bool,
    /// Its number among all that set out, anew each time that it is given more time.
    sent: AtomicU64,
}

impl Shared {
    fn new(request: &mut Request<Body>, sent: u64) -> Self {
        let (connection, ticket) = (capture_connection(request), Ticket::default());
        request.extensions_mut().insert(ticket.slip());
        let content = request.body().as_bytes().is_some_and(|bytes| !bytes.is_empty());
        Self { connection, ticket, content, sent: AtomicU64::new(sent) }
    }

    /// The connection it is on, if that is known and shared; it may `poison` it.
    fn link(&self, poison: impl FnOnce(&Link) -> bool) -> Option<(Link, u64)> {
        let connection = self.connection.connection_metadata();
        let connected = connection.as_ref()?;
        let link = link(connected)?;
        let id = link.shared()?;
        if poison(&link) {
            connected.poison();
        }
        Some((link, id))
    }
}

fn link(connected: &Connected) -> Option<Link> {
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    extras.remove()
}

pin_project! {
    /// One attempt on the wire. Dropping it takes it off.
    #[derive(Debug)]
    pub(crate) struct Sending {
        #[pin]
        response: legacy::ResponseFuture,
        shared: Option<Box<Shared>>,
        // How many connections had been begun when it set out.
        connects: u64,
    }
}

impl Sending {
    /// Its time is up: that speaks against the connection, and twice in a row, or once if nothing
    /// has come on it since, is enough to send nothing on it any more. Where others are answered
    /// meanwhile the connection is well, and the failure is this attempt's own: a server that hangs
    /// on some requests mustn't hide behind a connection that it keeps.
    pub(super) fn expired(self: Pin<&mut Self>, overdue: Overdue<'_>, counts: bool) -> Expired {
        let Some(shared) = self.project().shared else { return Expired::default() };
        let Overdue { since, now, .. } = overdue;
        let half = now.nanos_since(since) / 2;
        let sent = shared.sent.load(Ordering::Relaxed);
        let ill = |link: &Link| !link.has_answered_within(half, now);
        let Some((link, id)) = shared.link(|link| counts && ill(link) && link.timed_out(sent)) else {
            return Expired::default();
        };
        let stream = shared.ticket.stream();
        let reached = if link.excludes(shared.ticket.number()) {
            Reached::Excluded
        } else if link.waited(stream, Tick::ZERO).is_none() {
            Reached::Line
        } else {
            Reached::Server
        };
        let cause = if ill(&link) { FailureCause::Connection(id) } else { FailureCause::Own };
        Expired { cause, reached }
    }

    /// Since when the server can have had it: not while it waits until that allows one more stream,
    /// on a connection that is alive.
    pub(super) fn begun(&self, set_out: Tick, now: Tick) -> Tick {
        let link = self.shared.as_ref().and_then(|shared| Some((shared, shared.link(|_| false)?.0)));
        let Some((shared, link)) = link else { return set_out };
        let stream = shared.ticket.stream();
        match link.waited(stream, set_out) {
            _ if link.excludes(shared.ticket.number()) => set_out,
            Some(waited) => set_out.after_nanos(waited),
            // Once more only if more comes.
            None if link.has_been_heard_since(shared.sent.load(Ordering::Relaxed)) => {
                shared.sent.store(link.sets_out_again(), Ordering::Relaxed);
                now
            }
            None => set_out,
        }
    }
}

/// An error, with what is known of it here.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(super) error: BoxError,
    evidence: Evidence,
    connects: u64,
}

impl From<Fault> for BoxError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

#[cfg(feature = "fault")]
impl From<crate::faulted::Broke> for Fault {
    /// As on a connection that was made for it.
    fn from(broke: crate::faulted::Broke) -> Self {
        Self { error: broke.0, evidence: Evidence::DIRECT, connects: u64::MAX }
    }
}

impl Fault {
    /// hyper follows no redirects, so whatever it says, it says of the attempt's own request.
    #[cold]
    fn new(error: legacy::Error, shared: Option<&Shared>, connects: u64) -> Self {
        let link = error.connect_info().and_then(link);
        let own = shared.is_some_and(|shared| {
            // Or its number shows what the `GOAWAY` has to say of it.
            let excluded = || link.as_ref().is_some_and(|link| link.excludes(shared.ticket.number()));
            shared.content || shared.ticket.stream().is_some() || excluded()
        });
        let (connection, reused) = link.map_or((None, false), |link| (link.shared(), link.was_used()));
        let sent = if own { Sent::OwnStream } else { Sent::Direct };
        let evidence = Evidence { sent, connection, reused, pooled: false };
        Self { error: error.into(), evidence, connects }
    }
}

impl Future for Sending {
    type Output = Result<Response<Incoming>, Fault>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match ready!(this.response.poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                return Poll::Ready(Err(Fault::new(error, this.shared.as_deref(), *this.connects)));
            }
        };
        if this.shared.is_some()
            && let Some(link) = response.extensions().get::<Link>()
        {
            link.answered();
        }
        Poll::Ready(Ok(response))
    }
}
