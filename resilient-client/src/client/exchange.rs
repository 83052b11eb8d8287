//! The reqwest transport.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body::SizeHint;
use reqwest::{Body, Request, Url};
use tower_service::Service;

use super::empty_body::{Kind, Opened};
use super::payload::{Payload, payload};
use super::redirect::{Hopping, ReqwestFacts};
use crate::authority::Authority;
use crate::body_length::Expected;
use crate::call::exchange::{Departure, Exchange, Expired, Outbound, Overdue, Reached, announces_stream};
use crate::call::kept_body::KeptBody;
use crate::call::response_body::Guard;
use crate::client::response::{Response, assemble};
use crate::engine::Address;
use crate::error::Error;
use crate::faulted::{self, Asked, Faulted};
use crate::hook::Attempt;
use crate::outcome::FailureCause;
use crate::outcome::call_id::CallId;
use crate::outcome::classify::errors::is_dead_connection;
use crate::outcome::classify::evidence::{Evidence, Fault, Sent};
use crate::outcome::classify::{Ended, is_idempotent};
use crate::outcome::report::CallReport;
use crate::pool_defaults::POOL_IDLE;
use crate::redirects::{self, Unfollowed};
use crate::time::{Tick, nanos};
use crate::upstream::Upstream;
use crate::upstream::endpoints::Endpoint;

/// An attempt on the wire, or one that suffers a fault on purpose.
type OnItsWay = Faulted<Hopping<<reqwest::Client as Service<Request>>::Future>, reqwest::Response>;

/// One call over a `reqwest::Client`.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a thing of its own")]
pub(crate) struct ReqwestExchange {
    client: reqwest::Client,
    facts: Arc<ReqwestFacts>,
    /// It has content for sure. What a `GOAWAY` ended before any of that was sent can't have been
    /// processed, whether it was a stream by then or not.
    content: bool,
    /// It has no content. Then a body without any tells when it becomes a stream.
    none: bool,
    /// An attempt has met a connection that was dead, or may be. Those that follow leave the pool,
    /// whatever endpoint they go to: what kills connections in one pool, a router that forgets
    /// them, does so in others.
    leaves: bool,
    /// Apart from its body, if that can be made again.
    request: Request,
    body: Payload,
    /// Redirects are for the engine to follow.
    stays: bool,
    /// The addresses of the host that the URL names, where attempts went.
    named: Vec<Arc<Endpoint>>,
}

impl ReqwestExchange {
    /// A streamed body is sent once, or kept in a replay buffer of so many bytes. `stays`:
    /// redirects are for the engine to follow.
    #[allow(clippy::inline_always, reason = "an exchange is large, and is made where it stays")]
    #[inline(always)]
    pub(crate) fn new(
        (client, facts): (reqwest::Client, Arc<ReqwestFacts>),
        mut request: Request,
        replay_buffer: Option<usize>,
        stays: bool,
    ) -> Self {
        // The engine keeps time; a second timer inside reqwest would only fire with a less telling
        // error. Asked first: clearing a timeout that was never set allocates the map it isn't in.
        if request.timeout().is_some() {
            *request.timeout_mut() = None;
        }
        let body =
            if request.body().is_none() { Payload::None } else { payload(&mut request, replay_buffer) };
        let empty = body.bytes().map(<[u8]>::is_empty);
        let (content, none) = (empty == Some(false), empty == Some(true) || matches!(body, Payload::None));
        Self { client, facts, content, none, leaves: false, request, body, stays, named: Vec::new() }
    }

    /// The same with a form for the body, which is in the request as a stream.
    #[cfg(feature = "multipart")]
    pub(super) fn with_form(mut self, form: Option<Box<crate::multipart::FormBody>>) -> Self {
        if let Some(form) = form {
            *self.request.body_mut() = None;
            self.body = Payload::Form(form);
        }
        self
    }

    /// What tells when an attempt has a stream, where that matters and can be known: whether a
    /// `GOAWAY` excluded what isn't safe to repeat, and whether an attempt waits for a stream.
    #[inline]
    fn teller(&self, method: &Method, upstream: &Upstream) -> Option<Kind> {
        if !self.none {
            return None;
        }
        if self.facts.direct && !is_idempotent(method) {
            return Some(Kind::Asked);
        }
        upstream.protocol().may_share().then_some(Kind::LetGo)
    }

    /// Whether an attempt may wait for a stream and nobody could tell: one with content. To end one
    /// that isn't safe to repeat helps nobody, so that it is given its time once more where others
    /// are answered; one that is safe goes another way.
    #[inline]
    fn may_wait_unseen(&self, method: &Method, upstream: &Upstream) -> bool {
        !self.none && !is_idempotent(method) && upstream.protocol().may_share()
    }

    /// The request that nothing can follow.
    fn take(&mut self) -> Option<Request> {
        let body = std::mem::replace(&mut self.body, Payload::Gone);
        if matches!(body, Payload::Gone) {
            return None;
        }
        let stays = matches!(body, Payload::Once);
        // Its method stays, for what the answer's length means.
        let rest = Request::new(self.request.method().clone(), self.request.url().clone());
        let mut request = std::mem::replace(&mut self.request, rest);
        if !stays {
            *request.body_mut() = body.into_body();
        }
        Some(request)
    }
}

impl ReqwestExchange {
    /// An answer whose URL has the name that was called, and not the address it came from.
    #[cold]
    fn under_its_name(&self, answer: reqwest::Response) -> reqwest::Response {
        let ((mut url, parts), body) = <Self as Exchange>::dismantle(answer);
        self.name(&mut url);
        assemble(url, parts, body)
    }

    /// Says in its report where an answer would have led, if it redirects.
    #[cold]
    fn left_unfollowed(&self, response: &mut Response) {
        let to = redirects::target(response.status(), response.headers(), response.url());
        if let Some(to) = to.filter(|_| !self.stays) {
            let home = to.origin() == response.url().origin();
            let why = match self.facts.unfollowed {
                // It is the way of an address of a name, and leads to the name.
                Unfollowed::OtherOrigin if home => Unfollowed::Transport,
                why => why,
            };
            response.report_mut().leaves_unfollowed(&to, why);
        }
    }

    /// The name in place of an address of its. What a client that follows redirects was led to has
    /// a name of its own.
    fn name(&self, url: &mut Url) {
        if self.named.is_empty() {
            return;
        }
        let origin = url.origin();
        if self.named.iter().any(|endpoint| endpoint.origin().url().origin() == origin) {
            readdress(url, self.request.url());
        }
    }
}

/// What tells whether an attempt waits for a stream, where it can be made to.
fn may_wait<'a>(attempt: &'a OnItsWay, upstream: &Upstream) -> Option<&'a Opened> {
    let attempt = faulted::real(attempt)?;
    attempt.opened().filter(|_| upstream.protocol().may_share() && !attempt.is_alone())
}

/// Points a URL at another origin. None of these can fail between origins with hosts, which all of
/// ours are.
fn readdress(url: &mut Url, origin: &Url) {
    let _ = url.set_scheme(origin.scheme());
    let _ = url.set_host(origin.host_str());
    let _ = url.set_port(origin.port());
}

/// Another of the same request, by hand: `Request::try_clone` costs four times the instructions,
/// because it also clones the map of extensions, in which reqwest keeps a timeout that we have
/// already taken over.
fn copy(request: &Request, body: Option<Body>) -> Request {
    let mut copy = Request::new(request.method().clone(), request.url().clone());
    if !request.headers().is_empty() {
        copy.headers_mut().clone_from(request.headers());
    }
    *copy.version_mut() = request.version();
    *copy.body_mut() = body;
    copy
}

impl Exchange for ReqwestExchange {
    type Answer = reqwest::Response;
    type Fault = Fault;
    type Future = OnItsWay;
    type Head = (Url, http::response::Parts);
    type Body = Body;
    type Response = Response;

    #[inline]
    fn address(&self) -> Result<Address<'_>, Error> {
        let request = &self.request;
        Ok(Address {
            authority: Authority::of_url(request.url()),
            method: request.method(),
            path: request.url().path(),
            headers: request.headers(),
        })
    }

    #[inline]
    fn is_replayable(&self) -> bool {
        self.body.is_replayable()
    }

    fn request(&self) -> Option<Attempt<'_>> {
        (!matches!(self.body, Payload::Gone)).then(|| Attempt {
            call: CallId::NONE,
            number: 0,
            method: self.request.method(),
            url: self.request.url().as_str().into(),
            headers: self.request.headers(),
            body: self.body.bytes(),
        })
    }

    #[inline]
    fn launch(&mut self, outbound: Outbound, departure: Departure<'_, '_>) -> Option<Self::Future> {
        // A stream is sent once; one that outgrew its buffer was, and what is left of it is no
        // request.
        if outbound.number > 1 && !self.is_replayable() {
            return None;
        }
        let body = if outbound.last { None } else { self.body.again() };
        let mut request = match body {
            Some(body) => copy(&self.request, body.into_body()),
            None => self.take()?,
        };
        if let Some(target) = &outbound.target {
            if target.host.is_some() {
                self.named.push(Arc::clone(&target.endpoint));
            }
            readdress(request.url_mut(), target.endpoint.origin().url());
        }
        let opened = match self.teller(request.method(), departure.upstream) {
            Some(kind) => {
                // What is asked is answered with a second more.
                let (idle, now) = (nanos(POOL_IDLE.saturating_sub(Duration::from_secs(1))), departure.now);
                let endpoint = outbound.target.as_ref().map(|target| &*target.endpoint);
                let cold = !departure.upstream.has_served_within(endpoint, idle, now);
                let (opened, nothing) = Opened::by(kind, cold);
                *request.body_mut() = Some(Body::wrap(nothing));
                Some(opened)
            }
            None if self.may_wait_unseen(request.method(), departure.upstream) => {
                Some(Opened::unseen(departure.now))
            }
            None => None,
        };
        // reqwest adds headers of its own, for which a clone has no room.
        outbound.apply_one_by_one(request.headers_mut(), departure.now);
        let fresh = if self.leaves { self.facts.fresh() } else { None };
        let (mut over, alone) = (fresh.unwrap_or(&self.client), fresh.is_some());
        let drawn = self.facts.faults.draw(|| Asked {
            method: request.method(),
            path: request.url().path(),
            host: request.url().host_str(),
            port: request.url().port_or_known_default(),
            query: request.url().query(),
            headers: request.headers(),
            body: request.body().and_then(Body::as_bytes),
        });
        let url = || self.request.url().clone();
        Some(drawn.onto(Hopping::new(over.call(request), opened, alone, self.stays), url))
    }

    fn end(end: &Result<Self::Answer, Self::Fault>) -> Ended<'_> {
        match end {
            Ok(response) => Ended::Response(response.status(), response.headers()),
            Err(fault) => Ended::Error(&*fault.error),
        }
    }

    #[inline]
    fn evidence(&mut self, end: &Result<Self::Answer, Self::Fault>, upstream: Option<&Upstream>) -> Evidence {
        let fault = match end {
            Ok(response) => {
                if let Some(upstream) = upstream
                    && !faulted::is_made(response.extensions())
                {
                    upstream.protocol().answered(response.version());
                }
                return Evidence::DIRECT;
            }
            Err(fault) => fault,
        };
        self.leaves |= !fault.hopped && is_dead_connection(&*fault.error);
        let sent = if fault.hopped || !self.facts.direct {
            Sent::Unknown
        } else if self.content || fault.stream {
            Sent::OwnStream
        } else {
            Sent::Direct
        };
        // Of a connection that was used before, reqwest's pool doesn't tell: it repeats the request
        // itself.
        Evidence { sent, ..Evidence::default() }
    }

    fn expired(&mut self, future: Pin<&mut Self::Future>, overdue: Overdue<'_>, _: bool) -> Expired {
        // Whether its connection was mute isn't known; and over HTTP/1.1 the next one in the pool
        // may be, too.
        self.leaves = true;
        // Nobody knows which connection those were on that shared one.
        let shared =
            !faulted::real(&*future).is_some_and(Hopping::is_alone) && overdue.upstream.protocol().shares();
        let cause = if shared { FailureCause::Lost } else { FailureCause::Own };
        let waits = overdue.alive && may_wait(&future, overdue.upstream).is_some_and(Opened::waits);
        Expired { cause, reached: if waits { Reached::Line } else { Reached::Server } }
    }

    /// It may have had to wait for a connection as well, whose making has a bound of its own. Only
    /// where others are answered is it sure that the server can be reached.
    fn begun(&self, future: &Self::Future, overdue: Overdue<'_>) -> Tick {
        match may_wait(future, overdue.upstream) {
            Some(opened) if overdue.alive => opened.begun(overdue.since, overdue.now),
            _ => overdue.since,
        }
    }

    fn version(answer: &Self::Answer) -> http::Version {
        answer.version()
    }

    fn body_failed(&mut self) {
        self.leaves = true;
    }

    fn may_be_grpc(answer: &Self::Answer) -> bool {
        answer.version() == http::Version::HTTP_2 && answer.content_length() == Some(0)
    }

    #[cfg(feature = "grpc")]
    const SHOWS_TRAILERS: bool = false; // `Response::chunk` doesn't.

    #[cfg(feature = "grpc")]
    fn headers(answer: &Self::Answer) -> &http::HeaderMap {
        answer.headers()
    }

    fn is_unending(answer: &Self::Answer) -> bool {
        announces_stream(answer.status(), answer.headers())
    }

    #[inline]
    fn expected(&self, answer: &Self::Answer) -> Expected {
        let hint = answer.content_length().map(SizeHint::with_exact).unwrap_or_default();
        Expected::at_head(self.request.method() == Method::HEAD, answer.status(), &hint)
    }

    fn dismantle(answer: Self::Answer) -> (Self::Head, Self::Body) {
        let url = answer.url().clone();
        let (parts, body) = http::Response::<Body>::from(answer).into_parts();
        ((url, parts), body)
    }

    #[inline]
    fn seal(&mut self, answer: Self::Answer, guard: Guard) -> Self::Response {
        let expected = self.expected(&answer);
        let answer = if self.named.is_empty() { answer } else { self.under_its_name(answer) };
        let redirects = answer.status().is_redirection();
        let mut response = Response::live(answer, guard, expected, self.facts.max_body);
        if redirects {
            self.left_unfollowed(&mut response);
        }
        response
    }

    fn reassemble(
        &mut self,
        (mut url, parts): Self::Head,
        body: KeptBody,
        report: CallReport,
    ) -> Self::Response {
        self.name(&mut url);
        let mut response =
            Response::kept(assemble(url, parts, Body::wrap(body)), report, self.facts.max_body);
        self.left_unfollowed(&mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use bytes::Bytes;
    use http::Version;

    use super::*;
    use crate::endpoints::{Endpoints, Resolve, Resolving};
    use crate::engine::{Core, Setup};
    use crate::faulted::Injector;
    use crate::policy::plan::Plan;
    use crate::policy::set::PlanSet;
    use crate::time::Tick;

    fn exchange(request: Request) -> ReqwestExchange {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        ReqwestExchange::new(
            (client, ReqwestFacts::new(true, usize::MAX, None, Injector::none()).redirecting(None, false)),
            request,
            None,
            false,
        )
    }

    fn post(body: impl Into<Body>) -> Request {
        let mut request = Request::new(Method::POST, "http://users:3000/users?x=1".parse().unwrap());
        request.headers_mut().insert("x-a", "1".parse().unwrap());
        *request.version_mut() = Version::HTTP_2;
        *request.body_mut() = Some(body.into());
        request
    }

    #[test]
    fn a_request_made_from_parts_is_the_one_that_was_given() {
        let given = post("hello");
        let exchange = exchange(post("hello"));
        let made = || copy(&exchange.request, exchange.body.again().unwrap().into_body());
        for made in [made(), made()] {
            assert_eq!(made.method(), given.method());
            assert_eq!(made.url(), given.url());
            assert_eq!(made.headers(), given.headers());
            assert_eq!(made.version(), given.version());
            assert_eq!(made.body().unwrap().as_bytes(), given.body().unwrap().as_bytes());
        }
    }

    #[test]
    fn a_url_is_pointed_at_another_origin_and_keeps_the_rest() {
        for (url, origin, expected) in [
            ("http://users/a%20b?x=1#f", "http://10.0.0.1:3000", "http://10.0.0.1:3000/a%20b?x=1#f"),
            ("http://users:3000/", "https://[::1]", "https://[::1]/"),
            ("https://users:8443/x", "http://b.internal:80", "http://b.internal/x"),
        ] {
            let mut url: Url = url.parse().unwrap();
            readdress(&mut url, &origin.parse().unwrap());
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn an_empty_body_stays_a_body() {
        let exchange = exchange(post(""));
        assert_eq!(exchange.body.again().unwrap().into_body().unwrap().as_bytes(), Some(&b""[..]));
    }

    #[test]
    fn a_stream_is_sent_once() {
        let stream = Body::wrap(KeptBody { bytes: Bytes::from_static(b"x"), cut: false, trailers: None });
        let mut exchange = exchange(post(stream));
        assert!(!exchange.is_replayable());
        let outbound = |number| Outbound {
            trigger: crate::Trigger::First,
            number,
            last: true,
            until: Tick::NEVER,
            deadline_header: None,
            counts: false,
            usual: false,
            target: None,
            headers: None,
            #[cfg(feature = "grpc")]
            grpc: None,
        };
        let core = Core::of(Setup::default(), PlanSet::of(Plan::standard()));
        let upstream = &core.upstream_of(&exchange.address().unwrap().authority);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut launch =
            |number| exchange.launch(outbound(number), Departure { upstream, cx, now: Tick::ZERO }).is_some();
        assert_eq!([1, 2].map(&mut launch), [true, false]);
    }

    /// Every name is at this address.
    struct At(std::net::SocketAddr);

    impl Resolve for At {
        fn resolve(&self, _host: &str, _port: u16) -> Resolving {
            let address = self.0;
            Box::pin(async move { Ok(vec![address]) })
        }
    }

    /// It showed the other's path under the name that was called.
    #[tokio::test]
    async fn an_answer_from_elsewhere_keeps_its_own_url() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let other = format!("http://{}/elsewhere", elsewhere.local_addr().unwrap());
        let moved = format!("HTTP/1.1 302 Found\r\nlocation: {other}\r\ncontent-length: 0\r\n\r\n");
        let well = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_owned();
        for (listener, answer) in [(listener, moved), (elsewhere, well)] {
            tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 4096]).await.unwrap();
                socket.write_all(answer.as_bytes()).await.unwrap();
            });
        }
        let dns = Endpoints::dns("http://users.internal:3000").resolver(At(address));
        let follows = reqwest::Client::builder().no_proxy().build().unwrap();
        let client = crate::Client::builder().endpoints("http://users.internal:3000", dns);
        let client = client.build_over(follows).unwrap();
        let response = client.get("http://users.internal:3000/users/7").send().await.unwrap();
        assert_eq!(response.url().as_str(), other);
    }

    /// It showed the address, which nobody had asked for.
    #[tokio::test]
    async fn an_answer_from_an_address_of_a_name_is_the_names() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = socket.read(&mut request).await.unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
            String::from_utf8(request[..read].to_vec()).unwrap()
        });
        let dns = Endpoints::dns("http://users.internal:3000").resolver(At(address));
        let client = crate::Client::builder().endpoints("http://users.internal:3000", dns).build().unwrap();
        let response = client.get("http://users.internal:3000/users/7?x=1").send().await.unwrap();
        assert_eq!(response.url().as_str(), "http://users.internal:3000/users/7?x=1");
        assert_eq!(response.text().await.unwrap(), "hi");
        let request = server.await.unwrap().to_lowercase();
        assert!(request.contains("\r\nhost: users.internal:3000\r\n"), "{request}");
    }
}
