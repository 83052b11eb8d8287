//! A call over hyper that follows redirects.

use http::{Request, Uri};
use url::Url;

use super::{Body, Client, Response};
use crate::call::options::CallOptions;
use crate::call::pending::Pending;
use crate::call::trail::{Answered, Carried, Follow, Head, Next, Trail, Turn};
use crate::error::{Error, ErrorKind};
use crate::hyper::exchange::HyperExchange;
use crate::outcome::report::CallReport;
use crate::redirects::Redirects;

/// A call's trail, and the client that goes on with it.
pub(super) struct Following {
    client: Client,
    trail: Trail,
}

impl Following {
    /// `None` where none are followed.
    #[inline]
    pub(super) fn of(client: &Client, request: &Request<Body>, options: &CallOptions) -> Option<Box<Self>> {
        if options.rare.is_none() && redirects(client).is_none() {
            return None;
        }
        Self::set(client, request, options)
    }

    #[cold]
    fn set(client: &Client, request: &Request<Body>, options: &CallOptions) -> Option<Box<Self>> {
        let rules = options.own_redirects().or(redirects(client))?.clone();
        let head = Head {
            method: request.method().clone(),
            url: absolute(request.uri())?,
            headers: request.headers().clone(),
            version: request.version(),
        };
        let body = match request.body().bytes() {
            Some(bytes) if bytes.is_empty() => Carried::Nothing,
            Some(bytes) => Carried::Bytes(bytes),
            None => Carried::Stream,
        };
        let trail = Trail::new(rules, head, body, options.clone());
        Some(Box::new(Self { client: client.clone(), trail }))
    }
}

impl Follow<HyperExchange> for Following {
    fn trail(&mut self) -> &mut Trail {
        &mut self.trail
    }

    fn report(response: &mut Response) -> &mut CallReport {
        response.report_mut()
    }

    fn turn(&mut self, response: &Response, report: &mut CallReport) -> Result<Turn, Error> {
        let Some(url) = absolute(response.uri()) else { return Ok(Turn::Stay) };
        let answered = Answered { status: response.status(), headers: response.headers(), url: &url };
        self.trail.turn(&self.client.core, &answered, report, || true)
    }

    fn call(&self, next: Next) -> Result<Pending<HyperExchange>, Error> {
        let (request, options) = request_of(next)?;
        Ok(self.client.follow(request, options))
    }
}

/// Which are followed, unless a call says it.
#[inline]
fn redirects(client: &Client) -> Option<&Redirects> {
    client.wire.as_ref()?.redirects()
}

fn absolute(uri: &Uri) -> Option<Url> {
    Url::parse(&uri.to_string()).ok()
}

fn request_of(next: Next) -> Result<(Request<Body>, CallOptions), Error> {
    let Next { head, body, options } = next;
    let mut request = Request::new(body.map_or_else(Body::empty, Body::from));
    let mut url = head.url;
    url.set_fragment(None);
    let uri = Uri::try_from(url.as_str());
    *request.uri_mut() = uri.map_err(|error| Error::new(ErrorKind::Redirect).because(error))?;
    (*request.method_mut(), *request.headers_mut()) = (head.method, head.headers);
    *request.version_mut() = head.version;
    super::check(request.uri())?;
    Ok((request, options))
}
