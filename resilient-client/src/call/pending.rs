//! A call as its caller holds it: to be made, or refused before.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::future::Call;
use super::options::{CallOptions, Hop};
use crate::call::exchange::Exchange;
use crate::engine::Core;
use crate::error::Error;

pin_project! {
    /// A call, or the error that keeps it from being made.
    #[project = PendingProj]
    pub(crate) enum Pending<X: Exchange> {
        Failed { error: Option<Error> },
        Calling { #[pin] call: Call<X> },
    }
}

impl<X: Exchange> Pending<X> {
    #[inline]
    pub(crate) fn new(core: Arc<Core>, exchange: X, options: CallOptions) -> Self {
        Self::Calling { call: Call::new(core, exchange, options) }
    }

    /// See [`Call::hop`].
    pub(crate) fn hop(&self) -> Option<Hop> {
        match self {
            Self::Failed { .. } => None,
            Self::Calling { call } => call.hop(),
        }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self::Failed { error: Some(error) }
    }
}

impl<X: Exchange> Future for Pending<X> {
    type Output = Result<X::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            PendingProj::Calling { call } => call.poll(cx),
            PendingProj::Failed { error } => {
                error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
            }
        }
    }
}
