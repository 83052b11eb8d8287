//! Connections: made within the connect timeout, and retired when they have lost their voice.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Authority;
use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector, HttpInfo};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, ReadBuf};
use tower_service::Service;

use super::frames::{Frames, Opened};
use crate::error::BoxError;
use crate::hyper::link::{Life, Link, Sends};
use crate::outcome::classify::connecting;

#[cfg(feature = "hyper-rustls")]
type Inner = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "hyper-rustls"))]
type Inner = HttpConnector;

/// Makes connections. One pointer, because the pool copies it for each request.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Making>);

struct Making {
    inner: Inner,
    options: Options,
    sends: Sends,
    /// Where to, whatever the request says.
    to: Option<Uri>,
    /// Hosts with a timeout of their own.
    timeouts: HashMap<crate::authority::Authority<'static>, Option<Duration>>,
}

/// How connections are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// For name lookup, TCP and TLS together.
    pub(crate) timeout: Option<Duration>,
    /// Whether every response knows its connection. Those of HTTP/2 do in any case.
    pub(crate) tell: bool,
    /// Whether HTTP/2 is spoken without asking.
    pub(crate) http2_only: bool,
}

/// Shares the connect timeout out among the addresses of a name, evenly, so that one which swallows
/// what is sent to it doesn't use up the time of all. The whole, with name lookup and TLS, is
/// bounded by [`Connector`].
pub(crate) fn share_out<R>(sockets: &mut HttpConnector<R>, timeout: Option<Duration>) {
    sockets.set_connect_timeout(timeout);
}

impl Connector {
    #[cfg(not(feature = "hyper-rustls"))]
    pub(crate) fn plain(inner: HttpConnector, options: Options) -> Self {
        Self::making(inner, options)
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
        Ok(Self::making(builder.wrap_connector(sockets), options))
    }

    fn making(inner: Inner, options: Options) -> Self {
        Self(Arc::new(Making { inner, options, sends: Sends::default(), to: None, timeouts: HashMap::new() }))
    }

    /// The same, with every connection going to this origin.
    pub(super) fn towards(&self, to: Uri) -> Self {
        let Making { inner, options, sends, timeouts, .. } = &*self.0;
        Self(Arc::new(Making {
            inner: inner.clone(),
            options: *options,
            sends: sends.clone(),
            to: Some(to),
            timeouts: timeouts.clone(),
        }))
    }

    /// The same, with as much time for every connection as this host's have.
    pub(super) fn timed_as(&self, host: &crate::authority::Authority<'_>) -> Self {
        let Making { inner, options, sends, timeouts, .. } = &*self.0;
        let timeout = timeouts.get(host).copied().unwrap_or(options.timeout);
        Self(Arc::new(Making {
            inner: inner.clone(),
            options: Options { timeout, ..*options },
            sends: sends.clone(),
            to: None,
            timeouts: HashMap::new(),
        }))
    }

    /// Whether a host has a timeout of its own.
    pub(super) fn has_own_timeout(&self, host: &crate::authority::Authority<'_>) -> bool {
        self.0.timeouts.contains_key(host)
    }

    pub(super) fn sends(&self) -> &Sends {
        &self.0.sends
    }

    /// With other timeouts for some hosts. For a connector that nobody has copied yet.
    pub(crate) fn with_timeouts(
        mut self,
        hosts: impl IntoIterator<Item = (crate::authority::Authority<'static>, Option<Duration>)>,
    ) -> Self {
        if let Some(making) = Arc::get_mut(&mut self.0) {
            making.timeouts.extend(hosts);
        }
        self
    }
}

impl Making {
    /// For a connection on behalf of `to`, wherever it goes.
    fn timeout(&self, to: &Uri) -> Option<Duration> {
        if self.timeouts.is_empty() {
            return self.options.timeout;
        }
        let own = crate::authority::Authority::read(to)
            .and_then(crate::authority::Authority::normal)
            .ok()
            .and_then(|to| self.timeouts.get(&to).copied());
        own.unwrap_or(self.options.timeout)
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
        let Making { inner, options, sends, to: fixed, .. } = &*self.0;
        let to = fixed.clone().unwrap_or(to);
        sends.connections().begins();
        let (mut inner, options, sends) = (inner.clone(), *options, sends.clone());
        Box::pin(async move {
            let host = to.authority().cloned();
            let counters = Arc::clone(sends.connections());
            let connecting = async {
                std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
                let origin = origin(&to);
                Ok::<_, BoxError>(Linked::new(inner.call(to).await?, options, sends, origin))
            };
            let made = match timeout {
                None => Ok(connecting.await),
                Some(within) => tokio::time::timeout(within, connecting).await.map_err(|_| within),
            };
            let (error, timed_out) = match (made, timeout) {
                (Ok(Ok(connection)), _) => return Ok(connection),
                // The last of a name's addresses may use up its share just before.
                (Ok(Err(error)), Some(within)) if connecting::timed_out(&*error) => {
                    (not_in_time(host, within), true)
                }
                (Ok(Err(error)), _) => (error, false),
                (Err(within), _) => (not_in_time(host, within), true),
            };
            counters.failed(timed_out);
            Err(error)
        })
    }
}

/// As URLs have it, which is how upstreams and endpoints are known.
fn origin(to: &Uri) -> Arc<str> {
    let authority = crate::authority::Authority::read(to).and_then(crate::authority::Authority::normal);
    authority.map_or_else(|_| "".into(), |authority| authority.to_string().into())
}

/// The connect timeout has passed.
#[derive(Debug)]
struct NotInTime {
    /// Without credentials, which the client refuses.
    host: Option<Authority>,
    within: Duration,
}

impl fmt::Display for NotInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_ref().map_or("", Authority::as_str);
        write!(f, "no connection to {host} within {:?}", self.within)
    }
}

impl std::error::Error for NotInTime {}

fn not_in_time(host: Option<Authority>, within: Duration) -> BoxError {
    io::Error::new(io::ErrorKind::TimedOut, NotInTime { host, within }).into()
}

pin_project! {
    /// A connection with its link.
    #[derive(Debug)]
    pub(crate) struct Linked<T> {
        #[pin]
        io: T,
        link: Link,
        life: Life,
        tell: bool,
        written: Frames,
        read: Frames,
    }
}

impl<T: Connection> Linked<T> {
    fn new(io: T, options: Options, sends: Sends, to: Arc<str>) -> Self {
        let mut extras = Extensions::new();
        io.connected().get_extras(&mut extras);
        let shared = options.http2_only || io.connected().is_negotiated_h2();
        let link = Link::new(extras.get().map(HttpInfo::remote_addr), shared, sends);
        let (life, tell) = (Life::of(&link, to), options.tell || shared);
        Self { io, link, life, tell, written: Frames::written(), read: Frames::read() }
    }
}

impl<T: Connection> Connection for Linked<T> {
    fn connected(&self) -> Connected {
        // Anew, because the first extra costs every response three allocations, and each further
        // one another.
        let inner = self.io.connected();
        let connected = Connected::new().proxy(inner.is_proxied());
        let connected = if self.tell { connected.extra(self.link.clone()) } else { connected };
        if inner.is_negotiated_h2() { connected.negotiated_h2() } else { connected }
    }
}

/// Looks at what is read in passing. hyper's buffer shows nobody what was put into it; tokio's
/// does.
struct Tap<'a, T> {
    io: TokioIo<Pin<&'a mut T>>,
    opened: &'a Opened,
    read: &'a mut Frames,
}

impl<T: Read> AsyncRead for Tap<'_, T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, opened, read } = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(io).poll_read(cx, buffer);
        opened.read(read, buffer.filled().get(before..).unwrap_or_default());
        polled
    }
}

impl<T: Read> Read for Linked<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.link.0.opened.is_some() {
            self.poll_tapped(cx, buffer)
        } else {
            self.project().io.poll_read(cx, buffer)
        }
    }
}

impl<T: Read> Linked<T> {
    /// Reads what streams share. Apart, because every other connection is read through here as
    /// well, several times a call.
    #[inline(never)]
    fn poll_tapped(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let Some(opened) = &this.link.0.opened else { return this.io.poll_read(cx, buffer) };
        let mut tap = TokioIo::new(Tap { io: TokioIo::new(this.io), opened, read: this.read });
        let polled = Pin::new(&mut tap).poll_read(cx, buffer);
        if polled.is_ready() {
            this.link.hears();
        }
        polled
    }
}

impl<T: Write> Write for Linked<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let polled = this.io.poll_write(cx, bytes);
        match (&this.link.0.opened, &polled) {
            (Some(opened), Poll::Ready(Ok(written))) => {
                opened.written(this.written, bytes.get(..*written).unwrap_or(bytes));
            }
            (None, Poll::Ready(Ok(_))) => this.link.writes(),
            _ => {}
        }
        polled
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
        let this = self.project();
        let polled = this.io.poll_write_vectored(cx, buffers);
        if let (Some(opened), Poll::Ready(Ok(written))) = (&this.link.0.opened, &polled) {
            let mut left = *written;
            for buffer in buffers {
                let bytes = buffer.get(..left).unwrap_or(buffer);
                left -= bytes.len();
                opened.written(this.written, bytes);
            }
        } else if polled.is_ready() {
            this.link.writes();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper_util::client::legacy::connect::dns::Name;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tower::service_fn;

    use super::*;
    use std::net::SocketAddr;

    fn link() -> (Link, Sends) {
        let sends = Sends::default();
        (Link::new(None, true, sends.clone()), sends)
    }

    #[test]
    fn two_timeouts_in_a_row_are_one_too_many_and_an_answer_begins_anew() {
        let (link, sends) = link();
        let sent = sends.next();
        link.hears();
        assert!(!link.timed_out(sent));
        link.answered();
        assert!(!link.timed_out(sent));
        assert!(link.timed_out(sent));
    }

    #[test]
    fn one_timeout_is_too_many_on_a_connection_that_has_been_mute_all_the_while() {
        let (link, sends) = link();
        let first = sends.next();
        link.hears();
        let second = sends.next();
        assert!(link.has_been_heard_since(first) && !link.has_been_heard_since(second));
        assert!(link.timed_out(second));
    }

    /// The first address of the name has a full queue of connections, and nobody accepts.
    #[tokio::test]
    async fn an_address_that_swallows_everything_leaves_time_for_the_next() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let first = full.local_addr().unwrap();
        let mut queued = Vec::new();
        let brief = Duration::from_millis(200);
        while let Ok(connected) = tokio::time::timeout(brief, TcpStream::connect(first)).await {
            queued.push(connected.unwrap());
            assert!(queued.len() < 100, "the queue never fills");
        }
        let second = SocketAddr::from(([127, 0, 0, 2], first.port()));
        let _listening = TcpListener::bind(second).await.unwrap();
        let resolver = service_fn(move |_: Name| {
            std::future::ready(Ok::<_, Infallible>(vec![first, second].into_iter()))
        });
        let mut sockets = HttpConnector::new_with_resolver(resolver);
        let timeout = Duration::from_secs(1);
        share_out(&mut sockets, Some(timeout));
        let to = format!("http://users:{}/", first.port()).parse().unwrap();
        let connected = tokio::time::timeout(timeout, sockets.call(to)).await;
        assert_eq!(connected.unwrap().unwrap().inner().peer_addr().unwrap(), second);
    }
}
