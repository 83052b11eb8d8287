//! What few calls have to report: why there was no other attempt, and where redirects led.

use url::Url;

use super::{CallReport, Decline};
use crate::redact::redacted;
use crate::redirects::Unfollowed;

#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    declined: Vec<Decline>,
    redirected_from: Vec<CallReport>,
    unfollowed: Option<(Url, Unfollowed)>,
}

impl CallReport {
    /// Every decision not to send another attempt, in order.
    pub fn declined(&self) -> &[Decline] {
        self.rare.as_deref().map_or(&[], |rare| &rare.declined)
    }

    /// The calls whose answers led to this one, in order, where redirects to other origins were
    /// followed, or [`Redirects`](crate::Redirects) are set.
    pub fn redirected_from(&self) -> &[CallReport] {
        self.rare.as_deref().map_or(&[], |rare| &rare.redirected_from)
    }

    /// Where the answer redirects to, without credentials, query values and fragment, and why that
    /// wasn't followed.
    pub fn unfollowed(&self) -> Option<(&Url, Unfollowed)> {
        let (url, why) = self.rare.as_deref()?.unfollowed.as_ref()?;
        Some((url, *why))
    }

    pub(crate) fn leaves_unfollowed(&mut self, to: &Url, why: Unfollowed) {
        self.rare.get_or_insert_default().unfollowed = Some((redacted(to), why));
    }

    /// The calls that led here.
    pub(crate) fn follows(&mut self, calls: Vec<Self>) {
        self.rare.get_or_insert_default().redirected_from = calls;
    }

    pub(crate) fn decline(&mut self, why: Decline) {
        self.rare.get_or_insert_default().declined.push(why);
    }
}
