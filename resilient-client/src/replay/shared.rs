//! One streamed body between all its readers: who asks the source, and who is woken.
//!
//! ```text
//!              a reader at the end                 it has nothing yet
//!     Idle -----------------------------> Lent -------------------------> Idle
//!       ^                                  |  |
//!       +---------- a frame ---------------+  +--- its end, error, panic ---> Ended, Failed
//! ```
//!
//! The source is the user's code: its poll may take long, panic, wake, or drop anything, even a
//! reader of this very body. So it is never run under the lock. A reader *borrows* it: takes it
//! out, polls it, puts it back.
//!
//! No wakeup is lost, because the source is given one waker that wakes every reader waiting, not
//! only the one that happened to poll it and may be dropped or stall before it polls again. A
//! reader that finds the source lent waits too, and is woken when it comes back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Buf;
use http_body::Body;
use smallvec::SmallVec;

use super::error::ReplayError;
use super::memory::ReplayMemory;
use super::recording::{Piece, Read, ReaderId, Recording};
use crate::error::BoxError;
use crate::sync::Mutex;

/// See the [module docs](self).
#[derive(Debug)]
pub(super) struct Shared<B> {
    /// A lock because attempts run on tasks of their own. Held for moves and counts only: no
    /// source, waker or value of the user's is polled, woken, cloned or dropped under it.
    state: Mutex<State<B>>,
    waiting: Arc<Waiting>,
    /// `waiting` as the source sees it.
    waker: Waker,
}

#[derive(Debug)]
struct State<B> {
    recording: Recording,
    stage: Stage<B>,
    /// A reader came while the source was lent, and waits for it.
    asked_for: bool,
}

#[derive(Debug)]
enum Stage<B> {
    Idle(Pin<Box<B>>),
    Lent,
    Ended,
    Failed(ReplayError),
}

/// What a reader is to do.
enum Turn<B> {
    Take(Option<Result<Piece, ReplayError>>),
    Wait,
    Ask(Pin<Box<B>>, Keep),
}

/// Whether a copy of the next frame is wanted, and up to which cost.
#[derive(Clone, Copy)]
struct Keep(Option<usize>);

/// What the source came up with.
enum Pulled {
    Nothing,
    Piece { piece: Piece, copy: Option<Piece>, ended: bool },
    End,
    Failed(ReplayError),
}

impl<B> Shared<B> {
    /// `source` is `None` for a body that has ended before it began.
    pub(super) fn new(source: Option<B>, limit: usize, memory: &'static ReplayMemory) -> (Self, ReaderId) {
        let (recording, first) = Recording::new(limit, memory);
        let stage = source.map_or(Stage::Ended, |source| Stage::Idle(Box::pin(source)));
        let waiting = Arc::<Waiting>::default();
        let waker = Waker::from(Arc::clone(&waiting));
        (Self { state: Mutex::new(State { recording, stage, asked_for: false }), waiting, waker }, first)
    }

    pub(super) fn join(&self, beside: ReaderId) -> Option<ReaderId> {
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Failed(_)) { None } else { state.recording.join(beside) }
    }

    pub(super) fn can_join(&self, beside: ReaderId) -> bool {
        let state = self.state.lock();
        !matches!(state.stage, Stage::Failed(_)) && !state.recording.is_cut_off(beside)
    }

    pub(super) fn leave(&self, id: ReaderId) {
        let left = {
            let mut state = self.state.lock();
            let unreachable = state.recording.leave(id) && matches!(state.stage, Stage::Idle(_));
            let stage = unreachable.then(|| std::mem::replace(&mut state.stage, Stage::Ended));
            (stage, self.waiting.remove(id))
        };
        // The user's source and a task's waker: dropped without the lock.
        drop(left);
    }

    /// Whether this reader has read everything and nothing can follow.
    pub(super) fn is_at_end(&self, id: ReaderId) -> bool {
        let state = self.state.lock();
        matches!(state.stage, Stage::Ended) && state.recording.is_at_end(id)
    }

    fn turn(&self, id: ReaderId, waker: Waker) -> Turn<B> {
        // Declared before the guard, so dropped after it: a waker can be the last thing that keeps
        // a task, and with it another reader, alive.
        let _replaced;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        match state.recording.read(id) {
            Read::Piece(piece) => return Turn::Take(Some(Ok(piece))),
            Read::CutOff => return Turn::Take(Some(Err(ReplayError::cut_off()))),
            Read::AtEnd => {}
        }
        match std::mem::replace(&mut state.stage, Stage::Lent) {
            Stage::Idle(source) => {
                _replaced = self.waiting.add(id, waker);
                let keep = (!state.recording.is_alone(id)).then(|| state.recording.limit());
                Turn::Ask(source, Keep(keep))
            }
            Stage::Lent => {
                _replaced = self.waiting.add(id, waker);
                state.asked_for = true;
                Turn::Wait
            }
            Stage::Ended => {
                state.stage = Stage::Ended;
                Turn::Take(None)
            }
            Stage::Failed(error) => {
                let shared = error.clone();
                state.stage = Stage::Failed(error);
                Turn::Take(Some(Err(shared)))
            }
        }
    }

    /// Puts the source back, and tells the others what came of it.
    fn settle(
        &self,
        id: ReaderId,
        source: Pin<Box<B>>,
        pulled: Pulled,
    ) -> Poll<Option<Result<Piece, ReplayError>>> {
        let mut spent = None;
        let mut own = None;
        let mut wake = true;
        let polled = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let asked_for = std::mem::take(&mut state.asked_for);
            if !matches!(pulled, Pulled::Nothing) {
                own = self.waiting.remove(id);
            }
            match pulled {
                Pulled::Nothing => {
                    state.stage = Stage::Idle(source);
                    wake = asked_for;
                    Poll::Pending
                }
                Pulled::Piece { piece, copy, ended } => {
                    state.recording.append(id, copy, piece.cost());
                    state.stage = if ended {
                        spent = Some(source);
                        Stage::Ended
                    } else {
                        Stage::Idle(source)
                    };
                    Poll::Ready(Some(Ok(piece)))
                }
                Pulled::End => {
                    spent = Some(source);
                    state.stage = Stage::Ended;
                    Poll::Ready(None)
                }
                Pulled::Failed(error) => {
                    spent = Some(source);
                    state.stage = Stage::Failed(error.clone());
                    Poll::Ready(Some(Err(error)))
                }
            }
        };
        if wake {
            self.waiting.wake_all_but(id);
        }
        // Last, because they are the user's code and may panic.
        drop((own, spent));
        polled
    }
}

impl<B: Body<Error: Into<BoxError>>> Shared<B> {
    pub(super) fn poll(
        &self,
        id: ReaderId,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, ReplayError>>> {
        match self.turn(id, cx.waker().clone()) {
            Turn::Take(taken) => Poll::Ready(taken),
            Turn::Wait => Poll::Pending,
            Turn::Ask(mut source, keep) => {
                // A panic becomes this body's error: unwinding from here would leave the source
                // lent for ever, and take the transport's task with it.
                let pulled = catch_unwind(AssertUnwindSafe(|| {
                    pull(source.as_mut(), keep, &mut Context::from_waker(&self.waker))
                }));
                // The panic's payload is dropped after the source is put back: that is the user's
                // code too.
                let (pulled, _payload) = match pulled {
                    Ok(pulled) => (pulled, None),
                    Err(payload) => (Pulled::Failed(ReplayError::panicked()), Some(payload)),
                };
                self.settle(id, source, pulled)
            }
        }
    }
}

/// Asks the source once. Everything here may be the user's code.
fn pull<B: Body<Error: Into<BoxError>>>(
    mut source: Pin<&mut B>,
    Keep(keep): Keep,
    cx: &mut Context<'_>,
) -> Pulled {
    let frame = match source.as_mut().poll_frame(cx) {
        Poll::Pending => return Pulled::Nothing,
        Poll::Ready(None) => return Pulled::End,
        Poll::Ready(Some(Err(error))) => return Pulled::Failed(ReplayError::failed(error.into())),
        Poll::Ready(Some(Ok(frame))) => frame,
    };
    let piece = match frame.into_data().map_err(http_body::Frame::into_trailers) {
        Ok(mut data) => Piece::Data(data.copy_to_bytes(data.remaining())),
        Err(Ok(fields)) => Piece::Trailers(fields),
        // No such frames today. Dropping one would be a body cut short and passed off as whole.
        Err(Err(_)) => return Pulled::Failed(ReplayError::failed("a frame of an unknown kind".into())),
    };
    let copy = keep.filter(|most| piece.cost() <= *most).map(|_| piece.detached());
    Pulled::Piece { piece, copy, ended: source.is_end_stream() }
}

/// The readers waiting for the source.
///
/// Apart from [`Shared`], because the source keeps the waker made of it: a waker that kept the
/// source alive would keep both for ever.
#[derive(Debug)]
struct Waiting(Mutex<Wakers>);

type Wakers = SmallVec<[(ReaderId, Waker); 2]>;

impl Default for Waiting {
    fn default() -> Self {
        Self(Mutex::new(SmallVec::new()))
    }
}

impl Waiting {
    /// Returns the waker replaced, to be dropped where no lock is held.
    #[must_use]
    fn add(&self, id: ReaderId, waker: Waker) -> Option<Waker> {
        let mut wakers = self.0.lock();
        if let Some((_, known)) = wakers.iter_mut().find(|(reader, _)| *reader == id) {
            return Some(std::mem::replace(known, waker));
        }
        wakers.push((id, waker));
        None
    }

    #[must_use]
    fn remove(&self, id: ReaderId) -> Option<Waker> {
        let mut wakers = self.0.lock();
        let index = wakers.iter().position(|(reader, _)| *reader == id)?;
        Some(wakers.swap_remove(index).1)
    }

    fn wake_all_but(&self, id: ReaderId) {
        let woken: Wakers = {
            let mut wakers = self.0.lock();
            let (stay, woken) =
                std::mem::take(&mut *wakers).into_iter().partition(|(reader, _)| *reader == id);
            *wakers = stay;
            woken
        };
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = std::mem::take(&mut *self.0.lock());
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }
}
