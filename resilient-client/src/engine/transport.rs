//! What a client's requests begin with, the connections of its transport, and calls without one.

#[cfg(feature = "hyper")]
use std::sync::Arc;

use super::{Core, Setup};
#[cfg(any(feature = "admin", feature = "hyper"))]
use crate::connections::Counters;
use crate::defaults::Defaults;
use crate::error::{Error, ErrorKind};
use crate::policy::plan::Plan;
use crate::policy::set::PlanSet;

impl Core {
    /// What requests begin with.
    #[inline]
    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// One whose transport couldn't be made, so that every call is told why.
    pub(crate) fn unmade(why: &Error) -> Self {
        let mut text = why.to_string();
        let mut cause = std::error::Error::source(why);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self { unmade: Some(text), ..Self::of(Setup::default(), PlanSet::of(Plan::standard())) }
    }

    /// The error of a call without a transport.
    #[cold]
    pub(crate) fn no_transport(&self) -> Error {
        Error::new(ErrorKind::Config).says(self.unmade.as_deref().unwrap_or("there is no transport"))
    }

    /// The same, whose transport counts its connections here.
    #[cfg(feature = "hyper")]
    pub(crate) fn connecting(self, connections: Arc<Counters>) -> Self {
        Self { connections: Some(connections), ..self }
    }

    /// What became of its connections; `None` where its transport doesn't tell.
    #[cfg(any(feature = "admin", feature = "hyper"))]
    pub(crate) fn connections(&self) -> Option<crate::Connections> {
        self.connections.as_deref().map(Counters::read)
    }
}
