//! A call as its caller holds it: in progress, or refused before it began.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::Call;
use crate::error::Error;
use crate::transport::Exchange;

pin_project! {
    /// A call in progress, or the error that kept it from beginning.
    #[project = PendingProj]
    pub(crate) enum Pending<X: Exchange> {
        Failed { error: Option<Error> },
        Calling { #[pin] call: Call<X> },
    }
}

impl<X: Exchange> Pending<X> {
    pub(crate) fn failed(error: Error) -> Self {
        Self::Failed { error: Some(error) }
    }
}

impl<X: Exchange> Future for Pending<X> {
    type Output = Result<X::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            PendingProj::Failed { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
            PendingProj::Calling { call } => call.poll(cx),
        }
    }
}
