//! Why a policy can't work, with the numbers that say so.

use std::fmt;
use std::time::Duration;

use crate::redact::redacted_text;

/// A setting, or a pair of settings, that can't work.
///
/// `Display` names the setting and every number involved, so the message alone is enough to mend
/// the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    whose: Option<String>,
    setting: &'static str,
    problem: String,
}

impl Invalid {
    /// `setting` is the dotted name a user would look for (`retry.max_attempts`); `problem`
    /// completes "is invalid: ...".
    pub(crate) fn new(setting: &'static str, problem: impl Into<String>) -> Self {
        Self { whose: None, setting, problem: problem.into() }
    }

    /// The same, saying that it is about the policy of `whose`, without what may be secret in a
    /// URL.
    pub(crate) fn of(self, whose: &str) -> Self {
        self.of_named(redacted_text(whose).into_owned())
    }

    /// The same with a name that holds no secret.
    pub(crate) fn of_named(self, whose: String) -> Self {
        Self { whose: Some(whose), ..self }
    }

    /// The same problem of a setting of another name.
    #[cfg(feature = "fault")]
    pub(crate) fn renamed(self, setting: &'static str) -> Self {
        Self { setting, ..self }
    }

    /// Whose setting it is, with its name, and what is wrong with it.
    #[cfg(any(feature = "fault", feature = "admin"))]
    pub(crate) fn field(&self) -> (String, &str) {
        let setting = self.setting;
        let field =
            self.whose.as_ref().map_or_else(|| setting.to_owned(), |whose| format!("{whose}.{setting}"));
        (field, &self.problem)
    }

    /// The dotted name of the setting, such as `breaker.window`.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(whose) = &self.whose {
            write!(f, "{whose}: ")?;
        }
        write!(f, "{} {}", self.setting, self.problem)
    }
}

impl std::error::Error for Invalid {}

/// Ten years: longer waits are typing errors, and shorter ones leave room for every sum we form.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3650 * 3600);

/// `value` in nanoseconds, refusing zero and absurdly long durations.
pub(crate) fn positive(setting: &'static str, value: Duration) -> Result<u64, Invalid> {
    if value.is_zero() {
        return Err(Invalid::new(setting, "must be longer than zero, got 0s"));
    }
    at_most_ten_years(setting, value)
}

/// `value` in nanoseconds, refusing absurdly long durations.
pub(crate) fn at_most_ten_years(setting: &'static str, value: Duration) -> Result<u64, Invalid> {
    if value > LONGEST {
        return Err(Invalid::new(setting, format!("must be at most ten years (315360000s), got {value:?}")));
    }
    Ok(crate::time::nanos(value))
}

/// `value` if it lies in (0, 1].
pub(crate) fn rate(setting: &'static str, value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value <= 1.0 {
        Ok(value)
    } else {
        Err(Invalid::new(setting, format!("must be above 0 and at most 1, got {value}")))
    }
}

/// `value` if it lies in [0, 1].
pub(crate) fn share(setting: &'static str, value: f64) -> Result<f64, Invalid> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new(setting, format!("must be between 0 and 1, got {value}")))
    }
}

/// `value` if it lies in `low..=high`.
pub(crate) fn count(setting: &'static str, value: u32, low: u32, high: u32) -> Result<u32, Invalid> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new(setting, format!("must be between {low} and {high}, got {value}")))
    }
}
