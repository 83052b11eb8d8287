//! One streamed body, several readers.

mod model;
mod source;
mod threads;
mod wire;

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use self::source::{Remote, Source, Step, block, data, trailers};
use super::memory::ReplayMemory;
use super::recording::{LEAST_COST, Piece};
use super::{Replay, ReplayBody, ReplayError};
use crate::error::BoxError;

fn memory(limit: usize) -> &'static ReplayMemory {
    Box::leak(Box::new(ReplayMemory::new(limit)))
}

/// Counts how often a task would be polled again.
#[derive(Debug, Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a reader got from one poll.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Pending,
    Piece(Piece),
    End,
    CutOff,
    Failed(String),
}

/// A reader on a task of its own.
struct Reader<B = Source> {
    body: ReplayBody<B>,
    woken: Arc<Woken>,
}

impl<B: Body<Error: Into<BoxError>>> Reader<B> {
    fn of(body: ReplayBody<B>) -> Self {
        Self { body, woken: Arc::default() }
    }

    fn again(&self) -> Self {
        Self::of(self.body.replay().expect("replayable"))
    }

    fn poll(&mut self) -> Got {
        let waker = Waker::from(Arc::clone(&self.woken));
        match Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Pending => Got::Pending,
            Poll::Ready(None) => Got::End,
            Poll::Ready(Some(Ok(frame))) => Got::Piece(match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(frame) => Piece::Trailers(frame.into_trailers().unwrap()),
            }),
            Poll::Ready(Some(Err(error))) => {
                let error = error.downcast_ref::<ReplayError>().expect("every error is ours");
                if error.is_cut_off() { Got::CutOff } else { Got::Failed(crate_chain(error)) }
            }
        }
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        while let Got::Piece(piece) = self.poll() {
            if let Piece::Data(data) = piece {
                text.push_str(std::str::from_utf8(&data).unwrap());
            }
        }
        text
    }

    /// Whether the task would be polled again, asked once.
    fn was_woken(&self) -> bool {
        self.woken.0.swap(0, Ordering::SeqCst) > 0
    }
}

fn crate_chain(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {source}"))
}

fn got(text: &str) -> Got {
    let Step::Piece(piece) = data(text) else { unreachable!() };
    Got::Piece(piece)
}

/// The one kept unread, and the source's far end.
fn template(source: Source, limit: usize, memory: &'static ReplayMemory) -> (Reader, Arc<Remote>) {
    let remote = Arc::clone(&source.remote);
    (Reader::of(ReplayBody::within(memory, source, limit)), remote)
}

#[test]
fn it_can_go_to_another_task_even_if_its_source_is_not_sync() {
    fn is_send_and_sync<T: Send + Sync + 'static>() {}
    is_send_and_sync::<ReplayBody<Source>>();
    is_send_and_sync::<ReplayBody<http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>>>();
}

#[test]
fn a_second_attempt_sees_what_the_first_saw() {
    let (template, _) = template(Source::new([data("a"), data("b"), trailers("x")]), 1024, memory(1024));
    let mut first = template.again();
    assert_eq!((first.poll(), first.poll()), (got("a"), got("b")));
    drop(first);
    let mut second = template.again();
    assert_eq!((second.poll(), second.poll()), (got("a"), got("b")));
    let Got::Piece(Piece::Trailers(fields)) = second.poll() else { panic!("trailers") };
    assert_eq!(fields["etag"], "x");
    assert_eq!((second.poll(), second.poll()), (Got::End, Got::End));
}

#[test]
fn two_attempts_share_one_source_and_the_faster_does_not_wait() {
    let (template, _) = template(Source::new([data("a"), data("b"), data("c")]), 1024, memory(1024));
    let (mut first, mut second) = (template.again(), template.again());
    assert_eq!(first.poll(), got("a"));
    assert_eq!(second.text(), "abc");
    assert_eq!(first.text(), "bc");
}

#[test]
fn a_reader_waiting_is_woken_by_data_that_another_reads() {
    let (template, remote) = template(Source::new([Step::Wait, data("a")]), 1024, memory(1024));
    let (mut first, mut second) = (template.again(), template.again());
    assert_eq!((first.poll(), second.poll()), (Got::Pending, Got::Pending));
    remote.go_on();
    assert!(first.was_woken() && second.was_woken());
    assert_eq!(second.poll(), got("a"));
    assert_eq!(first.poll(), got("a"));
}

#[test]
fn a_reader_waiting_is_woken_although_the_one_who_asked_is_gone() {
    let (template, remote) = template(Source::new([Step::Wait, data("a")]), 1024, memory(1024));
    let (mut first, mut second) = (template.again(), template.again());
    assert_eq!((second.poll(), first.poll()), (Got::Pending, Got::Pending));
    drop(first);
    remote.go_on();
    assert!(second.was_woken());
    assert_eq!(second.poll(), got("a"));
}

#[test]
fn a_reader_waiting_is_woken_although_the_one_who_asked_never_asks_again() {
    let (template, remote) = template(Source::new([Step::Wait, data("a"), Step::Wait]), 1024, memory(1024));
    let (mut stalled, mut second) = (template.again(), template.again());
    assert_eq!((second.poll(), stalled.poll()), (Got::Pending, Got::Pending));
    remote.go_on();
    assert!(second.was_woken());
    assert_eq!((second.poll(), second.poll()), (got("a"), Got::Pending));
    remote.go_on();
    assert!(second.was_woken());
    assert_eq!(second.poll(), Got::End);
}

#[test]
fn a_reader_that_moves_to_another_task_is_woken_there() {
    let (template, remote) = template(Source::new([Step::Wait, data("a")]), 1024, memory(1024));
    let mut reader = template.again();
    assert_eq!(reader.poll(), Got::Pending);
    let old = std::mem::take(&mut reader.woken);
    assert_eq!(reader.poll(), Got::Pending);
    remote.go_on();
    assert!(reader.was_woken());
    assert_eq!(old.0.load(Ordering::SeqCst), 0);
}

#[test]
fn nobody_is_woken_for_nothing() {
    let (template, _) = template(Source::new([Step::Wait, data("a")]), 1024, memory(1024));
    let (mut first, mut second) = (template.again(), template.again());
    for _ in 0..10 {
        assert_eq!((first.poll(), second.poll()), (Got::Pending, Got::Pending));
    }
    assert!(
        !first.was_woken() && !second.was_woken(),
        "two waiting readers must not wake each other in turns"
    );
}

#[test]
fn what_nobody_needs_any_more_is_given_back_at_once() {
    let memory = memory(1024);
    let (template, remote) = template(Source::new([block(100), block(200), block(300)]), 1024, memory);
    let (mut first, mut second) = (template.again(), template.again());
    first.poll();
    first.poll();
    assert_eq!(memory.used(), 300);
    drop(template);
    assert_eq!(memory.used(), 300, "the second attempt hasn't begun");
    second.poll();
    assert_eq!(memory.used(), 200);
    drop(second);
    assert_eq!(memory.used(), 0);
    first.poll();
    assert_eq!(memory.used(), 0, "a reader that is alone keeps nothing");
    assert_eq!(first.poll(), Got::End);
    assert!(remote.is_gone(), "a source that has ended is dropped, not kept until the call is over");
}

#[test]
fn the_limit_of_a_call_is_exact() {
    let memory = memory(usize::MAX);
    let (template, _) = template(Source::new([block(600), block(424), block(1)]), 1024, memory);
    let mut first = template.again();
    first.poll();
    first.poll();
    assert!(template.body.is_replayable());
    assert_eq!(memory.used(), 1024);
    assert!(matches!(first.poll(), Got::Piece(_)));
    assert!(!template.body.is_replayable() && template.body.replay().is_none());
    assert_eq!(memory.used(), 0);
    assert_eq!(first.poll(), Got::End);
}

#[test]
fn the_limit_of_the_process_is_shared() {
    let memory = memory(1000);
    let (one, _) = template(Source::new([block(600)]), 1024, memory);
    let (two, _) = template(Source::new([block(300), block(300), block(300)]), 1024, memory);
    one.again().poll();
    let mut reader = two.again();
    reader.poll();
    assert_eq!((memory.used(), two.body.is_replayable()), (900, true));
    reader.poll();
    assert_eq!((memory.used(), two.body.is_replayable()), (600, false));
    reader.poll();
    assert_eq!(reader.poll(), Got::End, "it streams on");
    assert!(one.body.is_replayable());
    drop((one, two, reader));
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_source_of_single_bytes_cannot_hold_more_than_its_limit() {
    let memory = memory(usize::MAX);
    let (template, _) = template(Source::new((0..17).map(|_| data("x"))), 16 * LEAST_COST, memory);
    let mut reader = template.again();
    for kept in 1..=16 {
        reader.poll();
        assert_eq!(memory.used(), kept * LEAST_COST);
    }
    reader.poll();
    assert!(!template.body.is_replayable());
}

#[test]
fn with_no_room_at_all_it_is_replayable_until_it_is_read() {
    let (template, _) = template(Source::new([data("a"), data("b")]), 0, memory(1024));
    drop(template.again());
    assert!(template.body.is_replayable(), "the first attempt didn't get as far as its body");
    assert_eq!(template.again().text(), "ab");
    assert!(!template.body.is_replayable());
}

#[test]
fn an_overflow_leaves_the_body_to_whoever_is_ahead() {
    let memory = memory(1024);
    let source = Source::new([block(100), Step::Wait, block(100), block(1000), data("end")]);
    let (template, remote) = template(source, 256, memory);
    let (mut ahead, mut behind) = (template.again(), template.again());
    ahead.poll();
    assert_eq!(ahead.poll(), Got::Pending);
    behind.poll();
    assert_eq!(behind.poll(), Got::Pending);
    remote.go_on();
    ahead.poll();
    assert!(behind.was_woken() && matches!(behind.poll(), Got::Piece(_)));
    assert!(matches!(ahead.poll(), Got::Piece(Piece::Data(data)) if data.len() == 1000));
    assert_eq!(memory.used(), 0);
    assert_eq!((behind.poll(), behind.poll()), (Got::CutOff, Got::End));
    assert_eq!(ahead.text(), "end");
    assert!(ahead.body.is_end_stream());
}

#[test]
fn a_reader_cut_off_while_it_waits_is_told() {
    let (template, remote) = template(Source::new([Step::Wait, block(1000)]), 256, memory(1024));
    let (mut ahead, mut behind) = (template.again(), template.again());
    assert_eq!((ahead.poll(), behind.poll()), (Got::Pending, Got::Pending));
    remote.go_on();
    assert!(behind.was_woken());
    ahead.poll();
    assert_eq!(behind.poll(), Got::CutOff);
}

#[test]
fn when_the_one_with_the_rest_is_dropped_the_source_goes_too() {
    let (template, remote) = template(Source::new([block(1000), data("end")]), 256, memory(1024));
    let mut ahead = template.again();
    ahead.poll();
    assert!(!remote.is_gone());
    drop(ahead);
    assert!(remote.is_gone());
    let Reader { mut body, woken } = template;
    assert!(!body.is_replayable());
    body = Reader { body, woken }.body;
    assert_eq!(Reader::of(body).poll(), Got::CutOff);
}

#[test]
fn an_error_reaches_every_reader_once_and_after_what_came_before() {
    let (template, remote) = template(Source::new([data("a"), Step::Fail]), 1024, memory(1024));
    let (mut first, mut second) = (template.again(), template.again());
    let failed = Got::Failed("the request's body failed: disk on fire".into());
    assert_eq!((first.poll(), first.poll(), first.poll()), (got("a"), failed.clone(), Got::End));
    assert!(!template.body.is_replayable(), "another attempt would only meet the same error");
    assert!(!second.body.is_end_stream());
    assert_eq!((second.poll(), second.poll(), second.poll()), (got("a"), failed, Got::End));
    assert!(remote.is_gone());
}

#[test]
fn a_panic_reaches_every_reader_as_an_error() {
    let (template, remote) = template(Source::new([Step::Wait, Step::Panic]), 1024, memory(1024));
    let (mut first, mut second) = (template.again(), template.again());
    assert_eq!((first.poll(), second.poll()), (Got::Pending, Got::Pending));
    remote.go_on();
    let panicked = Got::Failed("the request's body panicked".into());
    assert_eq!(first.poll(), panicked);
    assert!(second.was_woken());
    assert_eq!(second.poll(), panicked);
    assert!(!template.body.is_replayable());
}

#[test]
fn every_attempt_announces_the_same_length_and_end() {
    let mut source = Source::new([data("abc"), data("de")]);
    source.hint = SizeHint::with_exact(5);
    source.tells_its_end = true;
    let (template, _) = template(source, 1024, memory(1024));
    let mut first = template.again();
    first.poll();
    assert_eq!((first.body.size_hint().exact(), first.body.is_end_stream()), (Some(2), false));
    first.poll();
    assert_eq!((first.body.size_hint().exact(), first.body.is_end_stream()), (Some(0), true));
    let mut second = template.again();
    assert_eq!((second.body.size_hint().exact(), second.body.is_end_stream()), (Some(5), false));
    second.poll();
    second.poll();
    assert_eq!((second.body.size_hint().exact(), second.body.is_end_stream()), (Some(0), true));
}

#[test]
fn a_body_sent_in_chunks_is_sent_in_chunks_again_although_all_of_it_is_known() {
    for steps in [vec![], vec![data("abc")]] {
        let (template, _) = template(Source::new(steps), 1024, memory(1024));
        let mut first = template.again();
        let announced = (first.body.size_hint().exact(), first.body.is_end_stream());
        assert_eq!(announced, (None, false));
        first.text();
        let second = template.again();
        assert_eq!((second.body.size_hint().exact(), second.body.is_end_stream()), announced);
    }
}

#[test]
fn an_empty_body_is_empty_every_time() {
    let mut source = Source::new([]);
    source.tells_its_end = true;
    let (template, remote) = template(source, 1024, memory(1024));
    assert!(remote.is_gone());
    for _ in 0..2 {
        let mut reader = template.again();
        assert!(reader.body.is_end_stream());
        assert_eq!(reader.poll(), Got::End);
    }
}

#[test]
fn a_source_that_announced_too_little_is_passed_on_as_it_is() {
    let mut source = Source::new([data("abc"), data("de")]);
    source.hint = SizeHint::with_exact(4);
    let (template, _) = template(source, 1024, memory(1024));
    let mut reader = template.again();
    assert_eq!(reader.text(), "abcde");
    assert_eq!(reader.body.size_hint().exact(), Some(0));
}

#[test]
fn one_that_has_begun_is_not_replayed() {
    let (template, _) = template(Source::new([Step::Wait]), 1024, memory(1024));
    let mut reader = template.again();
    assert!(reader.body.is_replayable() && reader.body.replay().is_some());
    reader.poll();
    assert!(!reader.body.is_replayable() && reader.body.replay().is_none());
    assert!(template.body.is_replayable());
}

#[test]
fn the_last_attempt_may_be_the_one_that_was_kept() {
    let (mut template, _) = template(Source::new([data("a"), block(2000)]), 1024, memory(1024));
    let mut first = template.again();
    first.poll();
    drop(first);
    assert_eq!(template.text().len(), 2001, "nobody else can need it, so there is no limit");
}

/// A body whose poll does whatever a test wants.
struct Ask<F>(F);

impl<F: FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> + Unpin> Body for Ask<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        (self.0)(cx)
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;
type Inside = Arc<Mutex<Option<Reader<Asked>>>>;
type Asked = Ask<Box<dyn FnMut(&mut Context<'_>) -> Polled + Send>>;

/// A reader of a source that polls another reader of its own body whenever it is polled, before it
/// answers.
fn with_a_reader_inside(
    limit: usize,
    mut answer: impl FnMut(&mut Context<'_>, &Mutex<Option<Reader<Asked>>>) -> Polled + Send + 'static,
) -> (Reader<Asked>, Inside) {
    let inside = Inside::default();
    let own = Arc::clone(&inside);
    let source = Ask::<Box<dyn FnMut(&mut Context<'_>) -> Polled + Send>>(Box::new(move |cx| {
        if let Some(inner) = own.lock().unwrap().as_mut() {
            assert_eq!(inner.poll(), Got::Pending, "the source is lent: to wait is all it can do");
            assert!(!inner.was_woken());
        }
        answer(cx, &own)
    }));
    let outer = Reader::of(ReplayBody::within(memory(1024), source, limit));
    *inside.lock().unwrap() = Some(outer.again());
    (outer, inside)
}

#[test]
fn a_reader_that_came_while_the_source_was_lent_is_woken_whatever_comes_of_it() {
    fn frame(length: usize) -> Polled {
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; length].into()))))
    }
    let outcomes: [(fn() -> Polled, Got); 6] = [
        (|| Poll::Pending, Got::Pending),
        (|| frame(5), got("xxxxx")),
        (|| frame(1000), Got::CutOff),
        (|| Poll::Ready(None), Got::End),
        (|| Poll::Ready(Some(Err("gone".into()))), Got::Failed("the request's body failed: gone".into())),
        (|| resume_unwind(Box::new("scripted")), Got::Failed("the request's body panicked".into())),
    ];
    for (outcome, expected) in outcomes {
        let (mut outer, inside) = with_a_reader_inside(500, move |_, _| outcome());
        outer.poll();
        let mut inner = inside.lock().unwrap().take().unwrap();
        assert!(inner.was_woken(), "{expected:?}");
        assert_eq!(inner.poll(), expected);
    }
}

#[test]
fn a_source_may_wake_and_drop_readers_of_its_own_body() {
    let (mut outer, inside) = with_a_reader_inside(500, |cx, inside| {
        cx.waker().wake_by_ref();
        drop(inside.lock().unwrap().take());
        Poll::Pending
    });
    assert_eq!(outer.poll(), Got::Pending);
    assert!(outer.was_woken() && inside.lock().unwrap().is_none());
}

#[test]
fn a_waker_that_is_dropped_may_take_another_reader_with_it() {
    /// A task that owns a reader and is kept by nothing but its waker.
    struct Task(#[expect(dead_code, reason = "dropped with the task")] Mutex<Option<Reader>>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    let (template, _) = template(Source::new([Step::Wait, data("a")]), 1024, memory(1024));
    let mut first = template.again();
    let waker = Waker::from(Arc::new(Task(Mutex::new(Some(template.again())))));
    let polled = Pin::new(&mut first.body).poll_frame(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(waker);
    // The next poll replaces the waker, which drops the task and its reader: not under the lock the
    // reader needs.
    assert_eq!(first.poll(), Got::Pending);
}

#[test]
fn a_source_that_keeps_its_waker_does_not_keep_itself() {
    let (template, remote) = template(Source::new([Step::Wait]), 1024, memory(1024));
    let mut reader = template.again();
    assert_eq!(reader.poll(), Got::Pending);
    drop((template, reader));
    assert!(remote.is_gone());
}

#[test]
fn what_is_kept_does_not_hold_the_buffer_it_was_cut_from() {
    struct Owner(#[expect(dead_code, reason = "counted")] Arc<()>, Vec<u8>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.1
        }
    }

    let alive = Arc::new(());
    let large = Bytes::from_owner(Owner(Arc::clone(&alive), vec![b'x'; 100_000]));
    let steps = [Step::Piece(Piece::Data(large.slice(..5))), Step::Wait];
    drop(large);
    let (template, _) = template(Source::new(steps), 1024, memory(1024));
    let mut reader = template.again();
    assert_eq!(reader.poll(), got("xxxxx"));
    assert_eq!(Arc::strong_count(&alive), 1, "five bytes kept must not hold a hundred thousand");
    assert_eq!(template.again().poll(), got("xxxxx"));
}
