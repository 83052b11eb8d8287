//! A body without content that tells when its request became a stream of its own.
//!
//! hyper keeps an HTTP/2 request in its queue until the server allows one more stream. Only then
//! does it ask the request's body for content, or let go of one that is at its end. Nobody else
//! tells: so a request without content is given one of the two.
//!
//! Over HTTP/1.1 there is no such queue, and it lets go of either with the request's head.
//!
//! So while an attempt is on its way, a body that was asked or let go of says that the attempt
//! waits for nothing any more. While a connection is new the server's limit isn't known, and what
//! hyper takes for a stream may have to wait in h2 after all: what is said then is doubted, once.
//!
//! Of an attempt that has failed a body that was let go of says nothing: it is then, too. One that
//! was [asked](Kind::Asked) proves that there was a stream: a `GOAWAY` is about that stream;
//! without, it may be the connection's, reported for a request that is on the wire and admitted. It
//! shows on the wire, as an empty DATA frame; the [other kind](Kind::LetGo) doesn't.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::time::{self, Tick};

/// What tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// See the [module docs](self).
    Asked,
    /// See the [module docs](self).
    LetGo,
    /// Nobody tells: it has content.
    Unseen,
}

#[derive(Debug)]
struct Told {
    /// When it was asked or let go of, as a `Tick`; zero until then.
    since: AtomicU64,
    asked: AtomicBool,
    kind: Kind,
    /// The server has answered nothing yet, or not for long, so that its limit may not be known.
    cold: bool,
    /// It has been given more time although nobody knows whether it waits.
    indulged: AtomicBool,
}

impl Told {
    fn tell(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(time::now().as_nanos(), Ordering::Release);
        }
    }
}

/// Since when an attempt has had a stream of its own.
#[derive(Debug)]
pub(crate) struct Opened(Arc<Told>);

impl Opened {
    /// With the body that tells.
    pub(crate) fn by(kind: Kind, cold: bool) -> (Self, Nothing) {
        let (asked, indulged) = (AtomicBool::new(false), AtomicBool::new(false));
        let told = Arc::new(Told { since: AtomicU64::new(0), asked, kind, cold, indulged });
        (Self(Arc::clone(&told)), Nothing(told))
    }

    /// Of a request with content: it is doubted once.
    pub(crate) fn unseen(now: Tick) -> Self {
        let (opened, _) = Self::by(Kind::Unseen, true);
        opened.0.since.store(now.as_nanos(), Ordering::Relaxed);
        opened
    }

    /// While the attempt is on its way: since when; `None` until then.
    fn since(&self) -> Option<Tick> {
        Some(Tick::from_nanos(self.0.since.load(Ordering::Acquire))).filter(|since| *since != Tick::ZERO)
    }

    /// Since when an attempt that is on its way has its time: while it waits, only from `now` on.
    /// One of which that isn't known goes on waiting once: to leave at once would cost the server a
    /// connection for each in its line.
    pub(crate) fn begun(&self, set_out: Tick, now: Tick) -> Tick {
        match self.since() {
            None => now,
            Some(_) if self.is_in_doubt() && !self.0.indulged.swap(true, Ordering::Relaxed) => now,
            Some(since) if !self.0.cold => since.max(set_out),
            Some(_) => set_out,
        }
    }

    /// Whether an attempt that is on its way has no stream yet, as far as is known.
    pub(crate) fn waits(&self) -> bool {
        self.0.kind != Kind::Unseen && (self.since().is_none() || self.is_in_doubt())
    }

    fn is_in_doubt(&self) -> bool {
        self.0.cold && !self.0.indulged.load(Ordering::Relaxed)
    }

    /// Of an attempt that has failed: whether it surely had one.
    pub(crate) fn was(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }
}

/// See the [module docs](self).
#[derive(Debug)]
pub(crate) struct Nothing(Arc<Told>);

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.tell();
        self.0.asked.store(true, Ordering::Release);
        Poll::Ready(None)
    }

    /// One that is asked has to say that there may be more.
    fn is_end_stream(&self) -> bool {
        self.0.kind == Kind::LetGo
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        self.0.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_body_that_is_asked_proves_it_and_one_let_go_unasked_doesnt() {
        let (opened, mut body) = Opened::by(Kind::Asked, false);
        assert!(!body.is_end_stream() && opened.since().is_none() && !opened.was());
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(None)) && opened.since().is_some() && opened.was());
        let (opened, body) = Opened::by(Kind::Asked, false);
        drop(body);
        assert!(!opened.was());
    }

    /// It had no attempt timeout: over HTTP/1.1 nobody asks.
    #[test]
    fn a_body_that_nobody_asks_has_its_time_from_when_it_is_let_go() {
        let (opened, body) = Opened::by(Kind::Asked, false);
        drop(body);
        let later = time::now().after(std::time::Duration::from_secs(3600));
        assert!(!opened.waits() && opened.begun(Tick::ZERO, later) < later);
    }

    #[test]
    fn a_body_at_its_end_tells_when_it_is_let_go_and_proves_nothing() {
        let (opened, body) = Opened::by(Kind::LetGo, false);
        assert!(body.is_end_stream() && opened.since().is_none());
        drop(body);
        assert!(opened.since().is_some() && !opened.was());
    }

    #[test]
    fn an_attempt_has_its_time_from_when_it_got_its_stream() {
        let (early, late) = (Tick::ZERO, time::now().after(std::time::Duration::from_secs(3600)));
        let (opened, body) = Opened::by(Kind::LetGo, false);
        assert!(opened.waits() && opened.begun(early, late) == late);
        drop(body);
        let begun = opened.begun(early, late);
        assert!(!opened.waits() && early < begun && begun < late && opened.begun(late, late) == late);
    }

    #[test]
    fn before_the_first_answer_nobody_knows_who_waits() {
        let (early, late) = (Tick::ZERO, time::now().after(std::time::Duration::from_secs(3600)));
        for kind in [Kind::LetGo, Kind::Asked] {
            let (opened, mut body) = Opened::by(kind, true);
            let _ = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(opened.waits() && opened.begun(early, late) == late, "{kind:?}");
            assert!(!opened.waits() && opened.begun(early, late) == early, "doubted once: {kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_sees_is_given_its_time_once_more_and_never_said_to_wait() {
        let early = time::now();
        let opened = Opened::unseen(early);
        tokio::time::advance(std::time::Duration::from_secs(3)).await;
        let late = time::now();
        assert!(!opened.waits() && opened.begun(early, late) == late);
        assert!(!opened.waits() && opened.begun(early, late) == early);
    }
}
