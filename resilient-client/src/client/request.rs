//! Building one call: reqwest's methods, and what this call asks for differently.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use reqwest::{Body, Request};

use super::{Client, Pending};
use crate::call::options::CallOptions;
use crate::error::{Error, ErrorKind};
use crate::header_limit::{MOST_HEADERS, too_many_headers};
use crate::shared_methods::request_methods;

/// A request being built. The methods are reqwest's; a mistake in any of them shows when it is
/// built or sent.
#[must_use = "a request does nothing until `send` is called"]
pub struct RequestBuilder {
    client: Client,
    inner: Result<reqwest::RequestBuilder, Error>,
    options: CallOptions,
    /// Another of the body, if that is a form that can be made again.
    #[cfg(feature = "multipart")]
    form: Option<Box<crate::multipart::FormBody>>,
    /// How many headers it was given: reqwest panics where its map has no room.
    headers: u16,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, inner: Result<reqwest::RequestBuilder, Error>) -> Self {
        Self::with(client, inner, 0)
    }

    fn with(client: Client, inner: Result<reqwest::RequestBuilder, Error>, headers: u16) -> Self {
        Self {
            client,
            inner,
            options: CallOptions::new(),
            #[cfg(feature = "multipart")]
            form: None,
            headers,
        }
    }

    /// A change that sets the body.
    fn put_body(self, change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Self {
        Self {
            #[cfg(feature = "multipart")]
            form: None,
            ..self.map(change)
        }
    }

    fn map(mut self, change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Self {
        self.inner = self.inner.map(change);
        self
    }

    /// A change that adds so many headers, if there is room for them.
    fn put(
        mut self,
        more: usize,
        change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Self {
        let headers = more.saturating_add(self.headers.into());
        self.headers = headers.try_into().unwrap_or(u16::MAX);
        if self.has_room() { self.map(change) } else { self }
    }

    fn has_room(&self) -> bool {
        usize::from(self.headers) <= MOST_HEADERS
    }

    /// Adds a header. There can be 24,000.
    pub fn header<K, V>(self, key: K, value: V) -> Self
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.put(1, |inner| inner.header(key, value))
    }

    /// Sets headers, replacing those of the same names.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.put(headers.keys_len(), |inner| inner.headers(headers))
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

    /// Sets the body. One made of bytes can be sent again; a stream is sent once, so the call isn't
    /// retried unless it has a [`replay_buffer`](Self::replay_buffer).
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.put_body(|inner| inner.body(body))
    }

    /// Adds to the query string.
    #[cfg(feature = "query")]
    pub fn query(self, query: &(impl serde::Serialize + ?Sized)) -> Self {
        self.map(|inner| inner.query(query))
    }

    /// Sets a URL-encoded form as the body.
    #[cfg(feature = "form")]
    pub fn form(self, form: &(impl serde::Serialize + ?Sized)) -> Self {
        self.put_body(|inner| inner.form(form))
    }

    /// Sets JSON as the body.
    #[cfg(feature = "json")]
    pub fn json(self, json: &(impl serde::Serialize + ?Sized)) -> Self {
        self.put_body(|inner| inner.json(json))
    }

    /// Sets a [form](crate::multipart::Form) of several parts as the body. It is sent again if each
    /// of its parts can be; a form with a stream is sent once. One with files is sent again by
    /// [`send`](Self::send) and its like; a request that is [built](Self::build) first has it as a
    /// stream.
    #[cfg(feature = "multipart")]
    pub fn multipart(mut self, form: crate::multipart::Form) -> Self {
        use crate::multipart::Content;

        let kind = match form.content_type() {
            Ok(kind) => kind,
            Err(error) => return Self { inner: self.inner.and(Err(error)), ..self },
        };
        let kind = HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
        let mut again = None;
        self = match form.into_content() {
            Content::Bytes(bytes) => self.put_body(|inner| inner.body(bytes)),
            Content::Body(body) => {
                again = body.again().map(Box::new);
                self.put_body(|inner| inner.body(Body::wrap(body)))
            }
        };
        self.form = again;
        self.headers(kind)
    }

    /// Sets the HTTP version.
    pub fn version(self, version: Version) -> Self {
        self.map(|inner| inner.version(version))
    }

    request_methods!();

    /// The request, without sending it. It bears its [`timeout`](Self::timeout), as one of
    /// reqwest's does; what else this call asks for differently is left behind: see
    /// [`build_with_options`](Self::build_with_options).
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when a part of it was bad.
    pub fn build(self) -> Result<Request, Error> {
        self.build_with_options().map(|(request, _)| request)
    }

    /// The request without sending it, and what this call asks for differently, for
    /// [`Client::execute_with`](super::Client::execute_with).
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when a part of it was bad.
    pub fn build_with_options(self) -> Result<(Request, CallOptions), Error> {
        let mut request = build(self.inner, self.headers)?;
        if let Some(total) = self.options.total {
            *request.timeout_mut() = Some(total);
        }
        Ok((request, self.options))
    }

    /// The client, and the request without sending it, as [`build`](Self::build) gives it.
    pub fn build_split(self) -> (Client, Result<Request, Error>) {
        let client = self.client.clone();
        (client, self.build())
    }

    /// Another of the same. `None` if its body is a stream or a form with files, or if a part of it
    /// was bad already.
    pub fn try_clone(&self) -> Option<Self> {
        let inner = self.inner.as_ref().ok()?.try_clone()?;
        let options = self.options.clone();
        Some(Self { options, ..Self::with(self.client.clone(), Ok(inner), self.headers) })
    }

    /// Makes a call of a request that is there already, to be changed and sent.
    pub fn from_parts(client: Client, request: Request) -> Self {
        let headers = u16::try_from(request.headers().keys_len()).unwrap_or(u16::MAX);
        let inner = match &client.transport {
            Some(transport) => Ok(reqwest::RequestBuilder::from_parts(transport.clone(), request)),
            None => Err(client.core.no_transport()),
        };
        Self::with(client, inner, headers)
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
        let Self { client, inner, options, headers, .. } = self;
        match build(inner, headers) {
            #[cfg(feature = "multipart")]
            Ok(request) if self.form.is_some() => {
                client.call_over(request, options, |exchange| exchange.with_form(self.form))
            }
            Ok(request) => client.call(request, options),
            Err(error) => Pending::failed(error),
        }
    }
}

fn build(inner: Result<reqwest::RequestBuilder, Error>, headers: u16) -> Result<Request, Error> {
    if usize::from(headers) > MOST_HEADERS {
        return Err(too_many_headers(headers.into()));
    }
    inner?.build().map_err(|error| Error::new(ErrorKind::Request).because(error))
}

impl fmt::Debug for RequestBuilder {
    /// Without the request: its URL and headers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}
