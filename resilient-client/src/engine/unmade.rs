//! What calls share that have no transport.

use super::{Core, Setup};
use crate::error::{Error, ErrorKind};
use crate::policy::plan::Plan;
use crate::policy::set::PlanSet;

impl Core {
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
}
