//! What an operator can look into: whatever makes calls.

use std::sync::Arc;

use super::history::History;
use crate::engine::Core;

/// A client or a layer: what [`Admin::client`](super::Admin::client) takes.
pub trait Watchable: sealed::HasCore {}

#[cfg(feature = "reqwest")]
impl Watchable for crate::Client {}
#[cfg(feature = "hyper")]
impl Watchable for crate::hyper::Client {}
impl Watchable for crate::ResilienceLayer {}
impl<S> Watchable for crate::Resilience<S> {}

mod sealed {
    use std::sync::Arc;

    /// What clients and layers share among their clones.
    pub struct Shared(pub(in crate::admin) Arc<crate::engine::Core>);

    pub trait HasCore {
        fn shared(&self) -> Shared;
    }

    #[cfg(feature = "reqwest")]
    impl HasCore for crate::Client {
        fn shared(&self) -> Shared {
            Shared(Arc::clone(self.core()))
        }
    }

    #[cfg(feature = "hyper")]
    impl HasCore for crate::hyper::Client {
        fn shared(&self) -> Shared {
            Shared(Arc::clone(self.core()))
        }
    }

    impl HasCore for crate::ResilienceLayer {
        fn shared(&self) -> Shared {
            Shared(Arc::clone(self.core()))
        }
    }

    impl<S> HasCore for crate::Resilience<S> {
        fn shared(&self) -> Shared {
            Shared(Arc::clone(self.core()))
        }
    }
}

/// One of them, by the name that the operator knows it by.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) name: Arc<str>,
    pub(super) core: Arc<Core>,
    pub(super) history: Arc<History>,
}
