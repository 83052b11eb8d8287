//! Redirects, which reqwest follows inside one attempt.
//!
//! A server that answers a POST with a redirect has processed it. If the hop then can't connect,
//! reqwest's error looks like one of a request that was never sent, and repeating the POST would
//! execute it twice. So an attempt that has hopped is never taken for unprocessed.
//!
//! That needs the policy to be ours. Of a client that was given, or whose policy was replaced,
//! nobody can tell whether it follows redirects, since its errors name the first URL whatever hop
//! they come from: so none of its errors proves anything.
//!
//! Only redirects to the same origin are followed here: another one isn't the upstream whose
//! breaker and budget this call is under, and gets none of its credentials. Anything else is handed
//! to the caller as it came, or to the [trail](crate::call::trail) where [`Redirects`] are set:
//! then none is followed here.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use reqwest::redirect::Policy;

use super::empty_body::Opened;
use crate::error::BoxError;
use crate::faulted::Injector;
use crate::outcome::classify::evidence::{AfterRedirect, Fault};
use crate::redirects::{Redirects, Unfollowed};

/// As many as reqwest allows by itself.
const MOST: usize = 10;

thread_local! {
    /// Redirects of the attempt that is polled are for the engine to follow.
    static STAYS: Cell<bool> = const { Cell::new(false) };
    /// Set by the policy, which runs inside the poll of the attempt it belongs to.
    static HOPPED: Cell<bool> = const { Cell::new(false) };
}

/// Says whether a policy is still there.
pub(crate) struct Witness(Arc<()>);

impl Witness {
    /// Whether the policy that it was made with is in force, and no other has taken its place.
    pub(crate) fn is_in_force(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Follows redirects to the same origin, ten at most.
pub(crate) fn same_origin() -> (Policy, Witness) {
    let witness = Witness(Arc::new(()));
    let there = Arc::clone(&witness.0);
    let policy = Policy::custom(move |attempt| {
        let _ = &there;
        if STAYS.get() {
            return attempt.stop();
        }
        if attempt.previous().len() > MOST {
            return attempt.error("too many redirects");
        }
        let from = attempt.previous().last().map(reqwest::Url::origin);
        if from.is_none_or(|from| from != attempt.url().origin()) {
            return attempt.stop();
        }
        HOPPED.set(true);
        attempt.follow()
    });
    (policy, witness)
}

/// What is known of the reqwest client below.
#[derive(Debug)]
pub(crate) struct ReqwestFacts {
    /// Whether each redirect that it follows is seen here. If it isn't, an error may be a hop's.
    pub(crate) direct: bool,
    /// The most that is read of a response's body at once.
    pub(crate) max_body: usize,
    /// Which redirects are followed above the calls; `None` where it is left to the transport.
    pub(crate) redirects: Option<Redirects>,
    /// Why the transport follows no redirect to another origin.
    pub(crate) unfollowed: Unfollowed,
    /// A second client of the same configuration, whose pool keeps nothing; one that was given has
    /// none.
    fresh: Option<reqwest::Client>,
    /// Faults on purpose.
    pub(crate) faults: Injector,
}

impl ReqwestFacts {
    pub(crate) fn new(
        direct: bool,
        max_body: usize,
        fresh: Option<reqwest::Client>,
        faults: Injector,
    ) -> Self {
        let unfollowed = if direct { Unfollowed::OtherOrigin } else { Unfollowed::Transport };
        Self { direct, max_body, redirects: None, unfollowed, fresh, faults }
    }

    /// With what was said of redirects: which are followed, and that the transport follows none.
    pub(crate) fn redirecting(mut self, redirects: Option<Redirects>, off: bool) -> Arc<Self> {
        // What answers in the transport's place follows none, and a test is to see what will be.
        let in_its_place = self.direct && !off && self.faults.is_scripted();
        self.redirects = redirects.or_else(|| in_its_place.then(Redirects::same_origin));
        if off {
            self.unfollowed = Unfollowed::Off;
        }
        Arc::new(self)
    }

    /// The client whose every request has a connection of its own, over HTTP/2 too, where there is
    /// one: reqwest's pool gives out connections that are no more, and offers no way to leave one.
    /// Its connections are used once, so that there are no more of them than such attempts in
    /// flight.
    pub(crate) fn fresh(&self) -> Option<&reqwest::Client> {
        self.fresh.as_ref()
    }
}

pin_project! {
    /// An attempt that remembers whether it hopped.
    pub(crate) struct Hopping<F> {
        #[pin]
        future: F,
        opened: Option<Opened>,
        hopped: bool,
        // Its connection is its own.
        alone: bool,
        // It follows no redirect.
        stays: bool,
    }
}

impl<F> Hopping<F> {
    pub(crate) fn new(future: F, opened: Option<Opened>, alone: bool, stays: bool) -> Self {
        Self { future, opened, hopped: false, alone, stays }
    }

    /// What tells when it got a stream, if anything does.
    pub(crate) fn opened(&self) -> Option<&Opened> {
        self.opened.as_ref()
    }

    /// Whether it has a connection of its own for sure.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }
}

impl<F, T> Future for Hopping<F>
where
    F: Future<Output = Result<T, reqwest::Error>>,
{
    type Output = Result<T, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        HOPPED.set(false);
        STAYS.set(*this.stays);
        let polled = this.future.poll(cx);
        *this.hopped |= HOPPED.replace(false);
        let hopped = *this.hopped;
        let stream = || this.opened.as_ref().is_some_and(Opened::was);
        Poll::Ready(ready!(polled).map_err(|error| {
            let error = error.without_url();
            let after = hopped && !error.is_redirect();
            let error: BoxError = if after { Box::new(AfterRedirect(error)) } else { Box::new(error) };
            Fault { error, stream: stream(), hopped }
        }))
    }
}
