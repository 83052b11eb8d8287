//! What a script does with one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;

use crate::fault::wire::{Act, Fault, Made, Place, Spoil};

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// What a [`Script`](super::Script) does with one request: an answer, or what comes in place of
/// one.
///
/// ```
/// use std::time::Duration;
/// use resilient_client::testing::Answer;
///
/// let slow = Answer::text(200, "hello").after(Duration::from_millis(300));
/// let busy = Answer::status(503).header("retry-after", "1");
/// let broken = Answer::text(200, "a body that is cut off").cut_after(6);
/// # _ = (slow, busy, broken);
/// ```
#[derive(Clone, Debug)]
#[must_use = "an answer does nothing until a route has it"]
pub struct Answer {
    after: Duration,
    end: End,
}

#[derive(Clone, Debug)]
enum End {
    Head { status: StatusCode, headers: HeaderMap, body: Bytes, spoil: Option<Spoil> },
    Refused,
    Reset,
    Garbage,
    Hang,
}

impl Answer {
    fn of(end: End) -> Self {
        Self { after: Duration::ZERO, end }
    }

    /// An answer without a body.
    ///
    /// # Panics
    /// When that is no status from 200 to 599.
    #[track_caller]
    pub fn status(status: u16) -> Self {
        let known = StatusCode::from_u16(status).ok().filter(|_| (200..600).contains(&status));
        let Some(status) = known else { panic!("a status must be from 200 to 599, got {status}") };
        Self::of(End::Head { status, headers: HeaderMap::new(), body: Bytes::new(), spoil: None })
    }

    /// An answer with a text.
    ///
    /// # Panics
    /// As [`status`](Self::status).
    #[track_caller]
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self::status(status).header("content-type", "text/plain; charset=utf-8").body(text)
    }

    /// An answer with a value as JSON.
    ///
    /// # Panics
    /// As [`status`](Self::status), and when the value has no JSON.
    #[track_caller]
    pub fn json(status: u16, value: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self::status(status).header("content-type", "application/json").body(json),
            Err(error) => panic!("the value has no JSON: {error}"),
        }
    }

    /// No connection is made: provably, nothing was sent.
    pub fn refused() -> Self {
        Self::of(End::Refused)
    }

    /// The connection is reset before an answer: the request may have been processed.
    pub fn reset() -> Self {
        Self::of(End::Reset)
    }

    /// What comes isn't HTTP.
    pub fn garbage() -> Self {
        Self::of(End::Garbage)
    }

    /// Nothing comes at all. Where nobody gives up waiting either, that ends with a reset, in
    /// thirty years.
    pub fn hang() -> Self {
        Self::of(End::Hang)
    }

    /// With a body.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        if let End::Head { body, .. } = &mut self.end {
            *body = bytes.into();
        }
        self
    }

    /// With one more header. `content-length` is the body's own, whatever is said here.
    ///
    /// # Panics
    /// When that is no header.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            panic!("no header: {name}: {value}")
        };
        if let End::Head { headers, .. } = &mut self.end {
            if name == CONTENT_TYPE {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
        self
    }

    /// It comes so much later, on the clock of tokio's: at once where that is paused and nobody has
    /// anything else to do.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    fn spoilt(mut self, how: Spoil) -> Self {
        if let End::Head { spoil, .. } = &mut self.end {
            *spoil = Some(how);
        }
        self
    }

    /// The connection closes after so many bytes of the body.
    pub fn cut_after(self, bytes: u64) -> Self {
        self.spoilt(Spoil::Truncate { bytes })
    }

    /// The connection is reset where the body should begin.
    pub fn reset_after_head(self) -> Self {
        self.spoilt(Spoil::Reset)
    }

    /// After so many bytes of the body nothing comes any more.
    pub fn stalls_after(self, bytes: u64) -> Self {
        self.spoilt(Spoil::Trickle { bytes, every: FOR_EVER, most: FOR_EVER })
    }

    /// The body comes so many bytes at a time, with such a pause after each.
    pub fn trickles(self, bytes: u64, every: Duration) -> Self {
        self.spoilt(Spoil::Trickle { bytes, every, most: FOR_EVER })
    }

    /// What a response is made of; `None` where none comes, or not whole.
    pub(super) fn whole(self) -> Option<(StatusCode, HeaderMap, Bytes)> {
        match self.end {
            End::Head { status, headers, body, spoil: None } => Some((status, headers, body)),
            _ => None,
        }
    }

    /// As the wire will have it.
    pub(super) fn fault(self, method: &Method) -> Fault {
        let (delay, act) = match self.end {
            End::Head { status, headers, body, spoil } => {
                let made = Arc::new(Made { status, headers, body });
                // There is no body to spoil then.
                let spoil = spoil.filter(|_| method != Method::HEAD && !made.body.is_empty());
                (
                    self.after,
                    spoil.map_or_else(
                        || Act::Answer(Arc::clone(&made)),
                        |how| Act::Spoilt(Arc::clone(&made), how),
                    ),
                )
            }
            End::Refused => (self.after, Act::Refuse),
            End::Reset => (self.after, Act::Reset),
            End::Garbage => (self.after, Act::Garbage),
            End::Hang => (Duration::MAX, Act::Reset),
        };
        Fault { delay, act, place: Place::alone() }
    }
}
