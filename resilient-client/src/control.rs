//! A hand on the breakers that a client holds.

use std::fmt;
use std::sync::Arc;

use crate::engine::Core;
use crate::error::Error;
use crate::invalid::Invalid;
use crate::origin::Origin;
use crate::policy::breaker::{Control, Snapshot, Transition};
use crate::time;

/// The circuit breaker of one upstream of a client, or of one of its endpoints, for an operator's
/// hand. From [`Client::breaker`](crate::Client::breaker) and its like.
///
/// What is done here is done to the breaker that calls ask, tells the client's observers as any
/// [transition](crate::event::Event::BreakerTransition) does, and outlasts reloads: new rules don't
/// undo it. An upstream whose breaker somebody holds is never forgotten.
///
/// ```
/// # fn run() -> Result<(), resilient_client::Error> {
/// use resilient_client::{Client, Control};
///
/// let client = Client::builder().build()?;
/// let users = client.breaker("http://users:3000")?;
/// users.force_open()?; // maintenance: every call is refused at once
/// users.enable()?; // and back
/// assert!(users.control(Control::Enable)?.is_none(), "nothing is forced any more");
/// # Ok(())
/// # }
/// # run().unwrap();
/// ```
#[derive(Clone)]
#[must_use = "it does nothing until it is told to"]
pub struct BreakerControl {
    core: Arc<Core>,
    upstream: Arc<str>,
    endpoint: Option<Origin>,
}

impl BreakerControl {
    pub(crate) fn new(core: Arc<Core>, upstream: &str) -> Result<Self, Error> {
        let control = Self { core, upstream: upstream.into(), endpoint: None };
        control.snapshot()?;
        Ok(control)
    }

    /// The breaker of one endpoint, by its origin, such as `http://10.0.0.1:3000`. The routes and
    /// keys of a name share its endpoints.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the upstream has no such endpoint now.
    pub fn endpoint(&self, origin: &str) -> Result<Self, Error> {
        let origin = Origin::parse(origin).map_err(Error::config)?;
        let control = Self { endpoint: Some(origin), ..self.clone() };
        control.snapshot()?;
        Ok(control)
    }

    /// Does as an operator says. `None` when there was nothing to change, or the state is as it
    /// was.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the upstream has no place among those
    /// the client keeps (see [`max_upstreams`](crate::ClientBuilder::max_upstreams)), or has been
    /// forgotten and is no origin, or the endpoint is gone. Nothing has changed then.
    pub fn control(&self, control: Control) -> Result<Option<Transition>, Error> {
        let upstream = self.core.upstream_named(&self.upstream).map_err(Error::config)?;
        match &self.endpoint {
            None => Ok(upstream.control(control)),
            Some(origin) => upstream.control_endpoint(origin, control).map_err(|_| self.gone()),
        }
    }

    /// The breaker's state and counts now.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let upstream = self.core.upstream_named(&self.upstream).map_err(Error::config)?;
        let snapshot = upstream.snapshot(time::now());
        match &self.endpoint {
            None => Ok(snapshot.breaker),
            Some(origin) => {
                let found = snapshot.endpoints.into_iter().find(|endpoint| endpoint.origin == *origin);
                found.map(|endpoint| endpoint.breaker).ok_or_else(|| self.gone())
            }
        }
    }

    /// Rejects every call from now on: [`Control::ForceOpen`].
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn force_open(&self) -> Result<Option<Transition>, Error> {
        self.control(Control::ForceOpen)
    }

    /// Admits every call from now on, and counts it: [`Control::ForceClosed`].
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn force_closed(&self) -> Result<Option<Transition>, Error> {
        self.control(Control::ForceClosed)
    }

    /// Admits every call from now on, and counts nothing: [`Control::Disable`].
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn disable(&self) -> Result<Option<Transition>, Error> {
        self.control(Control::Disable)
    }

    /// Rejects nothing from now on, and goes on judging: [`Control::Observe`].
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn observe(&self) -> Result<Option<Transition>, Error> {
        self.control(Control::Observe)
    }

    /// Lifts any of these: [`Control::Enable`].
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn enable(&self) -> Result<Option<Transition>, Error> {
        self.control(Control::Enable)
    }

    /// Closes it and forgets everything: [`Control::Reset`].
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub fn reset(&self) -> Result<Option<Transition>, Error> {
        self.control(Control::Reset)
    }

    fn gone(&self) -> Error {
        let origin = self.endpoint.as_ref().map_or("", Origin::as_str);
        Error::config(Invalid::new("origin", format!("{origin} is no endpoint now")).of(&self.upstream))
    }
}

impl fmt::Debug for BreakerControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerControl")
            .field("upstream", &self.upstream)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
