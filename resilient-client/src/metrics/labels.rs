//! Labels, all from bounded sets.
//!
//! A server may answer with any of 900 statuses, and a caller may call any host with any method:
//! each of them that became a label of its own would be kept by whoever records for as long as the
//! process lives.

use http::StatusCode;

use crate::authority::identity::UpstreamIdentity;
use crate::event::CallEnd;
use crate::outcome::{FailureKind, Outcome};

/// The longest host or template that is a label of its own, in bytes. Hosts of DNS aren't longer.
const LONGEST: usize = 253;

/// What stands for all that has no label of its own.
pub(super) const OTHER: &str = "other";

/// Whom it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Whom {
    pub(super) address: String,
    pub(super) port: Option<u16>,
    /// The route's template, without its method.
    pub(super) template: Option<String>,
}

impl Whom {
    /// Keys are no label: calls with keys are their host's.
    pub(super) fn of(upstream: &UpstreamIdentity) -> Self {
        if upstream.is_overflow() {
            return Self::other();
        }
        let known =
            |text: &str| if text.is_empty() || text.len() > LONGEST { OTHER } else { text }.to_owned();
        let template = upstream.route().map(|route| route.split_once(' ').map_or(route, |(_, path)| path));
        Self { address: known(upstream.host()), port: upstream.port(), template: template.map(known) }
    }

    /// Its host, whatever route it is for.
    pub(super) fn of_host(upstream: &UpstreamIdentity) -> Self {
        Self { template: None, ..Self::of(upstream) }
    }

    pub(super) fn other() -> Self {
        Self { address: OTHER.to_owned(), port: None, template: None }
    }
}

/// The statuses that the registry of HTTP has: what else there may be goes by its class.
const KNOWN: [u16; 62] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
    308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422,
    423, 424, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 418,
];
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", OTHER];
/// How many there are: those known, the classes, and none.
pub(super) const STATUSES: usize = KNOWN.len() + CLASSES.len() + 1;

/// A status as a label has it; one of [`STATUSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Status(u8);

impl Status {
    pub(super) const NONE: Self = Self((STATUSES - 1) as u8);

    #[inline]
    pub(super) fn of(status: StatusCode) -> Self {
        let number = usize::from(status.as_u16());
        SLOTS.get(number).map_or(Self((KNOWN.len() + CLASSES.len() - 1) as u8), |slot| Self(*slot))
    }

    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    pub(super) fn text(self) -> Option<String> {
        let index = self.index();
        match KNOWN.get(index) {
            Some(number) => Some(number.to_string()),
            None => CLASSES.get(index - KNOWN.len()).map(|class| (*class).to_owned()),
        }
    }
}

/// Each number's place.
static SLOTS: [u8; 600] = {
    let mut slots = [(KNOWN.len() + CLASSES.len() - 1) as u8; 600];
    let mut number = 100;
    while number < 600 {
        slots[number] = (KNOWN.len() + number / 100 - 1) as u8;
        number += 1;
    }
    let mut index = 0;
    while index < KNOWN.len() {
        slots[KNOWN[index] as usize] = index as u8;
        index += 1;
    }
    slots
};

/// How something ended that took its time: with which status, and as which error unless the status
/// says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) status: Status,
    pub(super) error: Option<&'static str>,
}

impl End {
    /// Of an attempt. The conventions call any 4xx an error of the client's.
    #[inline]
    pub(super) fn of_attempt(outcome: Outcome, status: Option<StatusCode>) -> Self {
        let Some(code) = status else { return Self { status: Status::NONE, error: Some(outcome.as_str()) } };
        let says_it = is_error(code)
            && matches!(
                outcome,
                Outcome::Success | Outcome::Throttled | Outcome::Failure(FailureKind::Status)
            );
        let error = if says_it || outcome == Outcome::Success { None } else { Some(outcome.as_str()) };
        Self { status: Status::of(code), error }
    }

    /// Of a call.
    #[inline]
    pub(super) fn of_call(end: CallEnd) -> Self {
        match end {
            CallEnd::Response(status) => Self { status: Status::of(status), error: None },
            CallEnd::FailedResponse(status, outcome) => Self::of_attempt(outcome, Some(status)),
            CallEnd::Error(kind) => Self { status: Status::NONE, error: Some(kind.as_str()) },
            CallEnd::Dropped => Self { status: Status::NONE, error: Some("dropped") },
        }
    }

    /// What stands in `error.type`.
    pub(super) fn error_type(self) -> Option<String> {
        let by_status = || self.status.text().filter(|text| text.starts_with(['4', '5']));
        self.error.map(str::to_owned).or_else(by_status)
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_the_registry_has_is_its_number_and_any_other_its_class() {
        let text = |number| Status::of(StatusCode::from_u16(number).unwrap()).text().unwrap();
        for number in 100..=999 {
            let status = StatusCode::from_u16(number).unwrap();
            let class = CLASSES[usize::from(number / 100 - 1).min(5)];
            let wanted = if status.canonical_reason().is_some() { status.as_str() } else { class };
            assert_eq!(text(number), wanted);
        }
        assert_eq!(Status::NONE.text(), None);
    }

    #[test]
    fn a_call_is_an_error_where_its_answer_is_one() {
        let of = |status, outcome| {
            let end = End::of_call(CallEnd::answered(StatusCode::from_u16(status).ok(), outcome));
            (end.status.text().unwrap(), end.error_type())
        };
        let is = |status: &str, error: Option<&str>| (status.to_owned(), error.map(str::to_owned));
        let failure = |kind| Outcome::Failure(kind);
        assert_eq!(of(200, failure(FailureKind::Status)), is("200", Some("status")), "gRPC's 14");
        assert_eq!(of(200, failure(FailureKind::Timeout)), is("200", Some("timeout")), "gRPC's 4");
        assert_eq!(of(200, Outcome::Throttled), is("200", Some("throttled")), "gRPC's 8");
        assert_eq!(of(200, Outcome::Success), is("200", None));
        for outcome in [Outcome::Success, Outcome::Ignored, failure(FailureKind::Timeout)] {
            assert_eq!(of(504, outcome), is("504", Some("504")), "the status says it");
        }
    }

    #[test]
    fn an_error_is_named_by_its_status_or_else_by_what_went_wrong() {
        let of =
            |outcome, status: u16| End::of_attempt(outcome, StatusCode::from_u16(status).ok()).error_type();
        let failure = |kind| Outcome::Failure(kind);
        assert_eq!(of(Outcome::Success, 200), None);
        assert_eq!(of(Outcome::Success, 404).as_deref(), Some("404"));
        assert_eq!(of(failure(FailureKind::Status), 503).as_deref(), Some("503"));
        assert_eq!(of(failure(FailureKind::Status), 200).as_deref(), Some("status"));
        assert_eq!(of(failure(FailureKind::Body), 200).as_deref(), Some("body"));
        assert_eq!(of(Outcome::Throttled, 429).as_deref(), Some("429"));
        assert_eq!(of(failure(FailureKind::Timeout), 0).as_deref(), Some("timeout"));
        assert_eq!(of(Outcome::Abandoned, 0).as_deref(), Some("abandoned"));
    }
}
