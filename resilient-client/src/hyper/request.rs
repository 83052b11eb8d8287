//! Building one call over hyper.

use std::fmt;
#[cfg(feature = "query")]
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
#[cfg(any(feature = "json", feature = "form"))]
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::{Body, Client, Pending};
use crate::call::http_request::copy_head;
use crate::call::options::CallOptions;
use crate::error::{Error, ErrorKind};
use crate::header_limit::put_over;
use crate::replay::Replay as _;
use crate::shared_methods::request_methods;

/// A request being built. A mistake in any of its parts shows when it is built or sent.
#[must_use = "a request does nothing until `send` is called"]
pub struct RequestBuilder {
    client: Client,
    request: Result<Request<Body>, Error>,
    options: CallOptions,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, uri: Result<Uri, Error>) -> Self {
        let request = uri.map(|uri| {
            let mut request = Request::new(Body::empty());
            *request.method_mut() = method;
            *request.uri_mut() = uri;
            request
        });
        Self { client, request, options: CallOptions::new() }
    }

    fn change<E>(mut self, change: impl FnOnce(&mut Request<Body>) -> Result<(), E>) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        if let Ok(request) = &mut self.request
            && let Err(error) = change(request)
        {
            self.request = Err(bad(error));
        }
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
        self.change(|request| {
            let name = HeaderName::try_from(key).map_err(Into::into)?;
            let value = HeaderValue::try_from(value).map_err(Into::into)?;
            request.headers_mut().try_append(name, value).map(drop).map_err(http::Error::from)
        })
    }

    /// Sets headers, replacing those of the same names.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.change(|request| put_over(request.headers_mut(), headers))
    }

    /// Sets HTTP basic authentication.
    pub fn basic_auth(self, username: impl fmt::Display, password: Option<impl fmt::Display>) -> Self {
        let pair = match password {
            Some(password) => format!("{username}:{password}"),
            None => format!("{username}:"),
        };
        self.authorization(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }

    /// Sets HTTP bearer authentication.
    pub fn bearer_auth(self, token: impl fmt::Display) -> Self {
        self.authorization(&format!("Bearer {token}"))
    }

    fn authorization(self, value: &str) -> Self {
        self.change(|request| {
            let mut value = HeaderValue::try_from(value).map_err(http::Error::from)?;
            value.set_sensitive(true);
            request.headers_mut().try_append(AUTHORIZATION, value).map(drop).map_err(http::Error::from)
        })
    }

    /// Sets the body. One made of bytes can be sent again; a [stream](Body::wrap) is sent once, so
    /// the call isn't retried unless it has a [`replay_buffer`](Self::replay_buffer).
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        if let Ok(request) = &mut self.request {
            *request.body_mut() = body.into();
        }
        self
    }

    #[cfg(any(feature = "json", feature = "form"))]
    fn typed_body(self, kind: &'static str, body: impl Into<Body>) -> Self {
        self.change(|request| {
            *request.body_mut() = body.into();
            if !request.headers().contains_key(CONTENT_TYPE) {
                request.headers_mut().try_insert(CONTENT_TYPE, HeaderValue::from_static(kind))?;
            }
            Ok::<_, http::header::MaxSizeReached>(())
        })
    }

    /// Adds to the query string.
    #[cfg(feature = "query")]
    pub fn query(self, query: &(impl serde::Serialize + ?Sized)) -> Self {
        let added = match serde_urlencoded::to_string(query) {
            Ok(added) => added,
            Err(error) => return self.change(|_| Err(error)),
        };
        self.change(|request| add_query(request.uri_mut(), &added))
    }

    /// Sets a URL-encoded form as the body.
    #[cfg(feature = "form")]
    pub fn form(self, form: &(impl serde::Serialize + ?Sized)) -> Self {
        match serde_urlencoded::to_string(form) {
            Ok(form) => self.typed_body("application/x-www-form-urlencoded", form),
            Err(error) => self.change(|_| Err(error)),
        }
    }

    /// Sets JSON as the body.
    #[cfg(feature = "json")]
    pub fn json(self, json: &(impl serde::Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(json) {
            Ok(json) => self.typed_body("application/json", json),
            Err(error) => self.change(|_| Err(error)),
        }
    }

    /// Sets a [form](crate::multipart::Form) of several parts as the body. It is sent again if each
    /// of its parts can be; a form with a stream is sent once.
    #[cfg(feature = "multipart")]
    pub fn multipart(mut self, form: crate::multipart::Form) -> Self {
        use crate::multipart::Content;

        let kind = form.content_type();
        if let Ok(request) = &mut self.request {
            *request.body_mut() = match form.into_content() {
                Content::Bytes(bytes) => bytes.into(),
                Content::Body(body) => Body::form(body),
            };
        }
        self.change(|request| {
            request.headers_mut().try_insert(http::header::CONTENT_TYPE, kind?).map_err(bad)?;
            Ok::<_, Error>(())
        })
    }

    request_methods!();

    /// The request, without sending it. What this call asks for differently stands in its
    /// extensions, where [`Client::execute`](super::Client::execute) finds it.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when a part of it was bad.
    pub fn build(self) -> Result<Request<Body>, Error> {
        let Self { request, options, .. } = self;
        let mut request = request?;
        keep_body(&mut request, &options);
        request.extensions_mut().insert(options);
        Ok(request)
    }

    /// The client, and the request without sending it, as [`build`](Self::build) gives it.
    pub fn build_split(self) -> (Client, Result<Request<Body>, Error>) {
        let client = self.client.clone();
        (client, self.build())
    }

    /// Another of the same. `None` if its body is a stream, or if a part of it was bad already.
    pub fn try_clone(&self) -> Option<Self> {
        let request = self.request.as_ref().ok()?;
        request.body().as_bytes()?;
        let mut copy = Request::new(request.body().replay()?);
        copy_head(request, &mut copy);
        copy.extensions_mut().clone_from(request.extensions());
        Some(Self { client: self.client.clone(), request: Ok(copy), options: self.options.clone() })
    }

    /// Makes a call of a request that is there already, to be changed and sent. [`CallOptions`] in
    /// its extensions hold for it.
    pub fn from_parts(client: Client, mut request: Request<Body>) -> Self {
        let options = request.extensions_mut().remove().unwrap_or_default();
        Self { client, request: Ok(request), options }
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
    pub fn send(mut self) -> Pending {
        if let Ok(request) = &mut self.request {
            keep_body(request, &self.options);
        }
        let Self { client, request, options } = self;
        match request {
            Ok(request) => client.call(request, options),
            Err(error) => Pending::failed(error),
        }
    }
}

/// Puts a replay buffer round the body, if one is asked for.
#[inline]
fn keep_body(request: &mut Request<Body>, options: &CallOptions) {
    if let Some(limit) = options.replay_buffer {
        let body = request.body_mut();
        *body = std::mem::take(body).kept(limit);
    }
}

fn bad(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Request).because(error)
}

#[cfg(feature = "query")]
fn add_query(uri: &mut Uri, added: &str) -> Result<(), http::Error> {
    if added.is_empty() {
        return Ok(());
    }
    let mut path = uri.path().to_owned();
    match uri.query() {
        None | Some("") => write!(path, "?{added}"),
        Some(query) => write!(path, "?{query}&{added}"),
    }
    .ok();
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(path.try_into()?);
    *uri = Uri::from_parts(parts)?;
    Ok(())
}

impl fmt::Debug for RequestBuilder {
    /// Without the request: its URL and headers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}
