//! Forms of several parts (`multipart/form-data`, RFC 7578) that can be sent again.
//!
//! The names are reqwest's, so that a program that builds a form changes the path it imports it
//! from. The difference is what a failed attempt leaves: reqwest's form is a stream, and gone once
//! it is sent. This one is sent again if each of its parts can be:
//!
//! | part | sent again |
//! |---|---|
//! | [`Part::text`], [`Part::bytes`] | yes |
//! | [`Part::file`] | yes: the file is opened anew for each attempt; a pipe is read once |
//! | [`Part::stream`], [`Part::stream_with_length`] | no, and so the form isn't: the report says [`Decline::BodyIsStream`](crate::Decline::BodyIsStream) |
//!
//! A `POST` is only repeated at all if that is safe: see
//! [`idempotency_key`](crate::RequestBuilder::idempotency_key).
//!
//! ```no_run
//! # async fn run(client: resilient_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use resilient_client::multipart::Form;
//!
//! let form = Form::new().text("title", "Invoice 7").file("invoice", "invoice.pdf").await?;
//! let request = client.post("http://files:3000/").multipart(form).generate_idempotency_key();
//! println!("{}", request.send().await?.status());
//! # Ok(())
//! # }
//! ```

mod body;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use mime_guess::Mime;
use reqwest::Body;

use crate::error::{Error, ErrorKind};

pub(crate) use body::FormBody;
use body::Segment;

/// A form of several parts.
pub struct Form {
    boundary: String,
    parts: Vec<(Cow<'static, str>, Part)>,
}

/// One part of a [`Form`].
pub struct Part {
    mime: Option<Mime>,
    file_name: Option<Cow<'static, str>>,
    headers: HeaderMap,
    value: Segment,
}

/// What a form is as a request's body.
pub(crate) enum Content {
    /// All of it.
    Bytes(Bytes),
    /// Some of it is in files or comes as a stream.
    Body(FormBody),
}

impl Form {
    /// A form without parts.
    pub fn new() -> Self {
        Self { boundary: format!("----{}", uuid::Uuid::new_v4().simple()), parts: Vec::new() }
    }

    /// What stands between its parts: 122 random bits, which no part can hold by chance.
    pub fn boundary(&self) -> &str {
        &self.boundary
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.part(name, Part::text(value))
    }

    /// Adds a file; see [`Part::file`].
    ///
    /// # Errors
    /// As [`Part::file`].
    pub async fn file(self, name: impl Into<Cow<'static, str>>, path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(self.part(name, Part::file(path).await?))
    }

    /// The same for code that isn't async: it waits for the file system.
    ///
    /// # Errors
    /// As [`Part::file`].
    pub fn blocking_file(
        self,
        name: impl Into<Cow<'static, str>>,
        path: impl AsRef<Path>,
    ) -> io::Result<Self> {
        Ok(self.part(name, Part::blocking_file(path)?))
    }

    /// Adds a part.
    #[must_use]
    pub fn part(mut self, name: impl Into<Cow<'static, str>>, part: Part) -> Self {
        self.parts.push((name.into(), part));
        self
    }

    /// The form as a stream of its pieces, to be sent once.
    #[cfg(feature = "stream")]
    pub fn into_stream(
        self,
    ) -> impl futures_core::Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send + Sync
    {
        http_body_util::BodyDataStream::new(FormBody::new(self.into_segments()))
    }

    /// The `Content-Type` of a request with this form.
    pub(crate) fn content_type(&self) -> Result<HeaderValue, Error> {
        let value = HeaderValue::try_from(format!("multipart/form-data; boundary={}", self.boundary));
        value.map_err(|error| Error::new(ErrorKind::Request).because(error))
    }

    pub(crate) fn into_content(self) -> Content {
        let mut segments = self.into_segments();
        if segments.iter().all(|segment| matches!(segment, Segment::Bytes(_))) {
            let all = segments.drain(..).filter_map(|segment| match segment {
                Segment::Bytes(bytes) => Some(bytes),
                _ => None,
            });
            return Content::Bytes(all.collect::<Vec<_>>().concat().into());
        }
        Content::Body(FormBody::new(segments))
    }

    fn into_segments(self) -> Vec<Segment> {
        let mut segments = Vec::with_capacity(self.parts.len() * 2 + 1);
        let mut between = String::new();
        for (name, part) in self.parts {
            // A `String` takes whatever it is given.
            let _ = write!(between, "--{}\r\n", self.boundary);
            part.head(&name, &mut between);
            // What a header's value holds needn't be text.
            let mut head = std::mem::take(&mut between).into_bytes();
            for (name, value) in &part.headers {
                head.extend_from_slice(name.as_str().as_bytes());
                head.extend_from_slice(b": ");
                head.extend_from_slice(value.as_bytes());
                head.extend_from_slice(b"\r\n");
            }
            head.extend_from_slice(b"\r\n");
            segments.push(Segment::Bytes(head.into()));
            segments.push(part.value);
            between.push_str("\r\n");
        }
        let _ = write!(between, "--{}--\r\n", self.boundary);
        segments.push(Segment::Bytes(between.into()));
        segments
    }
}

impl Part {
    fn new(value: Segment) -> Self {
        Self { mime: None, file_name: None, headers: HeaderMap::new(), value }
    }

    /// A text.
    pub fn text(value: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Segment::Bytes(match value.into() {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        }))
    }

    /// Bytes.
    pub fn bytes(value: impl Into<Cow<'static, [u8]>>) -> Self {
        Self::new(Segment::Bytes(match value.into() {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        }))
    }

    /// A stream, which is sent once, and so is the form. Unless the body knows its length, the form
    /// goes out in chunks.
    pub fn stream(value: impl Into<Body>) -> Self {
        let body = value.into();
        let length = http_body::Body::size_hint(&body).exact();
        Self::new(Segment::Stream(Box::new(body), length))
    }

    /// The same, of so many bytes. An attempt that finds fewer or more fails.
    pub fn stream_with_length(value: impl Into<Body>, length: u64) -> Self {
        Self::new(Segment::Stream(Box::new(value.into()), Some(length)))
    }

    /// A file, which each attempt opens and reads anew: as many bytes as it has now. An attempt
    /// that finds fewer, or no file, fails. What doesn't say how many it has, such as a pipe or a
    /// file of `/proc`, is read to its end, and the form goes out in chunks. File name and type are
    /// guessed from the path.
    ///
    /// # Errors
    /// When the file can't be read, or is a directory.
    pub async fn file(path: impl AsRef<Path>) -> io::Result<Self> {
        let path: Arc<Path> = path.as_ref().into();
        let there = Arc::clone(&path);
        let found = tokio::task::spawn_blocking(move || Segment::at(&there)).await??;
        Ok(Self::of_file(&path, found))
    }

    /// The same for code that isn't async: it waits for the file system.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn blocking_file(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        Ok(Self::of_file(path, Segment::at(path)?))
    }

    fn of_file(path: &Path, found: Segment) -> Self {
        let mime = mime_guess::from_path(path).first_or_octet_stream();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut part = Self::new(found);
        part.mime = Some(mime);
        part.file_name = name.map(Cow::Owned);
        part
    }

    /// Its type, such as `image/png`.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when that is none.
    pub fn mime_str(mut self, mime: &str) -> Result<Self, Error> {
        let parsed = mime.parse().map_err(|error| Error::new(ErrorKind::Request).because(error));
        self.mime = Some(parsed?);
        Ok(self)
    }

    /// The name of the file that it is said to be.
    #[must_use]
    pub fn file_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.file_name = Some(name.into());
        self
    }

    /// Headers of its own, beside `Content-Disposition` and `Content-Type`.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    fn head(&self, name: &str, out: &mut String) {
        let _ = write!(out, "Content-Disposition: form-data; name=\"{}\"", Escaped(name));
        if let Some(file) = &self.file_name {
            let _ = write!(out, "; filename=\"{}\"", Escaped(file));
        }
        out.push_str("\r\n");
        if let Some(mime) = &self.mime {
            let _ = write!(out, "Content-Type: {mime}\r\n");
        }
    }
}

/// A name as browsers write it, in UTF-8 with what would end it escaped
/// ([WHATWG](https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data)).
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '"' => f.write_str("%22"),
            '\r' => f.write_str("%0D"),
            '\n' => f.write_str("%0A"),
            c => f.write_char(c),
        })
    }
}

impl Default for Form {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Form {
    /// Without what the parts hold, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").field("boundary", &self.boundary).field("parts", &self.parts).finish()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("mime", &self.mime.as_ref().map(Mime::as_ref))
            .field("file_name", &self.file_name)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(form: Form) -> String {
        match form.into_content() {
            Content::Bytes(bytes) => String::from_utf8(bytes.into()).unwrap(),
            Content::Body(body) => panic!("{body:?}"),
        }
    }

    #[test]
    fn a_form_of_bytes_is_bytes() {
        let mut headers = HeaderMap::new();
        headers.insert("x-part", "7".parse().unwrap());
        let png = Part::bytes(&b"\x89PNG"[1..]).file_name("a \"b\"\r\n.png").mime_str("image/png").unwrap();
        let form = Form::new().text("title", "Invoice").part("pic\"ture", png.headers(headers));
        let b = form.boundary().to_owned();
        let expected = format!(
            "--{b}\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nInvoice\r\n\
             --{b}\r\nContent-Disposition: form-data; name=\"pic%22ture\"; filename=\"a %22b%22%0D%0A.png\"\r\n\
             Content-Type: image/png\r\nx-part: 7\r\n\r\nPNG\r\n--{b}--\r\n"
        );
        assert_eq!(form.content_type().unwrap(), format!("multipart/form-data; boundary={b}"));
        assert_eq!(text(form), expected);
        let empty = Form::default();
        let b = empty.boundary().to_owned();
        assert_eq!(text(empty), format!("--{b}--\r\n"));
    }

    #[test]
    fn what_is_no_type_is_refused() {
        let error = Part::text("x").mime_str("no type").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
    }

    #[test]
    fn nothing_of_a_parts_content_is_shown() {
        let form = Form::new().text("password", "s3cr3t").part("s", Part::stream("s3cr3t"));
        let shown = format!("{form:?}");
        assert!(shown.contains("password") && !shown.contains("s3cr3t"), "{shown}");
    }
}
