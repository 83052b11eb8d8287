//! Redirects: which are followed, and what becomes of the request on the way.
//!
//! A redirect is followed above the calls: each hop is a call of its own, with the policy, the
//! circuit breaker, the budget and the endpoints of the origin it goes to, and within the time of
//! the call it belongs to. What each came to is in the last one's
//! [report](crate::CallReport::redirected_from).
//!
//! | answer | the request that follows |
//! |---|---|
//! | 301, 302 to a `POST` | a `GET` without body |
//! | 303 | a `GET` without body; a `HEAD` stays one |
//! | 301, 302 to another method, 307, 308 | the same again, if its body is bytes or there is none |
//!
//! A stream isn't sent again, even if a `replay_buffer` keeps it for retries, and neither is a form
//! with files: the redirect is the answer.
//!
//! To another origin (another scheme counts) a request takes no `Authorization`, `Cookie`,
//! `Proxy-Authorization` or `Host`, and no header whose value is marked
//! [sensitive](http::HeaderValue::set_sensitive); neither is an [`AttemptHook`](crate::AttemptHook)
//! asked from there on, whose headers are meant for the origin that was called. All others go
//! along, as with other clients: mark an API key of your own sensitive. No `Referer` is added.
//!
//! Where a reqwest client with a redirect policy of its own was led to by itself, everybody is a
//! stranger, and of what would go on the same only `GET` and `HEAD` do.
//!
//! From `https` to `http` no redirect is followed, whatever is allowed. A drain waits for the hops
//! of calls that were begun before it.

use std::fmt;
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, LOCATION,
    PROXY_AUTHORIZATION, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use url::Url;

/// As many as reqwest follows.
const MOST: usize = 10;

/// Which redirects are followed: for a client
/// ([`ClientBuilder::redirects`](crate::ClientBuilder::redirects)), or for one call
/// ([`RequestBuilder::redirects`](crate::RequestBuilder::redirects)).
///
/// What isn't followed is the answer, a 3xx, and the report says where it led and why it wasn't:
///
/// ```text
/// http://users: 1 attempt in 3.1ms
///   #1 first at 0.0ns, 3.1ms: success (302)
///   redirect to https://elsewhere/users not followed: other origin
/// ```
///
/// ```
/// use resilient_client::{Client, Redirects};
///
/// let client = Client::builder().redirects(Redirects::any().limit(3)).build()?;
/// # Ok::<(), resilient_client::Error>(())
/// ```
// A pointer, because a call is moved with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Redirects(Arc<Rules>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    to: To,
    limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    Nowhere,
    SameOrigin,
    SameHost,
    Origins(Vec<String>),
    Anywhere,
}

impl Redirects {
    fn to(to: To) -> Self {
        Self(Arc::new(Rules { to, limit: MOST }))
    }

    /// None: a 3xx is the answer.
    pub fn none() -> Self {
        Self::to(To::Nowhere)
    }

    /// To the same scheme, host and port.
    pub fn same_origin() -> Self {
        Self::to(To::SameOrigin)
    }

    /// To the same host, whatever its port, and from `http` to `https`.
    pub fn same_host() -> Self {
        Self::to(To::SameHost)
    }

    /// To the same origin and to these, such as `https://files.example`. What isn't an origin
    /// allows nothing.
    pub fn origins(origins: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let origin = |text: &str| Some(Url::parse(text).ok()?.origin().ascii_serialization());
        Self::to(To::Origins(origins.into_iter().filter_map(|text| origin(text.as_ref())).collect()))
    }

    /// To any origin, but from `https` to `http`.
    pub fn any() -> Self {
        Self::to(To::Anywhere)
    }

    /// The most that are followed one after the other; another is an error of the kind
    /// [`Redirect`](crate::ErrorKind::Redirect). Default 10.
    pub fn limit(self, most: usize) -> Self {
        Self(Arc::new(Rules { to: self.0.to.clone(), limit: most }))
    }

    /// How many may be followed.
    pub(crate) fn most(&self) -> usize {
        self.0.limit
    }

    /// Why one isn't followed; `None` if it is.
    pub(crate) fn refuse(&self, from: &Url, to: &Url) -> Option<Unfollowed> {
        if from.scheme() == "https" && to.scheme() != "https" && self.0.to != To::Nowhere {
            return Some(Unfollowed::Downgrade);
        }
        let same = from.origin() == to.origin();
        let allowed = match &self.0.to {
            To::Nowhere => return Some(Unfollowed::Off),
            To::SameOrigin => same,
            To::SameHost => from.host_str() == to.host_str(),
            To::Origins(origins) => same || origins.contains(&to.origin().ascii_serialization()),
            To::Anywhere => true,
        };
        (!allowed).then_some(Unfollowed::OtherOrigin)
    }
}

/// Why a redirect wasn't followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unfollowed {
    /// No redirects are followed.
    Off,
    /// It leads to an origin that isn't allowed.
    OtherOrigin,
    /// It leads from `https` to another scheme.
    Downgrade,
    /// It leads to what is neither `http` nor `https`.
    Scheme,
    /// The request is to be sent again, and its body was a stream.
    BodyIsStream,
    /// It leads to another origin, and the default headers of the reqwest client underneath hold
    /// credentials, which can't be left out.
    Credentials,
    /// The reqwest client underneath has a redirect policy of its own, or has followed as many as
    /// it does.
    Transport,
}

impl Unfollowed {
    /// The stable name used in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OtherOrigin => "other_origin",
            Self::Downgrade => "downgrade",
            Self::Scheme => "scheme",
            Self::BodyIsStream => "body_is_stream",
            Self::Credentials => "credentials",
            Self::Transport => "transport",
        }
    }
}

impl fmt::Display for Unfollowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "redirects are off",
            Self::OtherOrigin => "other origin",
            Self::Downgrade => "from https to http",
            Self::Scheme => "neither http nor https",
            Self::BodyIsStream => "body is a stream",
            Self::Credentials => "the transport's default headers hold credentials",
            Self::Transport => "the transport's own policy",
        })
    }
}

/// Where an answer redirects to, if it does.
pub(crate) fn target(status: StatusCode, headers: &HeaderMap, url: &Url) -> Option<Url> {
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = redirects.then(|| headers.get(LOCATION))??;
    url.join(std::str::from_utf8(location.as_bytes()).ok()?).ok()
}

/// Makes a request's head that of the one that follows an answer of this status. Whether it keeps
/// its body.
pub(crate) fn rewrite(status: StatusCode, method: &mut Method, headers: &mut HeaderMap) -> bool {
    let to_get = match status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *method == Method::POST,
        StatusCode::SEE_OTHER => true,
        _ => false,
    };
    if to_get {
        if *method != Method::HEAD {
            *method = Method::GET;
        }
        for about_body in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
            headers.remove(about_body);
        }
    }
    !to_get
}

/// Takes away what is meant for nobody but the origin that was called.
pub(crate) fn leave_home(headers: &mut HeaderMap) {
    const COOKIE2: HeaderName = HeaderName::from_static("cookie2");
    for name in [AUTHORIZATION, COOKIE, COOKIE2, PROXY_AUTHORIZATION, WWW_AUTHENTICATE, HOST] {
        headers.remove(name);
    }
    let sensitive = headers.iter().filter(|(_, value)| value.is_sensitive());
    let sensitive: Vec<_> = sensitive.map(|(name, _)| name.clone()).collect();
    for name in sensitive {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn each_kind_allows_what_it_says() {
        use Unfollowed::{Downgrade, Off, OtherOrigin};
        let from = "http://a/x";
        for (rules, to, why) in [
            (Redirects::none(), "http://a/y", Some(Off)),
            (Redirects::same_origin(), "http://a:80/y", None),
            (Redirects::same_origin(), "https://a/y", Some(OtherOrigin)),
            (Redirects::same_host(), "https://a/y", None),
            (Redirects::same_host(), "http://a:81/y", None),
            (Redirects::same_host(), "http://b/y", Some(OtherOrigin)),
            (Redirects::origins(["https://b"]), "https://b:443/y", None),
            (Redirects::origins(["https://b"]), "http://b/y", Some(OtherOrigin)),
            (Redirects::origins(["https://b"]), "http://a/y", None),
            (Redirects::origins(["nonsense"]), "http://b/y", Some(OtherOrigin)),
            (Redirects::any(), "http://b/y", None),
        ] {
            assert_eq!(rules.refuse(&url(from), &url(to)), why, "{rules:?} {to}");
        }
        for rules in [Redirects::any(), Redirects::same_host(), Redirects::origins(["http://a"])] {
            assert_eq!(rules.refuse(&url("https://a/x"), &url("http://a/x")), Some(Downgrade));
        }
    }

    /// The table of the module.
    #[test]
    fn a_request_becomes_what_the_status_asks_for() {
        for (status, method, then, keeps) in [
            (301, "POST", "GET", false),
            (302, "POST", "GET", false),
            (302, "PUT", "PUT", true),
            (303, "PUT", "GET", false),
            (303, "HEAD", "HEAD", false),
            (307, "POST", "POST", true),
            (308, "DELETE", "DELETE", true),
        ] {
            let mut method: Method = method.parse().unwrap();
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, "text/plain".parse().unwrap())]);
            assert_eq!(rewrite(StatusCode::from_u16(status).unwrap(), &mut method, &mut headers), keeps);
            assert_eq!((method.as_str(), headers.contains_key(CONTENT_TYPE)), (then, keeps), "{status}");
        }
    }

    #[test]
    fn only_a_redirect_with_a_place_to_go_is_one() {
        let to = |location: &str| HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
        let at = |status, headers: &HeaderMap| {
            target(StatusCode::from_u16(status).unwrap(), headers, &url("http://a/x/y"))
        };
        assert_eq!(at(302, &to("z")).unwrap().as_str(), "http://a/x/z");
        assert_eq!(at(308, &to("//b/z")).unwrap().as_str(), "http://b/z");
        assert!(at(302, &HeaderMap::new()).is_none() && at(302, &to("http://")).is_none());
        assert!(at(304, &to("z")).is_none() && at(201, &to("z")).is_none());
    }

    #[test]
    fn nothing_secret_leaves_home() {
        let mut key = http::HeaderValue::from_static("s3cret");
        key.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", key);
        headers.insert("x-mine", http::HeaderValue::from_static("1"));
        for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, HOST] {
            headers.insert(name, http::HeaderValue::from_static("s3cret"));
        }
        leave_home(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-mine"]);
    }
}
