//! Where one endpoint is: a scheme, a host and a port, and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use url::Url;

use crate::invalid::Invalid;
use crate::redact::redacted_text;

/// The most endpoints one name may have. A choice doesn't get slower with more; an update copies
/// the list.
pub const MOST_ENDPOINTS: usize = 1024;

/// A scheme, a host and a port, such as `http://10.0.0.1:3000`.
///
/// Normalised as URLs are (WHATWG URL): lower case, no default port, one way to write an address.
/// So two that are equal are the same place, and cloning one is cheap.
#[derive(Clone)]
pub struct Origin(Arc<Parts>);

struct Parts {
    text: Box<str>,
    url: Url,
    scheme: Scheme,
    authority: Authority,
}

impl Origin {
    /// Reads `text`, which may end in one slash.
    ///
    /// # Errors
    /// Names what is wrong: not a URL, neither `http` nor `https`, or more than an origin (user,
    /// path, query, fragment).
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Self::read(text).map_err(|problem| Invalid::new("endpoints", format!("{}: {problem}", shown(text))))
    }

    /// An address that a name resolved to. `None` for one that a URL can't hold: IPv6 with a zone
    /// (RFC 6874 lets a URI carry one, the WHATWG URL standard doesn't).
    pub(crate) fn of_address(scheme: &Scheme, address: SocketAddr) -> Option<Self> {
        if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
            return None;
        }
        Self::read(&format!("{scheme}://{address}")).ok()
    }

    fn read(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        let scheme = match url.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return Err("must begin with http:// or https://".to_owned()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not carry a user or password".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("must be a scheme, a host and a port, with no path, query or fragment".to_owned());
        }
        let authority = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err("must have a host".to_owned()),
        };
        if url.port() == Some(0) {
            return Err("port 0 is nobody's".to_owned());
        }
        let text = format!("{scheme}://{authority}").into();
        let authority = Authority::try_from(authority).map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(Parts { text, url, scheme, authority })))
    }

    /// As one would write it: `http://10.0.0.1:3000`.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// With `/` as its path.
    #[allow(dead_code, reason = "the engine doesn't use it yet")]
    pub(crate) fn url(&self) -> &Url {
        &self.0.url
    }

    pub(crate) fn scheme(&self) -> &Scheme {
        &self.0.scheme
    }

    /// Host and, unless it is the scheme's own, port: also what a `Host` header says.
    pub(crate) fn authority(&self) -> &Authority {
        &self.0.authority
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.url.port_or_known_default().unwrap_or_default()
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A whole list, or what is wrong with it, naming the offender by its place from one.
pub(super) fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Arc<[Origin]>, Invalid> {
    let invalid = |problem| Err(Invalid::new("endpoints", problem));
    let mut origins: Vec<Origin> = Vec::new();
    let mut places = HashMap::new();
    for (index, text) in texts.into_iter().enumerate() {
        let (place, text) = (index + 1, text.as_ref());
        if place > MOST_ENDPOINTS {
            return invalid(format!("must be at most {MOST_ENDPOINTS}, got more"));
        }
        let origin = match Origin::read(text) {
            Ok(origin) => origin,
            Err(problem) => return invalid(format!("number {place}, {}: {problem}", shown(text))),
        };
        if let Some(first) = origins.first().filter(|first| first.scheme() != origin.scheme()) {
            // Chance decides which endpoint a call goes to; it must not decide whether the call is
            // encrypted.
            return invalid(format!("number {place}, {origin}: must be {} as number 1 is", first.scheme()));
        }
        if let Some(earlier) = places.insert(origin.clone(), place) {
            return invalid(format!("number {place}, {}: is number {earlier} again", shown(text)));
        }
        origins.push(origin);
    }
    if origins.is_empty() {
        return invalid("must be at least one, got none".to_owned());
    }
    Ok(origins.into())
}

/// What may be shown of a bad URL: its beginning, and nothing that could be a secret.
fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let public = redacted_text(text);
    if public.is_empty() { "\"\"".to_owned() } else { public.chars().take(LONGEST).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(texts: &[&str]) -> String {
        list(texts).unwrap_err().to_string()
    }

    #[test]
    fn an_origin_is_normalised() {
        for (text, normal, authority, port) in [
            ("HTTP://Users:80/", "http://users", "users", 80),
            ("http://127.1:3000", "http://127.0.0.1:3000", "127.0.0.1:3000", 3000),
            ("https://[0:0::1]", "https://[::1]", "[::1]", 443),
            (
                "https://bücher.example:8443",
                "https://xn--bcher-kva.example:8443",
                "xn--bcher-kva.example:8443",
                8443,
            ),
        ] {
            let origin = Origin::parse(text).unwrap();
            assert_eq!(
                (origin.as_str(), origin.authority().as_str(), origin.port()),
                (normal, authority, port)
            );
            assert_eq!(origin.url().as_str(), format!("{normal}/"));
            assert_eq!(origin, Origin::parse(normal).unwrap());
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_refused_and_named() {
        for (text, message) in [
            ("users:3000", "endpoints number 1, users:3000: must begin with http:// or https://"),
            ("10.0.0.1:3000", "endpoints number 1, 10.0.0.1:3000: relative URL without a base"),
            ("", "endpoints number 1, \"\": relative URL without a base"),
            ("http://", "endpoints number 1, http://: empty host"),
            ("http://a:99999", "endpoints number 1, http://a:99999: invalid port number"),
            ("http://a:0", "endpoints number 1, http://a:0: port 0 is nobody's"),
            (
                "http://a/v1",
                "endpoints number 1, http://a/v1: must be a scheme, a host and a port, with no path, query or fragment",
            ),
        ] {
            assert_eq!(refusal(&[text]), message);
        }
        assert_eq!(refusal(&[]), "endpoints must be at least one, got none");
    }

    #[test]
    fn duplicates_are_found_however_they_are_written() {
        assert_eq!(
            refusal(&["http://a", "http://b", "HTTP://A:80/"]),
            "endpoints number 3, HTTP://A:80/: is number 1 again"
        );
    }

    #[test]
    fn schemes_are_not_mixed() {
        assert_eq!(
            refusal(&["https://a", "http://b"]),
            "endpoints number 2, http://b: must be https as number 1 is"
        );
    }

    #[test]
    fn more_than_the_most_are_refused() {
        let texts = |n: usize| (0..n).map(|n| format!("http://a:{}", n + 1));
        assert_eq!(list(texts(MOST_ENDPOINTS)).unwrap().len(), MOST_ENDPOINTS);
        assert_eq!(list(texts(1025)).unwrap_err().to_string(), "endpoints must be at most 1024, got more");
    }

    #[test]
    fn a_refusal_keeps_secrets() {
        for text in ["http://me:hunter2@a", "me:hunter2@a", "http://a?key=hunter2", "http://x:hunter2@y@[bad"]
        {
            let message = refusal(&[text]);
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn addresses_become_origins_unless_a_url_cannot_hold_them() {
        let of = |text: &str| Origin::of_address(&Scheme::HTTP, text.parse().unwrap());
        assert_eq!(of("10.0.0.1:80").unwrap().as_str(), "http://10.0.0.1");
        assert_eq!(of("[fd00::1]:3000").unwrap().as_str(), "http://[fd00::1]:3000");
        assert!(of("[fe80::1%3]:3000").is_none());
    }
}
