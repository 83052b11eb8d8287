//! Bodies: as they are, made up, or spoilt on their way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::machine::{Place, Spoil};
use crate::error::BoxError;
use crate::time::{self, Tick};

pin_project! {
    /// The body of an answer that has passed a fault layer: the service's own unless a fault was in
    /// force.
    #[derive(Debug)]
    pub struct Body<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<B> {
        Own { #[pin] body: B },
        Made { bytes: Option<Bytes>, _place: Place },
        Spoilt { body: Pin<Box<Spoilt<B>>> },
        Carried { #[pin] body: Incoming },
        Broken { breaks: bool, broken: bool, _place: Place },
    }
}

impl<B> Body<B> {
    pub(super) fn own(body: B) -> Self {
        Self { state: State::Own { body } }
    }

    /// Holds its place until it is gone.
    pub(super) fn made(bytes: Bytes, place: Place) -> Self {
        Self { state: State::Made { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), _place: place } }
    }

    /// Nothing, and the end of its connection. One that `breaks` by itself is given the time to.
    pub(super) fn broken(breaks: bool, place: Place) -> Self {
        Self { state: State::Broken { breaks, broken: false, _place: place } }
    }

    pub(super) fn spoilt(body: Spoilt<B>) -> Self {
        Self { state: State::Spoilt { body: Box::pin(body) } }
    }

    /// It came over a connection in memory.
    pub(super) fn carried(body: Incoming) -> Self {
        Self { state: State::Carried { body } }
    }
}

impl<B> HttpBody for Body<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().state.project() {
            StateProj::Own { body } => body.poll_frame(cx).map_err(Into::into),
            StateProj::Made { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            StateProj::Spoilt { body } => body.as_mut().poll_frame(cx),
            StateProj::Carried { body } => body.poll_frame(cx).map_err(Into::into),
            StateProj::Broken { breaks, broken, .. } => {
                if std::mem::take(breaks) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let first = !std::mem::replace(broken, true);
                Poll::Ready(first.then(|| Err(Broken::Reset.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Own { body } => body.is_end_stream(),
            State::Made { bytes, .. } => bytes.is_none(),
            State::Spoilt { body } => body.is_end_stream(),
            State::Carried { body } => body.is_end_stream(),
            State::Broken { broken, .. } => *broken,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Own { body } => body.size_hint(),
            State::Made { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            State::Spoilt { body } => body.size_hint(),
            State::Carried { body } => body.size_hint(),
            State::Broken { .. } => SizeHint::default(),
        }
    }
}

/// How long what was written has to leave where nothing tells when it has.
const TIME_TO_LEAVE: Duration = Duration::from_millis(50);

/// How what was written before a body breaks, its head for one, gets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// HTTP/1.1: whoever writes the body out flushes whenever it is pending.
    InOnePoll,
    /// HTTP/2: frames leave in a task of their own, and those of a stream that is reset never do.
    InTime,
    Done,
}

/// How a spoilt body ends where it should go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Its connection is reset.
    Reset,
    /// Its connection is closed.
    Closed,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "an injected fault: the connection is reset",
            Self::Closed => "an injected fault: the body ends early",
        })
    }
}

impl std::error::Error for Broken {}

pin_project! {
    /// A body with something wrong. It says it is as long as the whole one: that is what makes it
    /// wrong.
    pub(super) struct Spoilt<B> {
        #[pin]
        body: B,
        spoil: Spoil,
        // When a trickle has cost enough.
        until: Option<Tick>,
        // What has come and isn't due yet.
        held: Bytes,
        timer: Option<Pin<Box<Sleep>>>,
        flush: Flush,
        ended: bool,
        // Given back when nothing is wrong with it any more.
        place: Option<Place>,
    }
}

impl<B> fmt::Debug for Spoilt<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spoilt").field("spoil", &self.spoil).finish_non_exhaustive()
    }
}

impl<B> Spoilt<B> {
    pub(super) fn new(body: B, spoil: Spoil, place: Place) -> Self {
        Self {
            body,
            spoil,
            until: None,
            held: Bytes::new(),
            timer: None,
            flush: Flush::InOnePoll,
            ended: false,
            place: Some(place),
        }
    }
}

impl<B> HttpBody for Spoilt<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = match self.spoil {
            Spoil::Reset => self.as_mut().poll_broken(cx, Broken::Reset),
            Spoil::Truncate { bytes: 0 } => self.as_mut().poll_broken(cx, Broken::Closed),
            Spoil::Truncate { bytes } => self.as_mut().poll_some(cx, bytes),
            Spoil::Trickle { bytes, every, most } => self.as_mut().poll_trickle(cx, bytes, every, most),
        };
        *self.project().ended |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

impl<B> Spoilt<B> {
    /// Over a connection that others share.
    pub(super) fn over_http2(self) -> Self {
        Self { flush: Flush::InTime, ..self }
    }
}

impl<B> Spoilt<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    /// The end where it should go on, once what came before is on its way.
    fn poll_broken(self: Pin<&mut Self>, cx: &mut Context<'_>, end: Broken) -> Polled {
        let this = self.project();
        match this.flush {
            Flush::InOnePoll => {
                *this.flush = Flush::Done;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Flush::InTime => {
                let timer = this.timer.get_or_insert_with(|| {
                    Box::pin(sleep_until(time::instant(time::now().after(TIME_TO_LEAVE))))
                });
                ready!(timer.as_mut().poll(cx));
                *this.flush = Flush::Done;
            }
            Flush::Done => {}
        }
        Poll::Ready(Some(Err(end.into())))
    }

    /// The next piece, of what may still come.
    fn poll_some(self: Pin<&mut Self>, cx: &mut Context<'_>, most: u64) -> Polled {
        let this = self.project();
        let frame = match ready!(this.body.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end.map(|end| end.map_err(Into::into))),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) => {
                data.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                *this.spoil = Spoil::Truncate { bytes: most - data.len() as u64 };
                Frame::data(data)
            }
            Err(trailers) => trailers,
        })))
    }

    /// So many bytes, when they are due.
    fn poll_trickle(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: u64,
        every: Duration,
        most: Duration,
    ) -> Polled {
        let this = self.project();
        if let Some(timer) = this.timer {
            ready!(timer.as_mut().poll(cx));
            *this.timer = None;
        }
        if this.held.is_empty() {
            let frame = match ready!(this.body.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end.map(|end| end.map_err(Into::into))),
            };
            match frame.into_data() {
                Ok(data) => *this.held = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let now = time::now();
        let until = *this.until.get_or_insert(now.after(most));
        if now >= until {
            // It has cost enough, and may go on for long: a stream of events.
            *this.place = None;
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.held)))));
        }
        let piece = this.held.split_to(usize::try_from(bytes).unwrap_or(usize::MAX).min(this.held.len()));
        *this.timer = Some(Box::pin(sleep_until(time::instant(now.after(every).min(until)))));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
