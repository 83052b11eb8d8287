//! Redirects, which reqwest follows inside one attempt.
//!
//! A server that answers a POST with a redirect has processed it. If the hop then can't connect, reqwest's error looks like
//! one of a request that was never sent, and repeating the POST would execute it twice. So an attempt that has hopped is
//! never taken for unprocessed.
//!
//! Only redirects to the same origin are followed: another one isn't the upstream whose breaker and budget this call is
//! under, and gets none of its credentials. Anything else is handed to the caller as it came.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use reqwest::redirect::Policy;

use crate::error::BoxError;

/// As many as reqwest allows by itself.
const MOST: usize = 10;

thread_local! {
    /// Set by the policy, which runs inside the poll of the attempt it belongs to.
    static HOPPED: Cell<bool> = const { Cell::new(false) };
}

/// Follows redirects to the same origin, ten at most.
pub(crate) fn same_origin() -> Policy {
    Policy::custom(|attempt| {
        if attempt.previous().len() > MOST {
            return attempt.error("too many redirects");
        }
        let from = attempt.previous().last().map(reqwest::Url::origin);
        if from.is_none_or(|from| from != attempt.url().origin()) {
            return attempt.stop();
        }
        HOPPED.set(true);
        attempt.follow()
    })
}

/// An error after a redirect: the request itself was processed.
#[derive(Debug)]
pub(crate) struct AfterRedirect(reqwest::Error);

impl fmt::Display for AfterRedirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed after a redirect")
    }
}

impl std::error::Error for AfterRedirect {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

pin_project! {
    /// An attempt that remembers whether it hopped.
    pub(crate) struct Hopping<F> {
        #[pin]
        future: F,
        hopped: bool,
    }
}

impl<F> Hopping<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future, hopped: false }
    }
}

impl<F, T> Future for Hopping<F>
where
    F: Future<Output = Result<T, reqwest::Error>>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        HOPPED.set(false);
        let polled = this.future.poll(cx);
        *this.hopped |= HOPPED.replace(false);
        let hopped = *this.hopped;
        Poll::Ready(ready!(polled).map_err(|error| -> BoxError {
            let error = error.without_url();
            if hopped && !error.is_redirect() { Box::new(AfterRedirect(error)) } else { Box::new(error) }
        }))
    }
}
