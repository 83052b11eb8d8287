//! Connections: made within the connect timeout, and retired when they have lost their voice.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector, HttpInfo};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::error::BoxError;
use crate::upstream::registry::Authority;

#[cfg(feature = "hyper-rustls")]
type Inner = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "hyper-rustls"))]
type Inner = HttpConnector;

/// After so many attempt timeouts in a row nothing is sent on a connection any more.
const TIMEOUTS: u32 = 2;

/// Makes connections. One pointer, because the pool copies it for each request.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Making>);

struct Making {
    inner: Inner,
    options: Options,
    /// Hosts with a timeout of their own.
    timeouts: HashMap<Authority<'static>, Option<Duration>>,
}

/// How connections are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// For name lookup, TCP and TLS together.
    pub(crate) timeout: Option<Duration>,
    /// Whether every response is told of its connection. Those of HTTP/2 are without asking.
    pub(crate) tell: bool,
}

impl Connector {
    #[cfg(not(feature = "hyper-rustls"))]
    pub(crate) fn plain(inner: HttpConnector, options: Options) -> Self {
        Self(Arc::new(Making { inner, options, timeouts: HashMap::new() }))
    }

    /// With TLS for `https`; by what the platform trusts, unless there is a `config`.
    #[cfg(feature = "hyper-rustls")]
    pub(crate) fn secure(
        mut sockets: HttpConnector,
        config: Option<rustls::ClientConfig>,
        options: Options,
    ) -> Result<Self, crate::Error> {
        use hyper_rustls::HttpsConnectorBuilder;
        use rustls::crypto::{CryptoProvider, aws_lc_rs};

        sockets.enforce_http(false);
        let builder = HttpsConnectorBuilder::new();
        let builder = if let Some(mut config) = config {
            // The builder says which protocols there are, and would panic.
            config.alpn_protocols.clear();
            builder.with_tls_config(config)
        } else {
            let provider = CryptoProvider::get_default().cloned();
            let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
            let built = builder.with_provider_and_platform_verifier(provider);
            built.map_err(|error| crate::Error::new(crate::ErrorKind::Config).because(error))?
        };
        let builder = builder.https_or_http().enable_http1();
        #[cfg(feature = "http2")]
        let builder = builder.enable_http2();
        Ok(Self(Arc::new(Making {
            inner: builder.wrap_connector(sockets),
            options,
            timeouts: HashMap::new(),
        })))
    }
}

impl Connector {
    /// With other timeouts for some hosts. For a connector that nobody has copied yet.
    pub(crate) fn with_timeouts(
        mut self,
        hosts: impl IntoIterator<Item = (Authority<'static>, Option<Duration>)>,
    ) -> Self {
        if let Some(making) = Arc::get_mut(&mut self.0) {
            making.timeouts.extend(hosts);
        }
        self
    }
}

impl Making {
    fn timeout(&self, to: &Uri) -> Option<Duration> {
        if self.timeouts.is_empty() {
            return self.options.timeout;
        }
        self.timeouts.get(&Authority::of_uri(to)).copied().unwrap_or(self.options.timeout)
    }
}

impl Service<Uri> for Connector {
    type Response = Linked<<Inner as Service<Uri>>::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let timeout = self.0.timeout(&to);
        let Making { inner, options, .. } = &*self.0;
        let (mut inner, options) = (inner.clone(), *options);
        Box::pin(async move {
            let connecting = async {
                std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
                Ok(Linked::new(inner.call(to).await?, options.tell))
            };
            match timeout {
                Some(timeout) => tokio::time::timeout(timeout, connecting).await?,
                None => connecting.await,
            }
        })
    }
}

/// What is known of one connection. It travels with the responses on it.
#[derive(Clone)]
pub(crate) struct Link(Arc<State>);

struct State {
    remote_addr: Option<SocketAddr>,
    /// Attempts that timed out since the last answer.
    timeouts: AtomicU32,
}

impl Link {
    fn new(remote_addr: Option<SocketAddr>) -> Self {
        Self(Arc::new(State { remote_addr, timeouts: AtomicU32::new(0) }))
    }

    pub(crate) fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.remote_addr
    }

    /// An answer came: it is alive.
    pub(super) fn answered(&self) {
        // Read first: attempts in parallel share this, and it is nearly always 0.
        if self.0.timeouts.load(Ordering::Relaxed) != 0 {
            self.0.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// An attempt timed out. True when that was one too many.
    pub(super) fn timed_out(&self) -> bool {
        self.0.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("remote_addr", &self.0.remote_addr).finish_non_exhaustive()
    }
}

pin_project! {
    /// A connection with its link.
    #[derive(Debug)]
    pub(crate) struct Linked<T> {
        #[pin]
        io: T,
        link: Link,
        tell: bool,
    }
}

impl<T: Connection> Linked<T> {
    fn new(io: T, tell: bool) -> Self {
        let mut extras = Extensions::new();
        io.connected().get_extras(&mut extras);
        let link = Link::new(extras.get().map(HttpInfo::remote_addr));
        let tell = tell || io.connected().is_negotiated_h2();
        Self { io, link, tell }
    }
}

impl<T: Connection> Connection for Linked<T> {
    fn connected(&self) -> Connected {
        // Anew, because the first extra costs every response three allocations, and each further one another.
        let inner = self.io.connected();
        let connected = Connected::new().proxy(inner.is_proxied());
        let connected = if self.tell { connected.extra(self.link.clone()) } else { connected };
        if inner.is_negotiated_h2() { connected.negotiated_h2() } else { connected }
    }
}

impl<T: Read> Read for Linked<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().io.poll_read(cx, buffer)
    }
}

impl<T: Write> Write for Linked<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write_vectored(cx, buffers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_timeouts_in_a_row_are_one_too_many_and_an_answer_begins_anew() {
        let link = Link::new(None);
        assert!(!link.timed_out());
        link.answered();
        assert!(!link.timed_out());
        assert!(link.timed_out());
    }
}
