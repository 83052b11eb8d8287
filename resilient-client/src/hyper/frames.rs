//! The frames that go out on an HTTP/2 connection, as far as it takes to know which streams have been opened, and when.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::time::{self, Tick};

/// What a client sends before its first frame (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const HEAD: usize = 9;
const HEADERS: u8 = 1;
/// For so many of the streams opened last it is known when.
const REMEMBERED: usize = 128;

/// Reads what is written, however it is cut up.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes to come before the next frame's head.
    skip: usize,
    /// As much of that head as has come.
    head: [u8; HEAD],
    got: usize,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { skip: PREFACE, head: [0; HEAD], got: 0 }
    }

    /// The streams that these bytes open.
    fn follow(&mut self, mut bytes: &[u8], mut opens: impl FnMut(u32)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.split_at(skipped).1;
                continue;
            }
            let (piece, rest) = bytes.split_at((HEAD - self.got).min(bytes.len()));
            if let Some(place) = self.head.get_mut(self.got..self.got + piece.len()) {
                place.copy_from_slice(piece);
            }
            (self.got, bytes) = (self.got + piece.len(), rest);
            if self.got == HEAD {
                let [a, b, c, kind, _, id @ ..] = self.head;
                self.got = 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                if kind == HEADERS {
                    opens(u32::from_be_bytes(id) & (u32::MAX >> 1));
                }
            }
        }
    }
}

/// Which streams have been opened, and when.
#[derive(Debug)]
pub(super) struct Opened {
    /// When the connection was made.
    made: Tick,
    last: AtomicU32,
    at: [AtomicU64; REMEMBERED],
    /// When the last stream had been opened by the time an answer came, as a `Tick`: nearly when that was, on a connection that
    /// is busy, and for less than to look at the clock.
    answered: AtomicU64,
}

impl Opened {
    pub(super) fn new(made: Tick) -> Self {
        let (last, answered) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { made, last, at: [const { AtomicU64::new(0) }; REMEMBERED], answered }
    }

    /// Whether any has been.
    pub(super) fn any(&self) -> bool {
        self.last.load(Ordering::Relaxed) > 0
    }

    /// These bytes were written.
    pub(super) fn written(&self, frames: &mut Frames, bytes: &[u8]) {
        let mut now = None;
        frames.follow(bytes, |stream| {
            // Trailers come later on a stream that is open.
            if stream > self.last.load(Ordering::Relaxed) {
                let now = now.get_or_insert_with(time::now);
                self.place(stream).store(now.as_nanos(), Ordering::Relaxed);
                self.last.store(stream, Ordering::Release);
            }
        });
    }

    /// How long a request that set out then had to wait until its stream was opened, in nanoseconds; `None` while it has to,
    /// and zero where that isn't known any more.
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
            let (mut reader, mut found, mut rest) = (Frames::new(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                reader.follow(piece, |stream| found.push(stream));
                rest = after;
            }
            let opened: Vec<_> = frames.iter().filter(|frame| frame.0 == HEADERS).map(|frame| frame.1).collect();
            prop_assert_eq!(found, opened);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_waited_for_from_when_its_connection_was_there_until_it_is_opened() {
        let ms = std::time::Duration::from_millis;
        let set_out = time::now();
        tokio::time::advance(ms(10)).await;
        let opened = Opened::new(time::now());
        tokio::time::advance(ms(30)).await;
        assert_eq!(opened.waited(1, set_out), None);
        let mut frames = Frames::new();
        opened.written(&mut frames, &[vec![0; PREFACE], frame(HEADERS, 1, 5)].concat());
        assert_eq!(opened.waited(1, set_out), Some(30_000_000));
        assert_eq!(opened.waited(3, set_out), None);
        for stream in (3..1_000).step_by(2) {
            opened.written(&mut frames, &frame(HEADERS, stream, 5));
        }
        assert_eq!(opened.waited(1, set_out), Some(0), "long ago");
    }
}
