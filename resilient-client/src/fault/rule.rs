//! What to do to which requests: plain values, checked when they are put in force.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::limits::Limits;
use crate::access::without_port;
use crate::invalid::Invalid;
use crate::policy::route::Pattern;

/// The most headers an answer may bear that a rule makes.
const MOST_HEADERS: usize = 32;

/// What says how an answer is sent, and isn't a rule's to say.
const FRAMING: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];

/// One fault, and the requests that suffer it: by default all.
///
/// ```
/// use std::time::Duration;
/// use resilient_client::fault::Rule;
///
/// // Every fifth read of a user takes two seconds.
/// let rule = Rule::delay(Duration::from_secs(2)).method("GET").path("/users/{id}").percentage(20.0);
/// # let _ = rule;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a rule does nothing until it is put in force"]
pub struct Rule {
    pub(super) kind: Kind,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) percentage: f64,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The request waits, and is then served.
    Delay(Delay),
    /// The request isn't served; this is the answer.
    Abort {
        /// Its status, 200 to 599.
        status: StatusCode,
        /// Its headers, `Retry-After` say; at most 32.
        headers: HeaderMap,
        /// Its body.
        body: Bytes,
    },
    /// No answer. After [`Limits::max_delay`] the connection is reset, as of a machine that is
    /// gone.
    Hang,
    /// The connection is reset before anything of the answer has come. The request isn't served.
    ResetBeforeHead,
    /// The request is served, and the connection is reset after the answer's head.
    ResetAfterHead,
    /// The answer's body ends too early, with its connection.
    Truncate {
        /// How much of it comes.
        bytes: u64,
    },
    /// The answer's body comes slowly. After [`Limits::max_delay`] the rest comes at once.
    Trickle {
        /// How many bytes come at a time, at least 1.
        bytes: u64,
        /// How long it takes from one time to the next.
        every: Duration,
    },
    /// Bytes that aren't HTTP, and the connection's end. The request isn't served.
    Garbage,
    /// A page such as a proxy's that doesn't know the service, as HTML. The request isn't served.
    WrongPage {
        /// 404, say; or 200, which is worse.
        status: StatusCode,
    },
}

/// How long a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delay {
    /// Always as long.
    Fixed(Duration),
    /// Anything between the two, all as likely.
    Uniform {
        /// At least.
        min: Duration,
        /// At most.
        max: Duration,
    },
    /// Half of the requests at most the median, one in a hundred longer than the other, none longer
    /// than
    /// [`Limits::max_delay`]: as servers are slow.
    LogNormal {
        /// Half of the delays are shorter.
        median: Duration,
        /// One in a hundred is longer.
        p99: Duration,
    },
}

impl Rule {
    /// A fault for all requests.
    pub fn new(kind: Kind) -> Self {
        Self { kind, method: None, path: None, host: None, headers: Vec::new(), percentage: 100.0 }
    }

    /// A fixed [delay](Kind::Delay).
    pub fn delay(delay: Duration) -> Self {
        Self::new(Kind::Delay(Delay::Fixed(delay)))
    }

    /// An [answer](Kind::Abort) of a status, without headers or body.
    pub fn abort(status: StatusCode) -> Self {
        Self::new(Kind::Abort { status, headers: HeaderMap::new(), body: Bytes::new() })
    }

    /// Only requests of this method, in capitals. Default any.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Only requests whose path is like this: `/users/{id}`, as in a
    /// [route](crate::policy::PolicySet::route), or `/users/*` for whatever begins with `/users/`.
    /// Default any.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Only requests to this host, without its port: for a client, which calls several. Default
    /// any.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Only requests with this header; `"*"` stands for any value. Several must all be there.
    /// Default any request.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The share of the requests that match, in percent, 0 to 100. Default 100.
    pub fn percentage(mut self, percentage: f64) -> Self {
        self.percentage = percentage;
        self
    }

    /// What goes wrong.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Which requests it is for, checked.
    pub(super) fn matcher(&self) -> Result<Matcher, Invalid> {
        let share = self.percentage;
        if !(0.0..=100.0).contains(&share) {
            return Err(Invalid::new("percentage", format!("must be from 0 to 100, got {share}")));
        }
        let path = match self.path.as_deref().map(|path| (path, path.strip_suffix('*'))) {
            None => Path::Any,
            Some((_, Some(prefix))) if prefix.starts_with('/') && prefix.ends_with('/') => {
                // Checked as a route is: what never stands in a path would never match.
                Pattern::new("*", prefix).map_err(|invalid| invalid.renamed("path"))?;
                Path::Below(prefix.to_owned())
            }
            Some((path, _)) => {
                Path::Like(Pattern::new("*", path).map_err(|invalid| invalid.renamed("path"))?)
            }
        };
        let method = self.method.as_deref().map(method).transpose()?;
        if let Some(host) = self.host.as_deref().filter(|host| !is_host(host)) {
            return Err(Invalid::new("host", format!("must be a host's name without a port, got {host:?}")));
        }
        let headers = self.headers.iter().map(|(name, value)| header(name, value));
        Ok(Matcher {
            method,
            path,
            host: self.host.clone(),
            headers: headers.collect::<Result<_, _>>()?,
            chance: share / 100.0,
        })
    }
}

/// An IPv6 address stands in brackets, as in a URL; any other colon is a port's.
fn is_host(host: &str) -> bool {
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    !host.is_empty() && !host.contains(['/', '@', ' ']) && (name.is_some() || !host.contains(':'))
}

fn method(method: &str) -> Result<Method, Invalid> {
    let known = Method::from_bytes(method.as_bytes()).ok();
    known
        .filter(|_| method.bytes().all(|byte| byte.is_ascii_uppercase()))
        .ok_or_else(|| Invalid::new("method", format!("must be a method in capitals, got {method:?}")))
}

fn header(name: &str, value: &str) -> Result<(HeaderName, Option<HeaderValue>), Invalid> {
    let invalid = || Invalid::new("headers", format!("must be headers, got {name:?}: {value:?}"));
    let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
    let value = match value {
        "*" => None,
        value => Some(HeaderValue::from_str(value).map_err(|_| invalid())?),
    };
    Ok((known, value))
}

impl Kind {
    /// The kind within the bounds.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), Invalid> {
        match self {
            Self::Delay(delay) => delay.check(limits),
            Self::Abort { status, headers, body } => {
                status_of_an_answer(*status)?;
                if headers.len() > MOST_HEADERS {
                    let problem = format!("must be at most {MOST_HEADERS}, got {}", headers.len());
                    return Err(Invalid::new("answer_headers", problem));
                }
                if let Some(framing) = FRAMING.iter().find(|framing| headers.contains_key(*framing)) {
                    return Err(Invalid::new(
                        "answer_headers",
                        format!("must leave {framing} to the connection"),
                    ));
                }
                let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
                let bytes = headers.iter().map(size).sum::<usize>() + body.len();
                limits.has_room_for("body", bytes as u64)
            }
            Self::WrongPage { status } => {
                status_of_an_answer(*status)?;
                limits.has_room_for("wrong_page", super::machine::PAGE.len() as u64)
            }
            Self::Trickle { bytes: 0, .. } => Err(Invalid::new("bytes", "must be at least 1, got 0")),
            Self::Trickle { every, .. } => limits.allows_wait("every", *every),
            Self::Hang
            | Self::ResetBeforeHead
            | Self::ResetAfterHead
            | Self::Truncate { .. }
            | Self::Garbage => Ok(()),
        }
    }
}

fn status_of_an_answer(status: StatusCode) -> Result<(), Invalid> {
    if (200..600).contains(&status.as_u16()) {
        return Ok(());
    }
    Err(Invalid::new("status", format!("must be from 200 to 599, got {}", status.as_u16())))
}

impl Delay {
    fn check(&self, limits: &Limits) -> Result<(), Invalid> {
        match *self {
            Self::Fixed(delay) => limits.allows_wait("delay", delay),
            Self::Uniform { min, max } => {
                if min > max {
                    return Err(Invalid::new(
                        "delay.min",
                        format!("must be at most delay.max ({max:?}), got {min:?}"),
                    ));
                }
                limits.allows_wait("delay.max", max)
            }
            Self::LogNormal { median, p99 } => {
                if median.is_zero() {
                    return Err(Invalid::new("delay.median", "must be longer than zero, got 0s"));
                }
                if p99 < median {
                    let problem = format!("must be at least delay.median ({median:?}), got {p99:?}");
                    return Err(Invalid::new("delay.p99", problem));
                }
                limits.allows_wait("delay.p99", p99)
            }
        }
    }
}

/// Which requests a rule is for.
#[derive(Debug)]
pub(super) struct Matcher {
    method: Option<Method>,
    path: Path,
    host: Option<String>,
    /// A name, and its value unless any will do.
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// The share of them, 0 to 1.
    pub(super) chance: f64,
}

#[derive(Debug)]
enum Path {
    Any,
    Below(String),
    Like(Pattern),
}

/// A request, as far as rules look at it, and scripts.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "rules don't look at all of it"))]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    /// Whom it is for, without the port, as far as the URL tells.
    pub(crate) host: Option<&'a str>,
    pub(crate) port: Option<u16>,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    /// What is known of its content before it is sent.
    pub(crate) body: Option<&'a [u8]>,
}

impl<'a> Asked<'a> {
    pub(super) fn of<B>(request: &'a http::Request<B>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        Self {
            method,
            path: uri.path(),
            host: uri.host(),
            port: uri.port_u16(),
            query: uri.query(),
            headers: request.headers(),
            body: None,
        }
    }

    /// Whether it is for this host, by its URL or its header: an endpoint's address stands in the
    /// one, its name in the other.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let header = self.headers.get(http::header::HOST).and_then(|header| header.to_str().ok());
        let header = header.map(without_port);
        [self.host, header].into_iter().flatten().any(|asked| asked.eq_ignore_ascii_case(host))
    }
}

impl Matcher {
    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        let path = match &self.path {
            Path::Any => true,
            Path::Below(prefix) => asked.path.starts_with(prefix),
            Path::Like(pattern) => pattern.matches(asked.method, asked.path),
        };
        let has = |(name, value): &(HeaderName, Option<HeaderValue>)| match value {
            None => asked.headers.contains_key(name),
            Some(value) => asked.headers.get_all(name).iter().any(|own| own == value),
        };
        path && self.method.as_ref().is_none_or(|method| method == asked.method)
            && self.host.as_deref().is_none_or(|host| asked.is_for(host))
            && self.headers.iter().all(has)
    }
}
