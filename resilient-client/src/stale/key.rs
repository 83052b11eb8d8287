//! Whose answer it is: everything in a request that could say who is asking.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use url::Url;

/// The request headers that don't tell askers apart: they differ from call to call, or are about
/// storing itself. Every other header does. `baggage` isn't here because it commonly carries a
/// user's id.
pub const IGNORED: &[&str] = &[
    "b3",
    "cache-control",
    "date",
    "grpc-timeout",
    "idempotency-key",
    "if-modified-since",
    "if-none-match",
    "pragma",
    "request-id",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "user-agent",
    "x-amzn-trace-id",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-request-id",
];

/// What an answer is found by. Compared whole, not by hash: two askers that are told apart at all
/// never meet.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Without credentials and fragment: a change of the URL concerns everybody's answers.
    pub(super) url: Arc<str>,
    /// Everything else. Never printed: it holds credentials.
    pub(super) who: Arc<[u8]>,
}

impl Key {
    pub(super) fn new(
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        key: Option<&str>,
        ignored: &[HeaderName],
    ) -> Self {
        let mut who = Vec::with_capacity(256);
        // Each field with its length before it, so that no two requests run into the same bytes.
        let mut field = |bytes: &[u8]| {
            who.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            who.extend_from_slice(bytes);
        };
        field(method.as_str().as_bytes());
        field(url.username().as_bytes());
        for optional in [url.password(), key] {
            field(if optional.is_some() { b"1" } else { b"0" });
            field(optional.unwrap_or_default().as_bytes());
        }
        let tells = |name: &HeaderName| !IGNORED.contains(&name.as_str()) && !ignored.contains(name);
        let mut named: Vec<_> = headers.iter().filter(|(name, _)| tells(name)).collect();
        // Stable: values of one name keep their order, which can matter; the order of names can't.
        named.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        for (name, value) in named {
            field(name.as_str().as_bytes());
            field(value.as_bytes());
        }
        Self { url: address(url).into(), who: who.into() }
    }

    /// How many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        self.url.len() + self.who.len()
    }
}

/// The URL without what isn't about where it points.
pub(super) fn address(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that can't have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    url.into()
}

/// Which of so many counters belongs to a URL, or to a URL and who asks.
pub(super) fn bucket(of: impl Hash, buckets: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    (hasher.finish() % buckets.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(url: &str, headers: &[(String, String)], scope: Option<&str>) -> Key {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        Key::new(&Method::GET, &url.parse().unwrap(), &map, scope, &[HeaderName::from_static("x-noise")])
    }

    fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn whatever_could_name_a_user_tells_requests_apart() {
        let plain = key("http://a/x", &[], None);
        for (url, headers, scope) in [
            ("http://a/x", owned(&[("authorization", "Bearer 1")]), None),
            ("http://a/x", owned(&[("cookie", "sid=1")]), None),
            ("http://a/x", owned(&[("x-never-heard-of", "7")]), None),
            ("http://a/x", owned(&[("accept-language", "de")]), None),
            ("http://ann@a/x", Vec::new(), None),
            ("http://:secret@a/x", Vec::new(), None),
            ("http://a/x", Vec::new(), Some("tenant")),
            ("http://a/x", Vec::new(), Some("")),
            ("http://a/x?y", Vec::new(), None),
        ] {
            assert!(key(url, &headers, scope) != plain, "{url} {headers:?} {scope:?}");
        }
    }

    #[test]
    fn what_differs_from_call_to_call_does_not() {
        let headers =
            owned(&[("traceparent", "00-1"), ("x-request-id", "1"), ("x-noise", "2"), ("pragma", "x")]);
        assert!(key("http://a/x#there", &headers, None) == key("http://a/x", &[], None));
    }

    proptest! {
        /// Two requests have one key exactly if they have the same headers, whatever the order of
        /// the names.
        #[test]
        fn keys_are_equal_exactly_when_headers_are(
            a in prop::collection::vec(("[ab]{1,2}", "[ab:]{0,2}"), 0..4),
            b in prop::collection::vec(("[ab]{1,2}", "[ab:]{0,2}"), 0..4),
        ) {
            let sorted = |headers: &Vec<(String, String)>| {
                let mut headers = headers.clone();
                headers.sort_by(|(a, _), (b, _)| a.cmp(b));
                headers
            };
            let same = key("http://a/", &a, None) == key("http://a/", &b, None);
            prop_assert_eq!(same, sorted(&a) == sorted(&b));
        }
    }
}
