//! The frames on an HTTP/2 connection, as far as it takes to know which streams have been opened,
//! when, and which the server says that it never processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::connections::Counters;
use crate::time::{self, Tick};

/// What a client sends before its first frame (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// The flag of a frame that answers one.
const ACK: u8 = 1;
/// The beginning of a `GOAWAY` that says which stream is the last.
const LAST: usize = 4;
/// The reserved bit aside.
const STREAM: u32 = u32::MAX >> 1;
/// For so many of the streams opened last it is known when.
const REMEMBERED: usize = 128;

/// Reads one direction of a connection, however it is cut up.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes to come before the next frame's head.
    skip: usize,
    /// As much as has come of that head and, of a `GOAWAY`, of what follows it.
    head: [u8; HEAD + LAST],
    got: usize,
}

/// A frame of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The header of this stream: its first, or trailers.
    Headers(u32),
    /// None above this stream is processed.
    GoAway {
        last: u32,
    },
    Ping {
        answers: bool,
    },
}

impl Frames {
    pub(super) fn written() -> Self {
        Self { skip: PREFACE, head: [0; HEAD + LAST], got: 0 }
    }

    pub(super) fn read() -> Self {
        Self { skip: 0, ..Self::written() }
    }

    fn follow(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.split_at(skipped).1;
                continue;
            }
            let missing = if self.got < HEAD { HEAD - self.got } else { HEAD + LAST - self.got };
            let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
            if let Some(place) = self.head.get_mut(self.got..self.got + piece.len()) {
                place.copy_from_slice(piece);
            }
            (self.got, bytes) = (self.got + piece.len(), rest);
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3, last @ ..] = self.head;
            let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & STREAM;
            match self.got {
                HEAD if kind == GOAWAY && length >= LAST => continue,
                HEAD if kind == HEADERS => seen(Seen::Headers(stream)),
                HEAD if kind == PING => seen(Seen::Ping { answers: flags & ACK != 0 }),
                HEAD => {}
                got if got == HEAD + LAST => {
                    seen(Seen::GoAway { last: u32::from_be_bytes(last) & STREAM });
                }
                _ => continue,
            }
            self.skip = (HEAD + length).saturating_sub(self.got);
            self.got = 0;
        }
    }
}

/// Which streams have been opened, and when.
#[derive(Debug)]
pub(super) struct Opened {
    /// When the connection was made.
    made: Tick,
    last: AtomicU32,
    /// Streams above this one will not be processed.
    bound: AtomicU32,
    at: [AtomicU64; REMEMBERED],
    /// When the last stream had been opened by the time an answer came, as a `Tick`: nearly when
    /// that was, on a connection that is busy, and for less than to look at the clock.
    answered: AtomicU64,
    counters: Arc<Counters>,
}

impl Opened {
    pub(super) fn new(made: Tick, counters: Arc<Counters>) -> Self {
        let (last, bound, answered) = (AtomicU32::new(0), AtomicU32::new(u32::MAX), AtomicU64::new(0));
        Self { made, last, bound, at: [const { AtomicU64::new(0) }; REMEMBERED], answered, counters }
    }

    /// Whether any has been.
    pub(super) fn any(&self) -> bool {
        self.last.load(Ordering::Relaxed) > 0
    }

    /// These bytes were written.
    pub(super) fn written(&self, frames: &mut Frames, bytes: &[u8]) {
        let mut now = None;
        frames.follow(bytes, |frame| match frame {
            // Trailers come later on a stream that is open.
            Seen::Headers(stream) if stream > self.last.load(Ordering::Relaxed) => {
                let now = now.get_or_insert_with(time::now);
                self.place(stream).store(now.as_nanos(), Ordering::Relaxed);
                self.last.store(stream, Ordering::Release);
            }
            Seen::Ping { answers: false } => self.counters.ping(),
            _ => {}
        });
    }

    /// These bytes were read.
    pub(super) fn read(&self, frames: &mut Frames, bytes: &[u8]) {
        frames.follow(bytes, |frame| match frame {
            Seen::GoAway { last } => _ = self.bound.fetch_min(last, Ordering::Release),
            Seen::Ping { answers: true } => self.counters.pong(),
            _ => {}
        });
    }

    /// Whether the server has said that the connection takes no more streams.
    pub(super) fn was_sent_away(&self) -> bool {
        self.bound.load(Ordering::Relaxed) != u32::MAX
    }

    /// Whether the server has said that it will not process this stream or, of one that isn't
    /// opened, whichever that may become.
    pub(super) fn excludes(&self, stream: Option<u32>) -> bool {
        // Streams are opened in order.
        let least = stream.unwrap_or_else(|| self.last.load(Ordering::Acquire).saturating_add(1));
        least > self.bound.load(Ordering::Acquire)
    }

    /// How long a request that set out then had to wait until its stream was opened, in
    /// nanoseconds; `None` while it has to, and zero where that isn't known any more.
    pub(super) fn waited(&self, stream: u32, set_out: Tick) -> Option<u64> {
        let last = self.last.load(Ordering::Acquire);
        if stream > last {
            return None;
        }
        if (last - stream) as usize >= 2 * REMEMBERED {
            return Some(0);
        }
        let at = Tick::from_nanos(self.place(stream).load(Ordering::Relaxed));
        Some(at.nanos_since(set_out.max(self.made)))
    }

    /// An answer came.
    pub(super) fn answered(&self) {
        let opened = self.place(self.last.load(Ordering::Acquire)).load(Ordering::Relaxed);
        self.answered.store(opened, Ordering::Relaxed);
    }

    /// No later than when the last answer came.
    pub(super) fn last_answered(&self) -> Tick {
        Tick::from_nanos(self.answered.load(Ordering::Relaxed))
    }

    fn place(&self, stream: u32) -> &AtomicU64 {
        &self.at[(stream / 2) as usize % REMEMBERED]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, stream: u32, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![a, b, c, kind, 0];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend(std::iter::repeat_n(HEADERS, length));
        frame
    }

    proptest! {
        #[test]
        fn every_head_is_found_wherever_the_writes_are_cut(
            frames in prop::collection::vec((0..10_u8, 0..100_u32, 0..300_usize), 0..20),
            cuts in prop::collection::vec(1..40_usize, 1..20),
        ) {
            let mut bytes = vec![HEADERS; PREFACE];
            for (kind, stream, length) in &frames {
                bytes.extend(frame(*kind, *stream, *length));
            }
            let (mut reader, mut found, mut rest) = (Frames::written(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                reader.follow(piece, |frame| found.push(frame));
                rest = after;
            }
            let last = u32::from_be_bytes([HEADERS; LAST]);
            let of_interest: Vec<_> = frames
                .iter()
                .filter_map(|(kind, stream, length)| match *kind {
                    HEADERS => Some(Seen::Headers(*stream)),
                    GOAWAY if *length >= LAST => Some(Seen::GoAway { last }),
                    PING => Some(Seen::Ping { answers: false }),
                    _ => None,
                })
                .collect();
            prop_assert_eq!(found, of_interest);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_waited_for_from_when_its_connection_was_there_until_it_is_opened() {
        let ms = std::time::Duration::from_millis;
        let set_out = time::now();
        tokio::time::advance(ms(10)).await;
        let opened = Opened::new(time::now(), Arc::default());
        tokio::time::advance(ms(30)).await;
        assert_eq!(opened.waited(1, set_out), None);
        let mut frames = Frames::written();
        opened.written(&mut frames, &[vec![0; PREFACE], frame(HEADERS, 1, 5)].concat());
        assert_eq!(opened.waited(1, set_out), Some(30_000_000));
        assert_eq!(opened.waited(3, set_out), None);
        for stream in (3..1_000).step_by(2) {
            opened.written(&mut frames, &frame(HEADERS, stream, 5));
        }
        assert_eq!(opened.waited(1, set_out), Some(0), "long ago");
    }

    #[test]
    fn pings_are_counted_as_they_are_sent_and_answered() {
        let counters = Arc::<Counters>::default();
        let opened = Opened::new(Tick::ZERO, Arc::clone(&counters));
        let (mut written, mut read) = (Frames::written(), Frames::read());
        let (ping, mut pong) = (frame(PING, 0, 8), frame(PING, 0, 8));
        pong[4] = ACK;
        opened.written(&mut written, &[vec![0; PREFACE], ping.clone(), ping.clone()].concat());
        opened.read(&mut read, &pong);
        // The server's own, and our answer to it.
        opened.read(&mut read, &ping);
        opened.written(&mut written, &pong);
        assert_eq!((counters.read().pings, counters.read().pongs), (2, 1));
    }

    /// As servers do that end gracefully: all that is on its way may still come, and then it says
    /// what has.
    #[test]
    fn a_goaway_excludes_what_is_above_its_last_stream_and_what_is_not_opened_yet() {
        let opened = Opened::new(Tick::ZERO, Arc::default());
        let (mut written, mut read) = (Frames::written(), Frames::read());
        let heads = [frame(HEADERS, 1, 5), frame(HEADERS, 3, 5), frame(HEADERS, 5, 5)].concat();
        opened.written(&mut written, &[vec![0; PREFACE], heads].concat());
        let mut goes_away = |last: u32| {
            let mut frame = frame(GOAWAY, 0, 8);
            frame[HEAD..HEAD + LAST].copy_from_slice(&last.to_be_bytes());
            opened.read(&mut read, &frame);
        };
        goes_away(STREAM);
        assert!(!opened.excludes(Some(5)) && !opened.excludes(None));
        goes_away(3);
        assert!(opened.excludes(Some(5)) && opened.excludes(None) && !opened.excludes(Some(3)));
        // A last stream that was never opened excludes nobody who may become it.
        let opened = Opened::new(Tick::ZERO, Arc::default());
        let mut frame = frame(GOAWAY, 0, 8);
        frame[HEAD..HEAD + LAST].copy_from_slice(&1_u32.to_be_bytes());
        opened.read(&mut Frames::read(), &frame);
        assert!(!opened.excludes(None));
    }
}
