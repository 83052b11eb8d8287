//! A form on its way out, piece by piece.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::Body;
use tokio::fs::File;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::JoinHandle;

use crate::error::BoxError;

/// How much of a file is read at once.
const PIECE: usize = 64 * 1024;

/// A stretch of a form.
pub(super) enum Segment {
    Bytes(Bytes),
    /// So many bytes of a file, which is opened when its turn comes.
    File(Arc<Path>, u64),
    /// All of what has bytes and doesn't know how many; it may be opened again, or once.
    Endless(Arc<Path>, bool),
    /// Of so many bytes, if that is known.
    Stream(Box<Body>, Option<u64>),
}

impl Segment {
    fn length(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(_, length) => Some(*length),
            Self::Stream(_, length) => *length,
            Self::Endless(..) => None,
        }
    }

    /// What is found at a path.
    ///
    /// # Errors
    /// When there is nothing to be read.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let about = std::fs::metadata(path)?;
        if about.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !about.is_file() {
            // A pipe: there is nothing in it to look at, and it is read once.
            return Ok(Self::Endless(path.into(), false));
        }
        let mut file = std::fs::File::open(path)?;
        // A file that the system makes up, of /proc say, claims to be empty.
        if about.len() == 0 && io::Read::read(&mut file, &mut [0])? > 0 {
            return Ok(Self::Endless(path.into(), true));
        }
        Ok(Self::File(path.into(), about.len()))
    }

    /// Another of the same; a stream has none.
    fn again(&self) -> Option<Self> {
        match self {
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::File(path, length) => Some(Self::File(Arc::clone(path), *length)),
            Self::Endless(path, true) => Some(Self::Endless(Arc::clone(path), true)),
            Self::Stream(..) | Self::Endless(_, false) => None,
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(path, length) => write!(f, "{length} bytes of {}", path.display()),
            Self::Endless(path, _) => write!(f, "all of {}", path.display()),
            Self::Stream(_, Some(length)) => write!(f, "a stream of {length} bytes"),
            Self::Stream(_, None) => f.write_str("a stream"),
        }
    }
}

/// A form's body. As long as nothing has been read of it, it can be made again unless a part is a
/// stream.
#[derive(Debug)]
pub(crate) struct FormBody {
    /// What is still to come, the last first.
    rest: Vec<Segment>,
    /// Of all, if it is known.
    length: Option<u64>,
    now: Now,
}

/// What is being read.
enum Now {
    Nothing,
    /// Each with how much is to come, if that is known.
    Opening(JoinHandle<io::Result<std::fs::File>>, Option<u64>),
    Reading(File, Option<u64>, Vec<u8>),
    Stream(Box<Body>, Option<u64>),
}

impl FormBody {
    pub(super) fn new(mut segments: Vec<Segment>) -> Self {
        segments.reverse();
        let length = segments.iter().map(Segment::length).sum();
        Self { rest: segments, length, now: Now::Nothing }
    }

    /// Whether [`again`](Self::again) gives another.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.rest.iter().any(|segment| matches!(segment, Segment::Stream(..) | Segment::Endless(_, false)))
    }

    /// Another of the same, if nothing has been read of this one and no part is a stream.
    pub(crate) fn again(&self) -> Option<Self> {
        let rest = self.rest.iter().map(Segment::again).collect::<Option<Vec<_>>>()?;
        matches!(self.now, Now::Nothing).then_some(Self { rest, length: self.length, now: Now::Nothing })
    }
}

/// One piece of a file, `left` bytes of which are to come; `None` at the end.
fn read(
    file: &mut File,
    left: &mut Option<u64>,
    space: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Bytes>>> {
    let most = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(PIECE).min(PIECE);
    space.resize(most, 0);
    let mut buffer = ReadBuf::new(space);
    ready!(Pin::new(file).poll_read(cx, &mut buffer))?;
    let piece = Bytes::copy_from_slice(buffer.filled());
    if piece.is_empty() {
        return Poll::Ready(ended(*left, "the file has become").map(|()| None));
    }
    // No more were asked for.
    *left = left.map(|left| left.saturating_sub(piece.len() as u64));
    Poll::Ready(Ok(Some(piece)))
}

/// The end of what still owes so many bytes. To send less than was promised would leave the server
/// waiting for the rest.
fn ended(left: Option<u64>, what: &str) -> io::Result<()> {
    match left {
        None | Some(0) => Ok(()),
        Some(left) => {
            let shorter = format!("{what} {left} bytes shorter");
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, shorter))
        }
    }
}

/// Takes a stream's piece off what it owes. What is beyond that would be sent in place of the
/// form's end.
fn owes(left: &mut Option<u64>, piece: &Frame<Bytes>) -> io::Result<()> {
    let length = piece.data_ref().map_or(0, Bytes::len) as u64;
    if let Some(all) = left {
        *all =
            all.checked_sub(length).ok_or_else(|| io::Error::other("the stream is longer than was said"))?;
    }
    Ok(())
}

impl http_body::Body for FormBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let this = &mut *self;
            match &mut this.now {
                Now::Nothing => match this.rest.pop() {
                    None => return Poll::Ready(None),
                    Some(Segment::Bytes(bytes)) if bytes.is_empty() => {}
                    Some(Segment::Bytes(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Some(Segment::File(path, length)) => {
                        let opening = tokio::task::spawn_blocking(move || std::fs::File::open(path));
                        this.now = Now::Opening(opening, Some(length));
                    }
                    Some(Segment::Endless(path, _)) => {
                        let opening = tokio::task::spawn_blocking(move || std::fs::File::open(path));
                        this.now = Now::Opening(opening, None);
                    }
                    Some(Segment::Stream(body, length)) => this.now = Now::Stream(body, length),
                },
                Now::Opening(opening, length) => {
                    let file = ready!(Pin::new(opening).poll(cx))??;
                    this.now = Now::Reading(File::from_std(file), *length, Vec::new());
                }
                Now::Reading(_, Some(0), _) => this.now = Now::Nothing,
                Now::Reading(file, left, space) => match ready!(read(file, left, space, cx))? {
                    Some(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    None => this.now = Now::Nothing,
                },
                Now::Stream(body, left) => match ready!(Pin::new(body).poll_frame(cx)?) {
                    // Trailers have no place in the middle.
                    Some(frame) if !frame.is_data() => {}
                    Some(frame) => {
                        owes(left, &frame)?;
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    None => {
                        ended(*left, "the stream is")?;
                        this.now = Now::Nothing;
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && matches!(self.now, Now::Nothing | Now::Reading(_, Some(0), _))
    }

    /// Of all, which is what is asked before anything is read.
    fn size_hint(&self) -> SizeHint {
        match (&self.now, self.length) {
            (Now::Nothing, Some(length)) => SizeHint::with_exact(length),
            _ => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Opening(..) => "Opening",
            Self::Reading(..) => "Reading",
            Self::Stream(..) => "Stream",
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn bytes(text: &'static str) -> Segment {
        Segment::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_file_is_read_anew_each_time() {
        let path = std::env::temp_dir().join(format!("form-{}", uuid::Uuid::new_v4()));
        let long = "x".repeat(PIECE + 7);
        std::fs::write(&path, &long).unwrap();
        let file = Segment::File(path.as_path().into(), long.len() as u64);
        let first = FormBody::new(vec![bytes("<"), file, bytes(">")]);
        assert_eq!(first.size_hint().exact(), Some(long.len() as u64 + 2));
        let second = first.again().unwrap();
        for body in [first, second] {
            assert!(body.is_replayable());
            assert_eq!(body.collect().await.unwrap().to_bytes(), format!("<{long}>"));
        }
        // It grows, and as much is sent as was promised; it shrinks, and that is an error.
        let promised = |length| FormBody::new(vec![Segment::File(path.as_path().into(), length)]);
        assert_eq!(promised(3).collect().await.unwrap().to_bytes(), "xxx");
        let short = promised(long.len() as u64 + 1).collect().await.unwrap_err();
        assert!(short.to_string().contains("1 bytes shorter"), "{short}");
        std::fs::remove_file(&path).unwrap();
        assert!(promised(3).collect().await.is_err());
    }

    #[tokio::test]
    async fn a_form_with_a_stream_is_sent_once() {
        let form =
            || FormBody::new(vec![bytes("<"), Segment::Stream(Box::new("tea".into()), Some(3)), bytes(">")]);
        assert!(!form().is_replayable() && form().again().is_none());
        assert_eq!(form().size_hint().exact(), Some(5));
        assert_eq!(form().collect().await.unwrap().to_bytes(), "<tea>");
        let unknown = FormBody::new(vec![Segment::Stream(Box::new("tea".into()), None)]);
        assert_eq!(unknown.size_hint().exact(), None);
    }

    /// It left the server waiting for the rest, until the attempt timeout blamed the server.
    #[tokio::test]
    async fn a_stream_that_is_not_as_long_as_was_said_is_an_error() {
        let said =
            |length| FormBody::new(vec![Segment::Stream(Box::new("tea".into()), Some(length)), bytes(">")]);
        assert_eq!(said(3).collect().await.unwrap().to_bytes(), "tea>");
        for (length, says) in
            [(4, "the stream is 1 bytes shorter"), (2, "the stream is longer than was said")]
        {
            assert_eq!(said(length).collect().await.unwrap_err().to_string(), says);
        }
    }

    /// Of a pipe, and of a file that says that it is empty, nothing was sent, and nobody was told.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_does_not_know_its_length_is_read_to_its_end() {
        let version = std::fs::read("/proc/version").unwrap();
        let form = |path: &str| FormBody::new(vec![Segment::at(Path::new(path)).unwrap()]);
        let first = form("/proc/version");
        assert!(first.is_replayable() && first.size_hint().exact().is_none());
        let second = first.again().unwrap();
        for body in [first, second] {
            assert_eq!(body.collect().await.unwrap().to_bytes(), version);
        }
        let pipe = form("/dev/null");
        assert!(!pipe.is_replayable() && pipe.again().is_none() && pipe.size_hint().exact().is_none());
        assert_eq!(pipe.collect().await.unwrap().to_bytes(), "");
        assert_eq!(Segment::at(Path::new("/")).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(Segment::at(Path::new("/none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_form_that_has_begun_is_not_made_again() {
        let mut form = FormBody::new(vec![bytes("<"), Segment::Stream(Box::new("tea".into()), Some(3))]);
        let _ = form.frame().await;
        let _ = form.frame().await;
        assert!(form.again().is_none());
    }
}
