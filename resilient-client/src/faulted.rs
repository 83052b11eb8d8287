//! Where the doors' wires meet faults on purpose. Without the feature there is nothing here, and unless asked for, one look.

#[cfg(feature = "fault")]
pub(crate) use crate::fault::wire::{Answer, Asked, Broke, Faulted, Injector, Made};
#[cfg(not(feature = "fault"))]
pub(crate) use off::{Asked, Faulted, Injector, Made};

#[cfg(not(feature = "fault"))]
mod off {
    use std::future::Future;
    use std::marker::PhantomData;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http::{HeaderMap, Method};
    use pin_project_lite::pin_project;

    #[allow(dead_code, reason = "as with the feature")]
    pub(crate) struct Asked<'a> {
        pub(crate) method: &'a Method,
        pub(crate) path: &'a str,
        pub(crate) host: Option<&'a str>,
        pub(crate) headers: &'a HeaderMap,
    }

    /// Never made.
    #[derive(Clone, Copy, Debug)]
    #[allow(dead_code, reason = "as with the feature")]
    pub(crate) struct Made;

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Injector;

    impl Injector {
        pub(crate) const fn none() -> Self {
            Self
        }

        #[inline]
        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(crate) fn draw<'a>(&self, _asked: impl FnOnce() -> Asked<'a>) -> Drawn {
            Drawn
        }
    }

    pub(crate) struct Drawn;

    impl Drawn {
        #[inline]
        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(crate) fn onto<F, A, T>(self, real: F, _about: impl FnOnce() -> T) -> Faulted<F, A> {
            Faulted { real, answer: PhantomData }
        }
    }

    pin_project! {
        #[derive(Debug)]
        pub(crate) struct Faulted<F, A> {
            #[pin]
            real: F,
            answer: PhantomData<fn() -> A>,
        }
    }

    impl<F, A> Faulted<F, A> {
        #[inline]
        #[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
        pub(crate) fn real(&self) -> Option<&F> {
            Some(&self.real)
        }

        #[inline]
        #[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
        #[cfg_attr(not(feature = "hyper"), allow(dead_code, reason = "only there an attempt is told"))]
        pub(crate) fn real_mut(self: Pin<&mut Self>) -> Option<Pin<&mut F>> {
            Some(self.project().real)
        }
    }

    impl<F: Future, A> Future for Faulted<F, A> {
        type Output = F::Output;

        #[inline]
        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            self.project().real.poll(cx)
        }
    }
}
