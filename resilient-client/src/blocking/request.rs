//! Building one blocking call.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use reqwest::{Body, Request};

use super::runtime::Runtime;
use super::{Client, Response, handed_on};
use crate::call::options::CallOptions;
use crate::error::Error;

/// A request being built, as the async client's is. A mistake in any of its parts shows when it is
/// built or sent.
#[must_use = "a request does nothing until `send` is called"]
pub struct RequestBuilder {
    inner: crate::RequestBuilder,
    runtime: Arc<Runtime>,
}

impl RequestBuilder {
    pub(super) fn new(inner: crate::RequestBuilder, runtime: Arc<Runtime>) -> Self {
        Self { inner, runtime }
    }

    fn map(mut self, change: impl FnOnce(crate::RequestBuilder) -> crate::RequestBuilder) -> Self {
        self.inner = change(self.inner);
        self
    }

    handed_on! {
        "RequestBuilder":
        fn headers(headers: HeaderMap);
        fn basic_auth(username: impl fmt::Display, password: Option<impl fmt::Display>);
        fn bearer_auth(token: impl fmt::Display);
        fn body(body: impl Into<Body>);
        fn version(version: Version);
        #[cfg(feature = "query")]
        fn query(query: &(impl serde::Serialize + ?Sized));
        #[cfg(feature = "form")]
        fn form(form: &(impl serde::Serialize + ?Sized));
        #[cfg(feature = "json")]
        fn json(json: &(impl serde::Serialize + ?Sized));
        #[cfg(feature = "multipart")]
        fn multipart(form: crate::multipart::Form);
        fn timeout(total: std::time::Duration);
        fn attempt_timeout(attempt: std::time::Duration);
        fn streaming();
        fn ignore_retry_after();
        fn wait_for_ready(wait: bool);
        fn replay_buffer(bytes: usize);
        fn idempotent(idempotent: bool);
        fn idempotency_key(key: impl AsRef<str>);
        fn generate_idempotency_key();
        fn key(key: impl Into<Arc<str>>);
        fn url_template(template: impl AsRef<str>);
        fn priority(priority: crate::policy::priority::Priority);
    }

    /// As [`RequestBuilder::header`](crate::RequestBuilder::header).
    pub fn header<K, V>(self, key: K, value: V) -> Self
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.map(|inner| inner.header(key, value))
    }

    /// As [`RequestBuilder::build`](crate::RequestBuilder::build).
    ///
    /// # Errors
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) when a part of it was bad.
    pub fn build(self) -> Result<Request, Error> {
        self.inner.build()
    }

    /// As [`RequestBuilder::build_with_options`](crate::RequestBuilder::build_with_options).
    ///
    /// # Errors
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) when a part of it was bad.
    pub fn build_with_options(self) -> Result<(Request, CallOptions), Error> {
        self.inner.build_with_options()
    }

    /// As [`RequestBuilder::build_split`](crate::RequestBuilder::build_split).
    pub fn build_split(self) -> (Client, Result<Request, Error>) {
        let (inner, request) = self.inner.build_split();
        (Client { inner, runtime: self.runtime }, request)
    }

    /// As [`RequestBuilder::try_clone`](crate::RequestBuilder::try_clone).
    pub fn try_clone(&self) -> Option<Self> {
        Some(Self { inner: self.inner.try_clone()?, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`RequestBuilder::from_parts`](crate::RequestBuilder::from_parts).
    pub fn from_parts(client: Client, request: Request) -> Self {
        Self { inner: crate::RequestBuilder::from_parts(client.inner, request), runtime: client.runtime }
    }

    /// Makes the call, and waits for its response's head.
    ///
    /// # Errors
    /// Those of [`RequestBuilder::send`](crate::RequestBuilder::send), and
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) in async code.
    pub fn send(self) -> Result<Response, Error> {
        let Self { inner, runtime } = self;
        let call = runtime.inside(|| inner.send());
        let response = runtime.wait(call)??;
        Ok(Response::new(response, runtime))
    }

    /// Makes the call and waits for the whole body as part of it, as
    /// [`RequestBuilder::send_buffered`](crate::RequestBuilder::send_buffered).
    ///
    /// # Errors
    /// Those of `send_buffered`, and [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) in
    /// async code.
    pub fn send_buffered(self) -> Result<Response, Error> {
        let Self { inner, runtime } = self;
        let call = runtime.inside(|| inner.send_buffered());
        let response = runtime.wait(call)??;
        Ok(Response::new(response, runtime))
    }

    /// As [`RequestBuilder::fetch_bytes`](crate::RequestBuilder::fetch_bytes).
    ///
    /// # Errors
    /// Those of [`send_buffered`](Self::send_buffered), and
    /// [`ErrorKind::Status`](crate::ErrorKind::Status) for a 4xx or 5xx.
    pub fn fetch_bytes(self) -> Result<bytes::Bytes, Error> {
        self.send_buffered()?.error_for_status()?.bytes()
    }

    /// As [`RequestBuilder::fetch_text`](crate::RequestBuilder::fetch_text).
    ///
    /// # Errors
    /// As [`fetch_bytes`](Self::fetch_bytes).
    pub fn fetch_text(self) -> Result<String, Error> {
        self.send_buffered()?.error_for_status()?.text()
    }

    /// As [`RequestBuilder::fetch_json`](crate::RequestBuilder::fetch_json).
    ///
    /// # Errors
    /// As [`fetch_bytes`](Self::fetch_bytes), and
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode).
    #[cfg(feature = "json")]
    pub fn fetch_json<T: serde::de::DeserializeOwned>(self) -> Result<T, Error> {
        self.send_buffered()?.error_for_status()?.json()
    }
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
