//! Who may use what an operator uses: the admin services for [faults](crate::fault::admin) and for
//! [clients](crate::admin). Pure: from the head of a request and who sent it.
//!
//! | asked in this order | else |
//! |---|---|
//! | the peer is known and on this host | 403 |
//! | no proxy says that it has passed the request on (`Forwarded`, `Via`, `X-Forwarded-For` and the like): behind one on this host everybody would be this host | 403 |
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

use crate::invalid::Invalid;

mod refusal;

#[cfg(test)]
mod tests;

#[cfg(feature = "fault")]
pub(crate) use refusal::json_response;
pub(crate) use refusal::{Refusal, read_json};

/// A shorter token is guessed.
const SHORTEST_TOKEN: usize = 8;

/// By these a proxy says that it has passed a request on, and for whom.
const PASSED_ON: [&str; 8] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "cf-connecting-ip",
];

type PeerOf = Arc<dyn Fn(&Extensions) -> Option<SocketAddr> + Send + Sync>;

/// Who may use an admin service. Plain data: the service that is given it checks it.
///
/// Who sent a request stands in its extensions. The admin service for faults looks for a
/// `fault::Connection` there, the one for clients for axum's `ConnectInfo<SocketAddr>` too; another
/// server's own way is [told](Self::peer).
///
/// ```
/// use resilient_client::access::Access;
/// use std::net::SocketAddr;
///
/// #[derive(Clone)]
/// struct Peer(SocketAddr); // what the server's accept loop inserts
///
/// let access = Access::token("a secret of this process").peer(|extensions| extensions.get::<Peer>().map(|peer| peer.0));
/// # let _ = access;
/// ```
#[derive(Clone)]
#[must_use]
pub struct Access {
    token: Option<String>,
    anywhere: bool,
    proxied: bool,
    hosts: Vec<String>,
    /// `None` for what the service knows to look for.
    peer: Option<PeerOf>,
}

impl Access {
    /// Whoever bears this token may, from this host. 8 visible ASCII characters at least.
    pub fn token(token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..Self::without_token() }
    }

    /// Whoever is on this host may: every process of it, whoever runs it.
    pub fn without_token() -> Self {
        Self { token: None, anywhere: false, proxied: false, hosts: Vec::new(), peer: None }
    }

    /// From other hosts, too. Their requests must name one of these in `Host` (without its port).
    /// Default none: only from this host, under the name of `localhost` or a loopback address.
    pub fn anywhere(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.anywhere = true;
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Through a proxy on this host, too, whoever asks that: it is the proxy then that must let in
    /// only who may, besides the token. Default: what bears a header by which proxies say that they
    /// have passed it on is refused; a proxy that adds none can't be told from a process of this
    /// host. [`anywhere`](Self::anywhere) allows proxies as well.
    pub fn through_proxies(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Where a request's extensions say who sent it. A request of which nobody knows is refused.
    pub fn peer(mut self, of: impl Fn(&Extensions) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        self.peer = Some(Arc::new(of));
        self
    }

    /// The same, unless the user said otherwise.
    pub(crate) fn peer_by_default(
        mut self,
        of: impl Fn(&Extensions) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        self.peer.get_or_insert_with(|| Arc::new(of));
        self
    }

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let Some(token) = &self.token else {
            let open = Invalid::new("token", "must be there where other hosts may ask");
            return if self.anywhere || self.proxied { Err(open) } else { Ok(()) };
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
    pub(crate) fn admit(&self, head: &Parts) -> Result<(), Refusal> {
        self.admit_page(head)?;
        match &self.token {
            Some(token) if !bears(&head.headers, token) => {
                Err(Refusal::new(StatusCode::UNAUTHORIZED, "The request bears no token, or another."))
            }
            _ => Ok(()),
        }
    }

    /// The same for what is no secret, such as a page that then asks for the token.
    pub(crate) fn admit_page(&self, head: &Parts) -> Result<(), Refusal> {
        let forbidden = |why: &str| Err(Refusal::new(StatusCode::FORBIDDEN, why));
        let peer = self.peer.as_ref().and_then(|peer| peer(&head.extensions));
        if !self.anywhere && !peer.is_some_and(|peer| is_this_host(peer.ip())) {
            return forbidden("This is answered to this host only.");
        }
        if !self.anywhere && !self.proxied && PASSED_ON.iter().any(|name| head.headers.contains_key(*name)) {
            return forbidden("A proxy has passed the request on, and this is answered to this host only.");
        }
        let named = authority(head).and_then(|authority| Some((authority, host_of(authority)?)));
        let Some((authority, host)) = named else {
            return forbidden("The request names no host, or several.");
        };
        if !is_local_name(host) && !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
            return forbidden("The request is addressed to another host.");
        }
        if is_cross_origin(&head.headers, authority) {
            return forbidden("The request comes from a page of another origin.");
        }
        Ok(())
    }
}

impl fmt::Debug for Access {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("anywhere", &self.anywhere)
            .field("through_proxies", &self.proxied)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

fn is_this_host(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whom the request is addressed to: `Host`, or the URL, which has it over HTTP/2 and in requests
/// to a proxy. Where both say it they say the same.
fn authority(head: &Parts) -> Option<&str> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let of_url = head.uri.authority().map(http::uri::Authority::as_str);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = host.to_str().ok()?;
            of_url.is_none_or(|url| url.eq_ignore_ascii_case(host)).then_some(host)
        }
        (None, _) => of_url,
        (Some(_), Some(_)) => None,
    }
}

/// The host of an authority that is no more than a host and perhaps a port.
fn host_of(authority: &str) -> Option<&str> {
    let host = without_port(authority);
    let port = authority[host.len()..].strip_prefix(':').unwrap_or("0");
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_port.then_some(host)
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

/// Whether the one `Authorization` bears the token. How long it takes says nothing of where a wrong
/// one differs.
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

/// The host that an authority names.
pub(crate) fn without_port(authority: &str) -> &str {
    // The colons of an IPv6 address are no port's.
    let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    port.map_or(authority, |(host, _)| host)
}
