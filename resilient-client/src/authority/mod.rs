//! What fails together: scheme, host and port, and what an upstream is found by.

use std::borrow::Cow;

use std::fmt;

use std::hash::Hash;

use std::hash::Hasher;

#[cfg(feature = "hyper")]
use http::HeaderValue;

use http::uri::Scheme;

mod host_name;
pub(crate) mod identity;
pub(crate) mod key;

/// What fails together, borrowed from a URL: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    // In the order in which two are told apart soonest.
    port: u16,
    host: Cow<'a, str>,
    scheme: Cow<'a, str>,
}

/// The scheme hardly ever tells two authorities apart that host and port don't, so only its length
/// is hashed.
impl Hash for Authority<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.host.as_bytes());
        state.write_u64(u64::from(self.port) << 32 | self.scheme.len() as u64);
    }
}

impl<'a> Authority<'a> {
    /// Of a URL, which is already normalised. A URL without a host (`data:`) has an empty one.
    pub(crate) fn of_url(url: &'a url::Url) -> Self {
        Self {
            scheme: Cow::Borrowed(url.scheme()),
            host: Cow::Borrowed(url.host_str().unwrap_or_default()),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }

    /// Of a URI that is known to be good.
    #[cfg(any(test, feature = "__bench", feature = "__testkit"))]
    pub(crate) fn of_uri(uri: &'a http::Uri) -> Self {
        Self::read(uri).and_then(Self::normal).unwrap_or_else(|_| Authority::nowhere("overflow"))
    }

    /// Of a URI as it stands in an `http::Request`: a relative one belongs to the nameless
    /// upstream. In lower case, and an address as it is written: see [`normal`](Self::normal).
    ///
    /// # Errors
    /// Says what is wrong with the port. `http::Uri` takes `http://users:99999` and finds no port
    /// in it, and a transport then goes to port 80.
    pub(crate) fn read(uri: &'a http::Uri) -> Result<Self, String> {
        let (scheme, default_port) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => ("http", 80),
            Some(scheme) if *scheme == Scheme::HTTPS => ("https", 443),
            Some(scheme) => (scheme.as_str(), 0),
            None => ("", 0),
        };
        let text = uri.authority().map_or("", http::uri::Authority::as_str);
        let HostAndPort { host, port, upper, bad_port } = host_and_port(text);
        let host = if upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) };
        // Only these two are known to go to hosts and ports.
        if bad_port && default_port != 0 {
            return Err(bad_port_in(text));
        }
        Ok(Self { scheme: Cow::Borrowed(scheme), host, port: port.unwrap_or(default_port) })
    }

    /// The same with its host as a URL has it. What is found in the table is so already, as all
    /// that is there is; so this is left to what isn't found.
    ///
    /// # Errors
    /// Says what is wrong with the host.
    pub(crate) fn normal(self) -> Result<Self, String> {
        let Self { port, host, scheme } = self;
        if !matches!(&*scheme, "http" | "https") {
            return Ok(Self { port, host, scheme });
        }
        let zone = host.contains('%');
        let host = host_name::normal(host).ok_or_else(|| no_host(zone).to_owned())?;
        Ok(Self { port, host, scheme })
    }

    /// Of what no URL names.
    pub(crate) fn nowhere(name: &'static str) -> Authority<'static> {
        Authority { scheme: Cow::Borrowed(""), host: Cow::Borrowed(name), port: 0 }
    }

    /// What requests to it say in `Host`; `None` for the nameless.
    #[cfg(feature = "hyper")]
    pub(crate) fn host_header(&self) -> Option<HeaderValue> {
        let Self { scheme, host, port } = self;
        match (&**scheme, port) {
            ("", _) => None,
            ("http", 80) | ("https", 443) => HeaderValue::from_str(host).ok(),
            _ => HeaderValue::from_str(&format!("{host}:{port}")).ok(),
        }
    }

    /// `http`, `https`, another, or none.
    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// As URLs have it; empty for the nameless.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Zero where it isn't known.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn into_owned(self) -> Authority<'static> {
        Authority {
            scheme: Cow::Owned(self.scheme.into_owned()),
            host: Cow::Owned(self.host.into_owned()),
            port: self.port,
        }
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.scheme, self.port) {
            ("", 0) => f.write_str(&self.host),
            ("http", 80) | ("https", 443) | (_, 0) => write!(f, "{}://{}", self.scheme, self.host),
            _ => write!(f, "{}://{}:{}", self.scheme, self.host, self.port),
        }
    }
}

/// What stands in a URI's authority.
struct HostAndPort<'a> {
    host: &'a str,
    /// `None` where there is none, or it is bad.
    port: Option<u16>,
    /// The host has upper-case letters.
    upper: bool,
    /// There is a port, and it isn't a port's number.
    bad_port: bool,
}

/// `Uri::host` and `Uri::port` look through the text twice each.
fn host_and_port(authority: &str) -> HostAndPort<'_> {
    let bytes = authority.as_bytes();
    // The number that it ends in, from behind.
    let (mut rest, mut number, mut place) = (bytes, 0_u32, 1_u32);
    while let [before @ .., digit @ b'0'..=b'9'] = rest {
        number = number.saturating_add(place.saturating_mul(u32::from(digit - b'0')));
        (rest, place) = (before, place.saturating_mul(10));
    }
    let digits = rest.len() < bytes.len();
    let named = rest.last() == Some(&b':');
    let port = if named && digits { u16::try_from(number).ok() } else { None };
    let host = authority.get(..if named { rest.len() - 1 } else { bytes.len() }).unwrap_or_default();
    let found = host.bytes().fold(0, |found, byte| found | NOTED[byte as usize]);
    // Nearly no URL has credentials.
    let host = if found & AT != 0 { host.rsplit_once('@').map_or(host, |(_, host)| host) } else { host };
    // A colon that isn't an address's is followed by something else than digits.
    let odd_colon = found & COLON != 0 && !host.starts_with('[') && host.contains(':');
    let bad_port = odd_colon || named && digits && port.is_none();
    HostAndPort { host, port, upper: found & UPPER != 0, bad_port }
}

#[cold]
fn no_host(has_zone: bool) -> &'static str {
    if has_zone {
        "the URL names an IPv6 zone, which the URL standard has no place for"
    } else {
        "the URL's host looks like an IP address and is none"
    }
}

/// Names the port if that can't be anything else, such as the password of a URL without a host.
#[cold]
fn bad_port_in(authority: &str) -> String {
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let number = port.len() <= 8 && port.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let shown = if number { format!(": {port}") } else { String::new() };
    format!("the URL's port must be a number up to 65535{shown}")
}

const AT: u8 = 1;

const UPPER: u8 = 2;

const COLON: u8 = 4;

/// What a host is looked through for. By table and without an early end, which is faster for what
/// is as short as a host.
static NOTED: [u8; 256] = {
    let mut noted = [0; 256];
    noted[b'@' as usize] = AT;
    noted[b':' as usize] = COLON;
    let mut letter = b'A';
    while letter <= b'Z' {
        noted[letter as usize] = UPPER;
        letter += 1;
    }
    noted
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uri_is_read_as_its_own_accessors_read_it() {
        for text in [
            "http://users/",
            "http://users:3000/a?x=1:2@3",
            "http://[::1]/",
            "http://[::1]:80/",
            "https://10.0.0.1:8443",
            "http://alice:7@users/",
            "http://alice:7@users:9/",
            "http://users:/",
            "/relative",
            "users:80",
            "http://users:000081/",
            "http://users:65535/",
            "http://a:b@[::1]:9/",
        ] {
            is_read_as_its_own_accessors_read_it(&text.parse().unwrap());
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_not_taken_for_the_usual_one() {
        for (text, said) in [
            ("http://users:65536/", ": 65536"),
            ("http://users:99999", ": 99999"),
            ("https://users:-1/x", ": -1"),
            ("http://users:8o80/", "65535"),
            ("http://alice:hunter2@users:8o80/", "65535"),
            ("http://[::1]:99999/", ": 99999"),
            ("http://[::1]:x/", ""),
        ] {
            let Ok(uri) = text.parse() else { continue };
            let refusal = Authority::read(&uri).and_then(Authority::normal).unwrap_err();
            assert!(refusal.ends_with(said) && !refusal.contains("hunter2"), "{text}: {refusal}");
        }
    }

    #[test]
    fn an_address_is_one_upstream_over_both_kinds_of_url() {
        for text in ["http://127.1:80/", "http://0x7f000001/", "http://2130706433/", "HTTP://127.0.0.1"] {
            let uri: http::Uri = text.parse().unwrap();
            assert_eq!(
                Authority::read(&uri).and_then(Authority::normal).unwrap(),
                Authority::of_url(&"http://127.0.0.1".parse().unwrap())
            );
        }
    }

    fn is_read_as_its_own_accessors_read_it(uri: &http::Uri) {
        let host = uri.host().unwrap_or_default().to_lowercase();
        let authority = Authority::read(uri).and_then(Authority::normal);
        let port = uri.authority().and_then(|all| all.as_str().rsplit_once(':')).map_or("", |(_, port)| port);
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && uri.port_u16().is_none() {
            assert!(authority.is_err() || uri.scheme_str() == Some("ftp"), "{uri}");
            return;
        }
        // Addresses are written in one way only, and some are none: `host` has the tests.
        let Ok(authority) = authority else { return };
        if authority.host != host {
            assert_eq!(Some(&*authority.host), host_name::normal(host.into()).as_deref(), "{uri}");
        }
        let default_port = match uri.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            _ => 0,
        };
        assert_eq!(authority.port, uri.port_u16().unwrap_or(default_port), "{uri}");
    }

    proptest! {
        #[test]
        fn any_uri_is_read_as_its_own_accessors_read_it(
            scheme in "https?|ftp", user in "([a-z0-9:]{0,4}@)?", host in "[a-zA-Z0-9.-]{1,12}|\\[[0-9a-f:]{2,9}\\]",
            port in "(:[0-9]{0,6})?", path in "(/[a-z0-9:@]{0,5})?",
        ) {
            if let Ok(uri) = format!("{scheme}://{user}{host}{port}{path}").parse() {
                is_read_as_its_own_accessors_read_it(&uri);
            }
        }
    }
}
