//! The response to a blocking call.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use http::{Extensions, HeaderMap, StatusCode, Version};
use reqwest::Url;

use super::runtime::Runtime;
use crate::error::{Error, ErrorKind};
use crate::outcome::report::CallReport;

/// A response to a call, whose body is still to come. [`Read`] reads it piece by piece, without a
/// limit; its errors have an [`Error`] in them.
///
/// It holds its attempt's place in the upstream until its body has been read or it is dropped.
pub struct Response {
    inner: crate::Response,
    /// What `read` has left of the last piece.
    rest: Bytes,
    runtime: Arc<Runtime>,
}

impl Response {
    pub(super) fn new(inner: crate::Response, runtime: Arc<Runtime>) -> Self {
        Self { inner, rest: Bytes::new(), runtime }
    }

    /// How the call went, up to this response's head.
    pub fn report(&self) -> &CallReport {
        self.inner.report()
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// The HTTP version.
    pub fn version(&self) -> Version {
        self.inner.version()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.inner.headers_mut()
    }

    /// The length of the body, if it is known before reading.
    pub fn content_length(&self) -> Option<u64> {
        self.inner.content_length()
    }

    /// The URL that answered, after redirects.
    pub fn url(&self) -> &Url {
        self.inner.url()
    }

    /// The address that answered.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.inner.remote_addr()
    }

    /// What the transport attached.
    pub fn extensions(&self) -> &Extensions {
        self.inner.extensions()
    }

    /// What the transport attached, to change.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        self.inner.extensions_mut()
    }

    /// The cookies that it sets. Those that can't be read are left out.
    #[cfg(feature = "cookies")]
    pub fn cookies(&self) -> impl Iterator<Item = reqwest::cookie::Cookie<'_>> {
        self.inner.cookies()
    }

    /// Whether this is an older answer, given because the call failed; see [`stale`](crate::stale).
    #[cfg(feature = "cache")]
    pub fn is_degraded(&self) -> bool {
        self.inner.is_degraded()
    }

    /// Why this is an older answer and how old, if it is one.
    #[cfg(feature = "cache")]
    pub fn degraded(&self) -> Option<&crate::stale::Degraded> {
        self.inner.degraded()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// Those of [`Response::chunk`](crate::Response::chunk), and [`ErrorKind::WouldBlock`] in async
    /// code.
    pub fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        self.runtime.wait(self.inner.chunk())?
    }

    /// The whole body, up to the client's limit for bodies read whole; what was read before isn't
    /// in it.
    ///
    /// # Errors
    /// Those of [`chunk`](Self::chunk), and [`ErrorKind::BodyTooLarge`].
    pub fn bytes(self) -> Result<Bytes, Error> {
        let Self { inner, rest, runtime } = self;
        let body = runtime.wait(inner.bytes())??;
        Ok(if rest.is_empty() { body } else { [rest, body].concat().into() })
    }

    /// The whole body as text, decoded as [`Response::text`](crate::Response::text) does.
    ///
    /// # Errors
    /// Those of [`bytes`](Self::bytes).
    pub fn text(self) -> Result<String, Error> {
        if self.rest.is_empty() {
            return self.runtime.wait(self.inner.text())?;
        }
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// Those of [`bytes`](Self::bytes), and [`ErrorKind::Decode`].
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, Error> {
        if self.rest.is_empty() {
            return self.runtime.wait(self.inner.json())?;
        }
        let body = self.bytes()?;
        serde_json::from_slice(&body).map_err(|error| Error::new(ErrorKind::Decode).because(error))
    }

    /// Writes the body to `writer`, piece by piece and without a limit. How many bytes there were.
    ///
    /// # Errors
    /// Those of [`chunk`](Self::chunk), and [`ErrorKind::Body`] when `writer` fails.
    pub fn copy_to(&mut self, writer: &mut (impl io::Write + ?Sized)) -> Result<u64, Error> {
        let mut written = 0;
        while let Some(piece) = self.chunk()? {
            let failed = |error| Error::new(ErrorKind::Body).says("it couldn't be written").because(error);
            writer.write_all(&piece).map_err(failed)?;
            written += piece.len() as u64;
        }
        Ok(written)
    }

    /// Turns a 4xx or 5xx into an error of the kind [`ErrorKind::Status`].
    ///
    /// # Errors
    /// When the status is 4xx or 5xx.
    pub fn error_for_status(self) -> Result<Self, Error> {
        match self.error_for_status_ref() {
            Ok(_) => Ok(self),
            Err(error) => Err(error),
        }
    }

    /// The same, keeping the response.
    ///
    /// # Errors
    /// When the status is 4xx or 5xx.
    pub fn error_for_status_ref(&self) -> Result<&Self, Error> {
        self.inner.error_for_status_ref().map(|_| self)
    }
}

impl Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.chunk().map_err(io::Error::other)?.unwrap_or_default();
        }
        let read = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
