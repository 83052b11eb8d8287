//! Who may change faults: pure, from the head of a request and who sent it.
//!
//! | asked in this order | refused with |
//! |---|---|
//! | the peer is known and on this host | 403 |
//! | `Host` names this host: a page can make its own name point here, but not this one | 403 |
//! | `Origin` and `Sec-Fetch-Site`, which browsers send, say the same origin | 403 |
//! | `Authorization` bears the token | 401 |

use std::fmt;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::{Extensions, HeaderMap, StatusCode};

use super::Refusal;
use crate::fault::connection::Connection;
use crate::fault::rule::without_port;
use crate::invalid::Invalid;

/// A shorter token is guessed.
const SHORTEST_TOKEN: usize = 8;

type PeerOf = Arc<dyn Fn(&Extensions) -> Option<SocketAddr> + Send + Sync>;

/// Who may change faults. Plain data: [`Admin::new`](super::Admin::new) checks it.
///
/// ```
/// use resilient_client::fault::admin::AdminOptions;
///
/// // axum knows who is at the other end in its own way:
/// use axum::extract::ConnectInfo;
/// use std::net::SocketAddr;
///
/// let options = AdminOptions::token("a secret of this process")
///     .peer(|extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0));
/// # let _ = options;
/// ```
#[derive(Clone)]
#[must_use]
pub struct AdminOptions {
    token: Option<String>,
    anywhere: bool,
    hosts: Vec<String>,
    peer: PeerOf,
}

impl AdminOptions {
    /// Whoever bears this token may, from this host. 8 visible ASCII characters at least.
    pub fn token(token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..Self::without_token() }
    }

    /// Whoever is on this host may: every process of it, whoever runs it.
    pub fn without_token() -> Self {
        let of_connection = |extensions: &Extensions| extensions.get::<Connection>().map(Connection::peer);
        Self { token: None, anywhere: false, hosts: Vec::new(), peer: Arc::new(of_connection) }
    }

    /// From other hosts, too. Their requests must name one of these in `Host` (without its port). Default none: only from this
    /// host, under the name of `localhost` or an address of its own.
    pub fn anywhere(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.anywhere = true;
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Where a request's extensions say who sent it. Default in the [`Connection`]. A request of which nobody knows is refused.
    pub fn peer(mut self, of: impl Fn(&Extensions) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        self.peer = Arc::new(of);
        self
    }

    pub(super) fn check(&self) -> Result<(), Invalid> {
        let Some(token) = &self.token else {
            let open = Invalid::new("token", "must be there where other hosts may ask");
            return if self.anywhere { Err(open) } else { Ok(()) };
        };
        if token.len() >= SHORTEST_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        {
            return Ok(());
        }
        // What it is stays a secret.
        let problem = format!("must be at least {SHORTEST_TOKEN} visible ASCII characters");
        Err(Invalid::new("token", problem))
    }

    /// Whether a request may pass.
    pub(super) fn admit(&self, head: &Parts) -> Result<(), Refusal> {
        let forbidden = |why: &str| Err(Refusal::new(StatusCode::FORBIDDEN, why));
        if !self.anywhere && !(self.peer)(&head.extensions).is_some_and(|peer| is_this_host(peer.ip())) {
            return forbidden("Faults can be changed from this host only.");
        }
        let Some(authority) = authority(head) else {
            return forbidden("The request names no host, or several.");
        };
        let host = without_port(authority);
        if !is_local_name(host) && !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
            return forbidden("The request is addressed to another host.");
        }
        if is_cross_origin(&head.headers, authority) {
            return forbidden("The request comes from a page of another origin.");
        }
        match &self.token {
            Some(token) if !bears(&head.headers, token) => {
                Err(Refusal::new(StatusCode::UNAUTHORIZED, "The request bears no token, or another."))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for AdminOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminOptions")
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("anywhere", &self.anywhere)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

fn is_this_host(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whom the request is addressed to: `Host`, or over HTTP/2 the URL.
fn authority(head: &Parts) -> Option<&str> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => head.uri.authority().map(http::uri::Authority::as_str),
        (Some(_), Some(_)) => None,
    }
}

fn is_local_name(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_this_host)
}

/// Whether a browser says that a page of another origin asks.
fn is_cross_origin(headers: &HeaderMap, authority: &str) -> bool {
    let site = headers.get_all("sec-fetch-site").iter();
    let elsewhere = site.into_iter().any(|site| site != "same-origin" && site != "none");
    let same = |origin: &http::HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        own.is_some_and(|own| own.eq_ignore_ascii_case(authority))
    };
    elsewhere || !headers.get_all(ORIGIN).iter().all(same)
}

/// Whether the one `Authorization` bears the token. How long it takes says nothing of where a wrong one differs.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return false };
    let Some((scheme, borne)) = only.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    let (borne, token) = (black_box(borne), token.as_bytes());
    let differs = |differs: u8, (index, byte): (usize, &u8)| {
        differs | (byte ^ token.get(index % token.len().max(1)).copied().unwrap_or_default())
    };
    let differs = borne.iter().enumerate().fold(u8::from(borne.len() != token.len()), differs);
    scheme.eq_ignore_ascii_case(b"Bearer ") && black_box(differs) == 0
}
