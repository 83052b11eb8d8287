//! What has been read of a streamed body and may still be needed, and how far each reader is.
//!
//! ```text
//!   frames read from the source:   0  1  2  3  4  5 | not read yet
//!   kept (somebody is behind):           [2  3  4  5]
//!   readers:                              ^template  ^ahead: only it may ask the source
//! ```
//!
//! A frame is kept while a reader is behind it. A reader that is alone keeps nothing. When a frame
//! doesn't fit, whoever read it becomes the *sole* reader: it goes on, the others are cut off, and
//! everything kept is freed at once, because nobody who asks the source is ever behind.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use smallvec::SmallVec;

use super::memory::{ReplayMemory, Reserved};

/// The least a frame counts for, in bytes: what keeping one takes besides its data. Otherwise a
/// source of single bytes would make a buffer hold many times its limit.
pub(super) const LEAST_COST: usize = 64;
/// What a field of trailers counts for besides its name and value, as RFC 9113 section 6.5.2 counts
/// it.
const FIELD_COST: usize = 32;

/// A frame that can be given out more than once, which `http_body::Frame` can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    /// What keeping it counts for, in bytes.
    pub(super) fn cost(&self) -> usize {
        let size = match self {
            Self::Data(data) => data.len(),
            Self::Trailers(fields) => {
                fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_COST).sum()
            }
        };
        size.max(LEAST_COST)
    }

    /// A copy in memory of its own. Data from a socket is a slice of a read buffer that may be many
    /// times larger and would live for as long as the slice: counted exactly has to mean held
    /// exactly.
    pub(super) fn detached(&self) -> Self {
        match self {
            Self::Data(data) => Self::Data(Bytes::copy_from_slice(data)),
            Self::Trailers(fields) => {
                Self::Trailers(fields.iter().map(|(name, value)| (name.clone(), own(value))).collect())
            }
        }
    }

    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(fields) => Frame::trailers(fields),
        }
    }
}

fn own(value: &HeaderValue) -> HeaderValue {
    let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else { return value.clone() };
    copy.set_sensitive(value.is_sensitive());
    copy
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReaderId(u64);

#[derive(Debug)]
struct Reader {
    id: ReaderId,
    /// The index of the frame it reads next.
    at: u64,
}

#[derive(Debug)]
struct Kept {
    piece: Piece,
    cost: usize,
}

/// What there is for a reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A frame that was kept.
    Piece(Piece),
    /// It has read all there is: ask the source.
    AtEnd,
    /// What it needs next was not kept.
    CutOff,
}

/// See the [module docs](self).
#[derive(Debug)]
pub(super) struct Recording {
    kept: VecDeque<Kept>,
    /// The index of the first frame kept, or of the next one when none is.
    first: u64,
    readers: SmallVec<[Reader; 3]>,
    joined: u64,
    /// The only reader that may go on, once a frame didn't fit.
    sole: Option<ReaderId>,
    limit: usize,
    reserved: Reserved,
}

impl Recording {
    /// An empty recording and its first reader.
    pub(super) fn new(limit: usize, memory: &'static ReplayMemory) -> (Self, ReaderId) {
        let mut recording = Self {
            kept: VecDeque::new(),
            first: 0,
            readers: SmallVec::new(),
            joined: 0,
            sole: None,
            limit,
            reserved: Reserved::none(memory),
        };
        let first = recording.add_reader();
        (recording, first)
    }

    /// Another reader, from the very beginning, beside one that stands there; `None` when the
    /// beginning wasn't kept.
    pub(super) fn join(&mut self, beside: ReaderId) -> Option<ReaderId> {
        (!self.is_cut_off(beside) && self.at(beside) == Some(0)).then(|| self.add_reader())
    }

    fn add_reader(&mut self) -> ReaderId {
        let id = ReaderId(self.joined);
        self.joined += 1;
        self.readers.push(Reader { id, at: 0 });
        id
    }

    /// A reader is gone: what only it needed is freed. True when nobody is left who could ask the
    /// source.
    pub(super) fn leave(&mut self, id: ReaderId) -> bool {
        self.readers.retain(|reader| reader.id != id);
        self.forget_what_all_have_read();
        self.sole == Some(id) || self.readers.is_empty()
    }

    pub(super) fn is_cut_off(&self, id: ReaderId) -> bool {
        self.sole.is_some_and(|sole| sole != id)
    }

    /// Whether nobody else can need what this reader gets from the source.
    pub(super) fn is_alone(&self, id: ReaderId) -> bool {
        self.sole == Some(id) || self.readers.iter().all(|reader| reader.id == id)
    }

    /// Whether this reader has read everything that was kept.
    pub(super) fn is_at_end(&self, id: ReaderId) -> bool {
        !self.is_cut_off(id) && self.at(id) == Some(self.end())
    }

    /// The next frame for a reader, which moves on past it.
    pub(super) fn read(&mut self, id: ReaderId) -> Read {
        let (false, Some(at)) = (self.is_cut_off(id), self.at(id)) else { return Read::CutOff };
        let Some(kept) = self.kept.get((at - self.first) as usize) else { return Read::AtEnd };
        let piece = kept.piece.clone();
        self.advance(id);
        Read::Piece(piece)
    }

    /// The longest frame that could be kept at all, by this buffer's own limit.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A reader at the end got a frame from the source, and has it already. `copy` is kept for
    /// those behind, if there are any and it fits; if it doesn't, they are cut off.
    pub(super) fn append(&mut self, id: ReaderId, copy: Option<Piece>, cost: usize) {
        if self.is_alone(id) {
            return;
        }
        let fits = self.reserved.bytes().checked_add(cost).is_some_and(|bytes| bytes <= self.limit);
        match copy {
            Some(piece) if fits && self.reserved.grow(cost) => {
                self.kept.push_back(Kept { piece, cost });
                self.advance(id);
            }
            _ => self.cut_off_all_but(id),
        }
    }

    fn cut_off_all_but(&mut self, id: ReaderId) {
        self.sole = Some(id);
        self.first = self.end();
        self.kept = VecDeque::new();
        self.reserved.shrink(self.reserved.bytes());
    }

    fn advance(&mut self, id: ReaderId) {
        if let Some(reader) = self.readers.iter_mut().find(|reader| reader.id == id) {
            reader.at += 1;
        }
        self.forget_what_all_have_read();
    }

    fn forget_what_all_have_read(&mut self) {
        let needed = self.readers.iter().map(|reader| reader.at).min().unwrap_or(u64::MAX);
        while self.first < needed
            && let Some(kept) = self.kept.pop_front()
        {
            self.first += 1;
            self.reserved.shrink(kept.cost);
        }
    }

    fn at(&self, id: ReaderId) -> Option<u64> {
        self.readers.iter().find(|reader| reader.id == id).map(|reader| reader.at)
    }

    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }
}
