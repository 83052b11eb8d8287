//! A chain of calls, each of which follows where the one before it was redirected.
//!
//! What is [followed](crate::redirects) is decided here, for every door that follows any: a call
//! that may be redirected has a trail, which keeps what its next request is made from, and the
//! reports of those before it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use url::Url;

use super::exchange::Exchange;
use super::options::{CallOptions, Hop};
use super::pending::Pending;
use crate::authority::Authority;
use crate::engine::{Address, Core};
use crate::error::{Error, ErrorKind};
use crate::outcome::report::{AttemptReport, CallReport};
use crate::redirects::{self, Redirects, Unfollowed};
use crate::time;
use crate::upstream::entered::Entered;

/// What a request's body can be made from again.
#[derive(Clone, Debug)]
pub(crate) enum Carried {
    Nothing,
    Bytes(Bytes),
    Stream,
}

/// A request's head, whatever the transport.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) version: Version,
}

/// The request that follows a redirect, and how.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) head: Head,
    pub(crate) body: Option<Bytes>,
    pub(crate) options: CallOptions,
}

/// What came of a call that may be redirected.
#[derive(Debug)]
pub(crate) enum Turn {
    Follow(Box<Next>),
    /// It is the answer.
    Stay,
}

/// A call that may be redirected.
#[derive(Debug)]
pub(crate) struct Trail {
    rules: Redirects,
    /// The request that was sent last.
    head: Head,
    body: Carried,
    options: CallOptions,
    /// What bound the call that was answered last.
    bounds: Option<Hop>,
    /// The calls that led here.
    earlier: Vec<CallReport>,
    /// Keeps a drain waiting from the end of a call to the beginning of the next.
    between: Option<Entered>,
}

/// A call of one kind that follows redirects: how it reads an answer, and makes the next call.
pub(crate) trait Follow<X: Exchange> {
    fn trail(&mut self) -> &mut Trail;

    /// An answer's report, as its caller will find it.
    fn report(response: &mut X::Response) -> &mut CallReport;

    /// What follows an answer, as [`Trail::turn`] has it.
    fn turn(&mut self, response: &X::Response, report: &mut CallReport) -> Result<Turn, Error>;

    /// The call that follows.
    fn call(&self, next: Next) -> Result<Pending<X>, Error>;

    /// Polls the call that is under way, and those that follow it. `hops` hears of each.
    #[cold]
    fn poll(
        &mut self,
        mut call: Pin<&mut Pending<X>>,
        cx: &mut Context<'_>,
        hops: impl Fn(),
    ) -> Poll<Result<X::Response, Error>> {
        loop {
            let polled = call.as_mut().poll(cx);
            self.trail().goes_on();
            let mut response = match ready!(polled) {
                Ok(response) => response,
                Err(error) => return Poll::Ready(Err(self.trail().ended(error))),
            };
            let mut report = Self::report(&mut response).clone();
            self.trail().bounds = call.hop();
            let next = match self.turn(&response, &mut report) {
                Ok(Turn::Follow(next)) => *next,
                Ok(Turn::Stay) => {
                    *Self::report(&mut response) = report;
                    return Poll::Ready(Ok(response));
                }
                Err(error) => return Poll::Ready(Err(error)),
            };
            drop(response);
            match self.call(next) {
                Ok(next) => call.set(next),
                Err(error) => return Poll::Ready(Err(self.trail().ended(error.with_report(report)))),
            }
            hops();
        }
    }
}

/// An answer, as far as it may lead elsewhere.
pub(crate) struct Answered<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    /// Where it came from.
    pub(crate) url: &'a Url,
}

impl Trail {
    pub(crate) fn new(rules: Redirects, head: Head, body: Carried, options: CallOptions) -> Self {
        Self { rules, head, body, options, bounds: None, earlier: Vec::new(), between: None }
    }

    /// What follows an answer, whose report is `report`. `clean`: nothing secret is added to a
    /// request on its way, or it can be left out.
    ///
    /// # Errors
    /// [`ErrorKind::Redirect`] when as many were followed as may be.
    pub(crate) fn turn(
        &mut self,
        core: &Core,
        answered: &Answered<'_>,
        report: &mut CallReport,
        clean: impl FnOnce() -> bool,
    ) -> Result<Turn, Error> {
        let Some(mut to) = redirects::target(answered.status, answered.headers, answered.url) else {
            return self.stays(report, None);
        };
        // Credentials in it are the server's idea, and nobody's to send.
        let _ = (to.set_username(""), to.set_password(None));
        // A transport that follows by itself may have been led elsewhere: nobody's home.
        let led = !is_home(&self.head.url, answered.url, report);
        let foreign = led || to.origin() != answered.url.origin();
        let mut head = self.head.clone();
        let keeps = redirects::rewrite(answered.status, &mut head.method, &mut head.headers);
        let why = if !matches!(to.scheme(), "http" | "https") {
            Some(Unfollowed::Scheme)
        } else if let Some(why) = self.rules.refuse(answered.url, &to) {
            Some(why)
        } else if let Some(why) = led.then(|| self.rules.refuse(&self.head.url, &to)).flatten() {
            Some(why)
        } else if led && keeps && !matches!(self.head.method, Method::GET | Method::HEAD) {
            // It may have gone on as a `GET` without the body: nobody knows what was answered.
            Some(Unfollowed::Transport)
        } else if keeps && matches!(self.body, Carried::Stream) {
            Some(Unfollowed::BodyIsStream)
        } else {
            (foreign && !clean()).then_some(Unfollowed::Credentials)
        };
        if let Some(why) = why {
            return self.stays(report, Some((&to, why)));
        }
        if self.earlier.len() >= self.rules.most() {
            let error = Error::new(ErrorKind::Redirect).says(format!("more than {}", self.rules.most()));
            return Err(self.ended(error.with_report(report.clone())));
        }
        if foreign {
            redirects::leave_home(&mut head.headers);
        }
        if !keeps {
            self.body = Carried::Nothing;
        }
        // The time of all hops is that of the call that was made.
        let hop = self.options.hop().or(self.bounds).map(|hop| Hop { abroad: hop.abroad || foreign, ..hop });
        self.options.rare.get_or_insert_default().hop = hop;
        self.earlier.push(report.clone());
        let entered = core.enter(&self.address(), self.options.key.as_ref(), time::now(), true);
        self.between = entered.ok().map(|(upstream, _)| upstream);
        head.url = to;
        self.head = head.clone();
        let body = if let Carried::Bytes(bytes) = &self.body { Some(bytes.clone()) } else { None };
        Ok(Turn::Follow(Box::new(Next { head, body, options: self.options.clone() })))
    }

    fn address(&self) -> Address<'_> {
        let Head { method, url, headers, .. } = &self.head;
        Address { authority: Authority::of_url(url), method, path: url.path(), headers }
    }

    #[allow(clippy::unnecessary_wraps, reason = "one of its caller's ends")]
    fn stays(&mut self, report: &mut CallReport, to: Option<(&Url, Unfollowed)>) -> Result<Turn, Error> {
        if let Some((to, why)) = to {
            report.leaves_unfollowed(to, why);
        }
        self.led_to(report);
        Ok(Turn::Stay)
    }

    /// The next call has begun, or waits to.
    fn goes_on(&mut self) {
        self.between = None;
    }

    /// A report says which calls led to it.
    fn led_to(&mut self, report: &mut CallReport) {
        self.between = None;
        if !self.earlier.is_empty() {
            report.follows(std::mem::take(&mut self.earlier));
        }
    }

    /// An error says it, too.
    fn ended(&mut self, error: Error) -> Error {
        match error.report().cloned() {
            Some(mut report) => {
                self.led_to(&mut report);
                error.with_report(report)
            }
            // The hop never began. Those before it were sent.
            None => match self.earlier.pop() {
                Some(mut last) => {
                    self.led_to(&mut last);
                    error.with_report(last)
                }
                None => error,
            },
        }
    }
}

/// Whether an answer from `answered` is one of whom a request for `called` was sent to: the origin
/// of its URL, or an endpoint behind it.
pub(crate) fn is_home(called: &Url, answered: &Url, report: &CallReport) -> bool {
    let here = |origin: &Url| origin.origin() == answered.origin();
    let mut endpoints = report.attempts().iter().filter_map(AttemptReport::endpoint);
    here(called) || endpoints.any(|endpoint| here(endpoint.url()))
}
