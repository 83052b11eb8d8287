//! Building one call: reqwest's methods, and what this call asks for differently.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use reqwest::{Body, Request};

use super::{Client, Pending};
use crate::engine::options::{CallOptions, IDEMPOTENCY_KEY};
use crate::error::{Error, ErrorKind};
use crate::policy::priority::Priority;

/// A request being built. The methods are reqwest's; a mistake in any of them shows when it is built or sent.
#[must_use = "a request does nothing until `send` is called"]
pub struct RequestBuilder {
    client: Client,
    inner: reqwest::RequestBuilder,
    options: CallOptions,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, inner: reqwest::RequestBuilder) -> Self {
        Self { client, inner, options: CallOptions::new() }
    }

    fn map(mut self, change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Self {
        self.inner = change(self.inner);
        self
    }

    /// Adds a header.
    pub fn header<K, V>(self, key: K, value: V) -> Self
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.map(|inner| inner.header(key, value))
    }

    /// Sets headers, replacing those of the same names.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.map(|inner| inner.headers(headers))
    }

    /// Sets HTTP basic authentication.
    pub fn basic_auth(
        self,
        username: impl std::fmt::Display,
        password: Option<impl std::fmt::Display>,
    ) -> Self {
        self.map(|inner| inner.basic_auth(username, password))
    }

    /// Sets HTTP bearer authentication.
    pub fn bearer_auth(self, token: impl std::fmt::Display) -> Self {
        self.map(|inner| inner.bearer_auth(token))
    }

    /// Sets the body. One made of bytes can be sent again; a stream is sent once, so the call isn't retried unless it has a
    /// [`replay_buffer`](Self::replay_buffer).
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.map(|inner| inner.body(body))
    }

    /// Adds to the query string.
    #[cfg(feature = "query")]
    pub fn query(self, query: &(impl serde::Serialize + ?Sized)) -> Self {
        self.map(|inner| inner.query(query))
    }

    /// Sets a URL-encoded form as the body.
    #[cfg(feature = "form")]
    pub fn form(self, form: &(impl serde::Serialize + ?Sized)) -> Self {
        self.map(|inner| inner.form(form))
    }

    /// Sets JSON as the body.
    #[cfg(feature = "json")]
    pub fn json(self, json: &(impl serde::Serialize + ?Sized)) -> Self {
        self.map(|inner| inner.json(json))
    }

    /// Sets the HTTP version.
    pub fn version(self, version: Version) -> Self {
        self.map(|inner| inner.version(version))
    }

    /// The total time of this call: every attempt, the waits between them, and the body.
    pub fn timeout(mut self, total: Duration) -> Self {
        self.options = self.options.timeout(total);
        self
    }

    /// The time of each attempt of this call, up to its response's head.
    pub fn attempt_timeout(mut self, attempt: Duration) -> Self {
        self.options = self.options.attempt_timeout(attempt);
        self
    }

    /// Lets the response's body take longer than the total, which then bounds the time to its head. The body's idle
    /// timeout stays. Upgrades (101) and server-sent events have this without asking.
    pub fn streaming(mut self) -> Self {
        self.options = self.options.streaming();
        self
    }

    /// Keeps up to `bytes` of a streamed body as it is sent, so that the call can be retried and hedged until the stream
    /// has grown longer than that; see [`ReplayBody`](crate::ReplayBody), whose default is 64 KiB. A body of bytes is
    /// replayed for free and needs none.
    pub fn replay_buffer(mut self, bytes: usize) -> Self {
        self.options.replay_buffer = Some(bytes);
        self
    }

    /// Whether repeating this request does no harm, whatever its method says.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.options = self.options.idempotent(idempotent);
        self
    }

    /// Sets `Idempotency-Key`, the same for every attempt, which makes the request safe to repeat against a server that
    /// honours it.
    pub fn idempotency_key(self, key: impl AsRef<str>) -> Self {
        self.map(|inner| inner.header(IDEMPOTENCY_KEY, key.as_ref()))
    }

    /// Sets an `Idempotency-Key` made for this call: 122 random bits, the same for every attempt. A call made again by its
    /// caller gets another, so a caller who may repeat it should bring a key of his own.
    pub fn generate_idempotency_key(self) -> Self {
        let mut text = uuid::Uuid::encode_buffer();
        let key = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text).to_owned();
        self.idempotency_key(key)
    }

    /// Gives the calls with this key a breaker, budget and bulkhead of their own, apart from their host's: for a host behind
    /// which several things fail separately, such as shards or tenants.
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.options = self.options.key(key);
        self
    }

    /// What this call is worth where not all can be served, in place of its policy's.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options = self.options.priority(priority);
        self
    }

    /// The request, without sending it. What this call asks for differently, beyond reqwest's own settings, is left
    /// behind.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when a part of it was bad.
    pub fn build(self) -> Result<Request, Error> {
        self.inner.build().map_err(|error| Error::new(ErrorKind::Request).because(error))
    }

    /// Makes the call.
    ///
    /// `Ok` is the last real response there was, whatever its status; see
    /// [`error_for_status`](super::Response::error_for_status).
    ///
    /// # Errors
    /// [`ErrorKind::Request`] and [`ErrorKind::Config`] when it can't be sent as asked; a rejection
    /// ([`Error::is_rejected`]) when it wasn't sent; else how the last attempt failed, or
    /// [`ErrorKind::Deadline`].
    pub fn send(self) -> Pending {
        let Self { client, inner, options } = self;
        match inner.build() {
            Ok(request) => client.execute_with(request, options),
            Err(error) => Pending::failed(Error::new(ErrorKind::Request).because(error)),
        }
    }

    /// Makes the call and reads the whole body as part of it, up to the client's limit for bodies read whole. A body that
    /// stalls, is cut off or is reset is then retried like any failure, which nothing can do once the response is out.
    ///
    /// # Errors
    /// Those of [`send`](Self::send), [`ErrorKind::BodyTooLarge`], and [`ErrorKind::Body`] when the last attempt's body
    /// failed.
    pub fn send_buffered(mut self) -> Pending {
        self.options = self.options.buffered(self.client.max_body());
        self.send()
    }

    /// The bytes of a successful response, read as part of the call. See [`send_buffered`](Self::send_buffered).
    ///
    /// # Errors
    /// Those of `send_buffered`, and [`ErrorKind::Status`] for a 4xx or 5xx.
    pub async fn fetch_bytes(self) -> Result<Bytes, Error> {
        self.send_buffered().await?.error_for_status()?.bytes().await
    }

    /// The text of a successful response, read as part of the call. See [`send_buffered`](Self::send_buffered).
    ///
    /// # Errors
    /// Those of `send_buffered`, and [`ErrorKind::Status`] for a 4xx or 5xx.
    pub async fn fetch_text(self) -> Result<String, Error> {
        self.send_buffered().await?.error_for_status()?.text().await
    }

    /// The JSON of a successful response, read as part of the call. See [`send_buffered`](Self::send_buffered).
    ///
    /// # Errors
    /// Those of `send_buffered`, [`ErrorKind::Status`] for a 4xx or 5xx, and [`ErrorKind::Decode`].
    #[cfg(feature = "json")]
    pub async fn fetch_json<T: serde::de::DeserializeOwned>(self) -> Result<T, Error> {
        self.send_buffered().await?.error_for_status()?.json().await
    }
}

impl fmt::Debug for RequestBuilder {
    /// Without the request: its URL and headers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}
