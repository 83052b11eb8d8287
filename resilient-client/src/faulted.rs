//! Where the doors' wires meet faults on purpose. Without the feature there is nothing here, and
//! unless asked for, one look.

#[cfg(all(feature = "fault", feature = "reqwest"))]
pub(crate) use crate::fault::wire::is_made;
#[cfg(all(feature = "fault", feature = "hyper"))]
pub(crate) use crate::fault::wire::real_mut;
#[cfg(feature = "fault")]
pub(crate) use crate::fault::wire::{Answer, Asked, Broke, Faulted, Injector, real};
#[cfg(all(not(feature = "fault"), feature = "reqwest"))]
pub(crate) use off::is_made;
#[cfg(all(not(feature = "fault"), feature = "hyper"))]
pub(crate) use off::real_mut;
#[cfg(not(feature = "fault"))]
pub(crate) use off::{Asked, Faulted, Injector, real};

#[cfg(not(feature = "fault"))]
mod off {
    use std::pin::Pin;

    use http::{Extensions, HeaderMap, Method};

    #[allow(dead_code, reason = "as with the feature")]
    pub(crate) struct Asked<'a> {
        pub(crate) method: &'a Method,
        pub(crate) path: &'a str,
        pub(crate) host: Option<&'a str>,
        pub(crate) port: Option<u16>,
        pub(crate) query: Option<&'a str>,
        pub(crate) headers: &'a HeaderMap,
        pub(crate) body: Option<&'a [u8]>,
    }

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Injector;

    impl Injector {
        pub(crate) const fn none() -> Self {
            Self
        }

        #[cfg(feature = "reqwest")]
        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(crate) fn is_scripted(&self) -> bool {
            false
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
        pub(crate) fn onto<F, T>(self, real: F, _about: impl FnOnce() -> T) -> F {
            real
        }
    }

    pub(crate) trait Attempt<A> {
        type Real;
    }

    impl<F, A> Attempt<A> for F {
        type Real = F;
    }

    /// The attempt itself: one in a box of its own would be moved once more.
    pub(crate) type Faulted<F, A> = <F as Attempt<A>>::Real;

    #[inline]
    #[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(crate) fn real<F>(attempt: &F) -> Option<&F> {
        Some(attempt)
    }

    #[inline]
    #[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
    #[cfg_attr(not(feature = "hyper"), allow(dead_code, reason = "only there an attempt is told"))]
    pub(crate) fn real_mut<F>(attempt: Pin<&mut F>) -> Option<Pin<&mut F>> {
        Some(attempt)
    }

    #[inline]
    pub(crate) fn is_made(_: &Extensions) -> bool {
        false
    }
}
