//! What an attempt beyond the first takes from the policies that bound them.

use crate::policy::budget::Token;

/// What an attempt beyond the first was granted. It is given back when the attempt never sets out.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a grant that is dropped is spent"]
pub(crate) struct Grant {
    pub(crate) token: Token,
    /// It also took its place under the cap on hedges.
    pub(crate) capped: bool,
}
