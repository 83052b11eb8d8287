//! A body that follows a script.

use super::*;

/// What a scripted source does next. After the last it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Piece(Piece),
    /// Nothing, until [`Remote::go_on`].
    Wait,
    Fail,
    Panic,
}

pub(super) fn data(text: &str) -> Step {
    Step::Piece(Piece::Data(Bytes::copy_from_slice(text.as_bytes())))
}

pub(super) fn block(length: usize) -> Step {
    Step::Piece(Piece::Data(vec![b'x'; length].into()))
}

pub(super) fn trailers(value: &'static str) -> Step {
    Step::Piece(Piece::Trailers(HeaderMap::from_iter([(
        http::header::ETAG,
        HeaderValue::from_static(value),
    )])))
}

/// The far end of a scripted source.
#[derive(Debug, Default)]
pub(super) struct Remote {
    pub(super) state: Mutex<(usize, Option<Waker>)>,
    pub(super) dropped: AtomicUsize,
}

impl Remote {
    /// Lets the source past one more [`Step::Wait`].
    pub(super) fn go_on(&self) {
        let waker = {
            let mut state = self.state.lock().unwrap();
            state.0 += 1;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.dropped.load(Ordering::SeqCst) == 1
    }
}

/// A source that follows a script.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) steps: VecDeque<Step>,
    pub(super) remote: Arc<Remote>,
    pub(super) hint: SizeHint,
    pub(super) tells_its_end: bool,
}

impl Source {
    pub(super) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            remote: Arc::default(),
            hint: SizeHint::default(),
            tells_its_end: false,
        }
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        while let Some(step) = self.steps.front().cloned() {
            if step == Step::Wait {
                let mut state = self.remote.state.lock().unwrap();
                if state.0 == 0 {
                    state.1 = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                state.0 -= 1;
            }
            self.steps.pop_front();
            match step {
                Step::Wait => {}
                Step::Piece(piece) => return Poll::Ready(Some(Ok(piece.into_frame()))),
                Step::Fail => return Poll::Ready(Some(Err(std::io::Error::other("disk on fire")))),
                // Not `panic!`: the hook would fill the test's output.
                Step::Panic => resume_unwind(Box::new("scripted")),
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.tells_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.remote.dropped.fetch_add(1, Ordering::SeqCst);
    }
}
