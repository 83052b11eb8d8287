//! Reading responses.

use bytes::{Bytes, BytesMut};

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
