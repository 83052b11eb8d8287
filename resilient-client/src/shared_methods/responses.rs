//! Reading responses.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::error::{Error, ErrorKind};
use crate::outcome::report::CallReport;

/// A response whose body comes in pieces.
pub(crate) trait Pieces {
    /// The next one; `None` at the end.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, Error>;

    /// Nothing more will come.
    fn is_read(&self) -> bool;

    /// The most that is read of it at once.
    fn max_body(&self) -> usize;

    fn call_report(&self) -> &CallReport;

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind).with_report(self.call_report().clone())
    }

    /// The whole body. One that came in one piece isn't copied.
    async fn read_whole(&mut self) -> Result<Bytes, Error> {
        let Some(first) = self.next_piece().await? else { return Ok(Bytes::new()) };
        self.check_size(first.len())?;
        if self.is_read() {
            return Ok(first);
        }
        let Some(second) = self.next_piece().await? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(piece) = next {
            self.check_size(whole.len().saturating_add(piece.len()))?;
            whole.extend_from_slice(&piece);
            next = self.next_piece().await?;
        }
        Ok(whole.freeze())
    }

    fn check_size(&self, size: usize) -> Result<(), Error> {
        if size <= self.max_body() {
            return Ok(());
        }
        let too_large = self.error(ErrorKind::BodyTooLarge);
        Err(too_large.says(format!("more than {} bytes", self.max_body())))
    }
}

/// A body as text, decoded as its headers say, and by `default` where they say nothing.
#[cfg(feature = "charset")]
pub(crate) fn text(headers: &HeaderMap, bytes: Bytes, default: &str) -> String {
    use encoding_rs::{Encoding, UTF_8};

    let said = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let said = said.and_then(|value| value.parse::<mime::Mime>().ok());
    let said = said.as_ref().and_then(|said| said.get_param(mime::CHARSET));
    let label = said.map_or(default, |charset| charset.as_str());
    let encoding = Encoding::for_label(label.as_bytes()).unwrap_or(UTF_8);
    if encoding == UTF_8
        && !bytes.starts_with(b"\xef\xbb\xbf")
        && !bytes.starts_with(b"\xfe\xff")
        && !bytes.starts_with(b"\xff\xfe")
    {
        return utf8(bytes);
    }
    encoding.decode(&bytes).0.into_owned()
}

#[cfg(not(feature = "charset"))]
pub(crate) fn text(_: &HeaderMap, bytes: Bytes, _: &str) -> String {
    utf8(bytes)
}

/// What isn't UTF-8 becomes U+FFFD. Valid text that nobody shares isn't copied.
fn utf8(bytes: Bytes) -> String {
    String::from_utf8(bytes.into())
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Reading a response whole, and its status as an error. For a struct that is [`Pieces`], with a
/// `status` and a `status_error`.
macro_rules! response_methods {
    () => {
        /// The whole body, up to the client's limit for bodies read whole.
        ///
        /// # Errors
        /// Those of [`chunk`](Self::chunk), and
        /// [`ErrorKind::BodyTooLarge`](crate::ErrorKind::BodyTooLarge).
        pub async fn bytes(mut self) -> Result<bytes::Bytes, crate::Error> {
            self.read_whole().await
        }

        /// The whole body as JSON.
        ///
        /// # Errors
        /// Those of [`bytes`](Self::bytes), and [`ErrorKind::Decode`](crate::ErrorKind::Decode).
        #[cfg(feature = "json")]
        pub async fn json<T: serde::de::DeserializeOwned>(mut self) -> Result<T, crate::Error> {
            let bytes = self.read_whole().await?;
            serde_json::from_slice(&bytes)
                .map_err(|error| self.error(crate::ErrorKind::Decode).because(error))
        }

        /// The whole body as text. With the feature `charset` it is decoded as its `Content-Type`
        /// says, and as UTF-8 where that says nothing; without, always as UTF-8. What can't be
        /// decoded becomes U+FFFD.
        ///
        /// # Errors
        /// Those of [`bytes`](Self::bytes).
        pub async fn text(mut self) -> Result<String, crate::Error> {
            let bytes = self.read_whole().await?;
            Ok(crate::shared_methods::text(self.headers(), bytes, "utf-8"))
        }

        /// The whole body as text, decoded as its `Content-Type` says, and by `default` where that
        /// says nothing. A mark of UTF-8 or UTF-16 at its beginning outranks both.
        ///
        /// # Errors
        /// Those of [`bytes`](Self::bytes).
        #[cfg(feature = "charset")]
        pub async fn text_with_charset(mut self, default: &str) -> Result<String, crate::Error> {
            let bytes = self.read_whole().await?;
            Ok(crate::shared_methods::text(self.headers(), bytes, default))
        }

        /// Turns a 4xx or 5xx into an error of the kind
        /// [`ErrorKind::Status`](crate::ErrorKind::Status).
        ///
        /// # Errors
        /// When the status is 4xx or 5xx.
        pub fn error_for_status(self) -> Result<Self, crate::Error> {
            match self.error_for_status_ref() {
                Ok(_) => Ok(self),
                Err(error) => Err(error),
            }
        }

        /// The same, keeping the response.
        ///
        /// # Errors
        /// When the status is 4xx or 5xx.
        pub fn error_for_status_ref(&self) -> Result<&Self, crate::Error> {
            let status = self.status();
            if status.is_client_error() || status.is_server_error() {
                Err(self.status_error(status))
            } else {
                Ok(self)
            }
        }
    };
}

pub(crate) use response_methods;
