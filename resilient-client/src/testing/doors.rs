//! Where a script takes the wire's place.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Empty};
use tower_service::Service;

use super::script::Script;
use crate::error::BoxError;
use crate::fault::Body;
use crate::fault::wire::{Asked, Drawn, Injector, Scripted as _};

#[cfg(feature = "reqwest")]
impl crate::ClientBuilder {
    /// Answers all requests from a [script](crate::testing::Script), and sends none. It takes
    /// the place of [faults](Self::faults), or they its, whichever is said last.
    pub fn script(self, script: &Script) -> Self {
        self.injecting(Injector::scripted(script.clone()))
    }
}

#[cfg(feature = "hyper")]
impl crate::hyper::ClientBuilder {
    /// Answers all requests from a [script](crate::testing::Script), and sends none. It takes
    /// the place of [faults](Self::faults), or they its, whichever is said last.
    pub fn script(self, script: &Script) -> Self {
        self.injecting(Injector::scripted(script.clone()))
    }
}

#[cfg(feature = "blocking")]
impl crate::blocking::ClientBuilder {
    /// As [`ClientBuilder::script`](crate::ClientBuilder::script).
    pub fn script(self, script: &Script) -> Self {
        self.map(|inner| inner.script(script))
    }
}

/// The body of a [`Script`]'s answer.
pub type ScriptBody = Body<Empty<Bytes>>;

impl<B> Service<Request<B>> for Script
where
    B: HttpBody<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ScriptBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let script = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::<BoxError>::into)?.to_bytes();
            let fault = script.decide(&Asked {
                method: &head.method,
                path: head.uri.path(),
                host: head.uri.host(),
                port: head.uri.port_u16(),
                query: head.uri.query(),
                headers: &head.headers,
                body: Some(&body),
            });
            let sent = std::future::pending::<Result<Response<ScriptBody>, BoxError>>();
            Drawn::certain(fault, head.method).onto(sent, || ()).await
        })
    }
}
