//! The pool, and an attempt on one of its connections.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::Scheme;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use pin_project_lite::pin_project;

use super::connect::{Connector, Link};
use crate::hyper::Body;

/// A pool of connections.
pub(crate) struct Wire {
    pool: legacy::Client<Connector, Body>,
    http2_only: bool,
}

impl Wire {
    pub(crate) fn new(pool: legacy::Client<Connector, Body>, http2_only: bool) -> Self {
        Self { pool, http2_only }
    }

    /// Whether the request goes over HTTP/1.1 for sure, and says in `Host` whom it is for. The pool would set that itself,
    /// at ten times the cost.
    pub(super) fn is_plain(&self, request: &Request<Body>) -> bool {
        !self.http2_only && request.uri().scheme() == Some(&Scheme::HTTP)
    }

    /// Sends an attempt off.
    #[inline]
    pub(super) fn send(&self, mut request: Request<Body>) -> Sending {
        // To know an attempt's connection costs six allocations. Over HTTP/1.1 nobody needs to know: hyper closes the
        // connection of an attempt that is cancelled.
        let shared = self.http2_only || cfg!(feature = "http2") && !self.is_plain(&request);
        let connection = shared.then(|| capture_connection(&mut request));
        Sending { response: self.pool.request(request), connection }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("http2_only", &self.http2_only).finish_non_exhaustive()
    }
}

pin_project! {
    /// One attempt on the wire. Dropping it takes it off.
    #[derive(Debug)]
    pub(crate) struct Sending {
        #[pin]
        response: legacy::ResponseFuture,
        // Where it may share its connection with others.
        connection: Option<CaptureConnection>,
    }
}

impl Sending {
    /// Its time is up: that speaks against the connection, and twice in a row is enough to send nothing on it any more.
    pub(super) fn expired(self: Pin<&mut Self>) {
        let Some(connection) = self.project().connection else { return };
        if let Some(connected) = &*connection.connection_metadata() {
            let mut extras = Extensions::new();
            connected.get_extras(&mut extras);
            if extras.get::<Link>().is_some_and(Link::timed_out) {
                connected.poison();
            }
        }
    }
}

impl Future for Sending {
    type Output = Result<Response<Incoming>, legacy::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.response.poll(cx);
        if this.connection.is_some()
            && let Poll::Ready(Ok(response)) = &polled
            && let Some(link) = response.extensions().get::<Link>()
        {
            link.answered();
        }
        polled
    }
}
