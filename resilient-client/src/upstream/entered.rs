//! A call's stay in an upstream.

use std::ops::Deref;

use std::sync::Arc;

use super::Upstream;
use super::attempt_permit::AttemptPermit;

/// An upstream that a call has [entered](Upstream::enter), and leaves when this is dropped or
/// before.
#[derive(Debug)]
pub(crate) struct Entered {
    upstream: Arc<Upstream>,
    within: bool,
}

impl Entered {
    /// After [`Upstream::enter`] said yes.
    pub(crate) fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream, within: true }
    }

    /// The call is over, unless it was before.
    pub(crate) fn leave(&mut self) {
        if std::mem::take(&mut self.within) {
            self.upstream.leave();
        }
    }

    /// The call isn't over before this attempt is.
    pub(crate) fn leave_with(&mut self, permit: &mut AttemptPermit) {
        if std::mem::take(&mut self.within) {
            permit.end_call();
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Deref for Entered {
    type Target = Arc<Upstream>;

    fn deref(&self) -> &Self::Target {
        &self.upstream
    }
}
