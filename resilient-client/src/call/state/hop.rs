//! By what a call binds what comes after its head: its stream, and the call it is redirected to.

use super::CallState;
use crate::call::exchange::Exchange;
use crate::call::options::Hop;
use crate::time::Tick;

impl<X: Exchange> CallState<X> {
    /// Until when a body may take that has no end in sight. Of a gRPC call its caller may have said
    /// so, and its server been told.
    #[cold]
    #[cfg_attr(not(feature = "grpc"), allow(clippy::unused_self, reason = "nobody says"))]
    pub(super) fn streams_until(&self) -> Tick {
        #[cfg(feature = "grpc")]
        return self.settings.beyond.until(self.ledger.terms().deadline);
        #[cfg(not(feature = "grpc"))]
        Tick::NEVER
    }

    /// What a call is bound by that this one is redirected to: its time is this one's.
    #[cold]
    pub(in crate::call) fn hop(&self) -> Hop {
        Hop {
            until: self.ledger.terms().deadline,
            #[cfg(feature = "grpc")]
            said: self.streams_until(),
            abroad: false,
        }
    }
}
