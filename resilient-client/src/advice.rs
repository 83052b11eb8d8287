//! Retry advice: a server tells its caller that repeating the call is pointless.
//!
//! When the last service of a chain fails, each service above it retries, and the attempts
//! multiply: three services with four tries each make 64. A service whose own retries are used up
//! knows better than its caller, and can say so. ("Don't retry at every level": *Site Reliability
//! Engineering*, O'Reilly 2016, chapter 22. gRPC has the same as `grpc-retry-pushback-ms: -1`.)
//!
//! | header | value | who says it | what it means |
//! |---|---|---|---|
//! | [`SHED`] | `deadline` | `DeadlineLayer`, on a 504 | the caller's time was over or too short to begin; says nothing of the server's health |
//! | [`SHED`] | `cut` | `DeadlineLayer`, on a 504 | the work was begun, and cut off when the caller's time was over |
//! | [`RETRY`] | `never` | `RetryAdviceLayer`, on a 5xx, or gRPC's equal of one | a call made for this one had no retry budget left |
//!
//! Our client doesn't repeat a call whose response says `deadline` or `never`, whatever its policy.
//! Work that was cut off is to it what its own attempt timeout is, which ends at the same moment:
//! whichever is heard first, the call goes on in the same way.
//!
//! A handler that knows more says so with [`forbid_retry`]; what the client notes goes the same
//! way.
//!
//! One caveat: it stays with the task. What is noted in a task that a handler spawned isn't heard.

use std::cell::Cell;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Marks a response given in place of work that would have come too late:
/// `x-resilient-client-shed`.
pub const SHED: HeaderName = HeaderName::from_static("x-resilient-client-shed");
/// The value of [`SHED`] for work that wasn't begun.
pub const SHED_DEADLINE: HeaderValue = HeaderValue::from_static("deadline");
/// The value of [`SHED`] for work that was begun and took all the time that its caller had for it.
pub const SHED_CUT: HeaderValue = HeaderValue::from_static("cut");
/// Says whether to try again: `x-resilient-client-retry`.
pub const RETRY: HeaderName = HeaderName::from_static("x-resilient-client-retry");
/// The one value of [`RETRY`]. Anything else says nothing.
pub const RETRY_NEVER: HeaderValue = HeaderValue::from_static("never");

/// Whether the response was given in place of work that would have come too late. Trust it on a 504
/// (or, from a gRPC service, a 200) only.
pub fn is_shed(headers: &HeaderMap) -> bool {
    headers.get(SHED).is_some_and(|value| *value == SHED_DEADLINE)
}

/// Whether the response was given in place of work that was cut off when its caller's time was
/// over. Trust it as [`is_shed`].
pub fn is_cut(headers: &HeaderMap) -> bool {
    headers.get(SHED).is_some_and(|value| *value == SHED_CUT)
}

/// Whether the response asks not to be tried again, by either header.
pub fn forbids_retry(headers: &HeaderMap) -> bool {
    is_shed(headers) || headers.get(RETRY).is_some_and(|value| *value == RETRY_NEVER)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Note {
    /// Nobody would hear it.
    Unheard,
    Listening,
    NeverRetry,
}

thread_local! {
    static NOTE: Cell<Note> = const { Cell::new(Note::Unheard) };
}

/// If the request this task is handling fails, with a 5xx, its caller shall not try again. Without
/// a `RetryAdviceLayer` around the handler it does nothing.
pub fn forbid_retry() {
    let _ = NOTE.try_with(|note| {
        if note.get() == Note::Listening {
            note.set(Note::NeverRetry);
        }
    });
}

/// Runs `act`, and says whether it forbade a retry.
#[cfg(any(test, feature = "server"))]
pub(crate) fn listen<T>(act: impl FnOnce() -> T) -> (T, bool) {
    struct Before(Note);
    impl Drop for Before {
        fn drop(&mut self) {
            let _ = NOTE.try_with(|note| note.set(self.0));
        }
    }
    let before = Before(NOTE.try_with(|note| note.replace(Note::Listening)).unwrap_or(Note::Unheard));
    let result = act();
    let forbidden = NOTE.try_with(Cell::get).is_ok_and(|note| note == Note::NeverRetry);
    drop(before);
    if forbidden {
        // Whoever listens further out hears it too.
        forbid_retry();
    }
    (result, forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reaches_everyone_who_listens_and_nobody_else() {
        forbid_retry();
        assert!(!listen(|| ()).1, "noted before");
        let ((inner, beside), outer) = listen(|| (listen(forbid_retry).1, listen(|| ()).1));
        assert!(inner && outer && !beside);
        assert!(!listen(|| ()).1, "forgotten after");
    }

    #[test]
    fn a_panic_inside_leaves_nothing_behind() {
        let panics = || {
            listen(|| {
                forbid_retry();
                panic!("as it happens")
            })
        };
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(!listen(|| ()).1);
        assert!(NOTE.get() == Note::Unheard);
    }

    #[test]
    fn only_the_exact_values_say_anything() {
        let with = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        assert!(forbids_retry(&with(RETRY, "never")) && !is_shed(&with(RETRY, "never")));
        assert!(forbids_retry(&with(SHED, "deadline")) && is_shed(&with(SHED, "deadline")));
        assert!(is_cut(&with(SHED, "cut")) && !forbids_retry(&with(SHED, "cut")));
        for value in ["", "Never", "true", "1"] {
            assert!(!forbids_retry(&with(RETRY, value)) && !forbids_retry(&with(SHED, value)), "{value:?}");
        }
        assert!(!forbids_retry(&HeaderMap::new()));
    }
}
