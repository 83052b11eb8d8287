//! A server that follows a script, on tokio's paused clock.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use tokio::time::Sleep;
use tower_service::Service;

use crate::error::BoxError;
use crate::time::{self, Tick};

/// What the server does with one attempt.
#[derive(Clone, Debug)]
pub enum Step {
    /// Answers after a while.
    Answer { after: Duration, status: u16, retry_after: Option<&'static str>, body: Vec<Piece> },
    /// Answers at once, with one header.
    Marked { status: u16, name: http::HeaderName, value: &'static str },
    /// Answers at once over HTTP/2, with these headers and no body.
    Headed { status: u16, headers: HeaderMap },
    /// Answers at once over HTTP/2, with these headers and this body.
    Streamed { headers: HeaderMap, body: Vec<Piece> },
    /// Breaks the connection after a while.
    Break { after: Duration },
    /// The same with the error of the operating system, which many requests may share.
    Lose { after: Duration },
    /// Takes no connection.
    Refuse,
    /// Never answers.
    Hang,
    /// The service itself panics.
    Panic,
}

/// A piece of a scripted body.
#[derive(Clone, Debug)]
pub enum Piece {
    Data(Bytes),
    Pause(Duration),
    Trailers(HeaderMap),
    Break,
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn answer(status: u16) -> Step {
    Step::Answer { after: ms(1), status, retry_after: None, body: vec![Piece::Data("body".into())] }
}

pub fn answer_with(status: u16, body: Vec<Piece>) -> Step {
    Step::Answer { after: ms(1), status, retry_after: None, body }
}

pub fn asks_to_wait(status: u16, retry_after: &'static str) -> Step {
    Step::Answer { after: ms(1), status, retry_after: Some(retry_after), body: Vec::new() }
}

pub fn broken() -> Step {
    Step::Break { after: ms(1) }
}

enum Steps {
    List(VecDeque<Step>),
    Rule(Box<dyn FnMut() -> Step + Send>),
}

/// The server: steps are taken in order, the last one for ever.
#[derive(Clone)]
pub struct Script {
    steps: Arc<Mutex<Steps>>,
    launches: Arc<Mutex<Vec<(Tick, HeaderMap)>>>,
}

impl Script {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = Steps::List(steps.into_iter().collect());
        Self { steps: Arc::new(Mutex::new(steps)), launches: Arc::default() }
    }

    /// From now on, each step is what `rule` says.
    pub fn follow(&self, rule: impl FnMut() -> Step + Send + 'static) {
        *self.steps.lock().unwrap() = Steps::Rule(Box::new(rule));
    }

    /// When each attempt arrived.
    pub fn launches(&self) -> Vec<Tick> {
        self.launches.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    /// What headers each attempt bore.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.launches.lock().unwrap().iter().map(|(_, headers)| headers.clone()).collect()
    }

    pub fn count(&self) -> usize {
        self.launches.lock().unwrap().len()
    }

    pub fn then(&self, steps: impl IntoIterator<Item = Step>) {
        *self.steps.lock().unwrap() = Steps::List(steps.into_iter().collect());
    }
}

impl Service<Request<String>> for Script {
    type Response = Response<ScriptBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.launches.lock().unwrap().push((time::now(), request.headers().clone()));
        let step = match &mut *self.steps.lock().unwrap() {
            Steps::Rule(rule) => Some(rule()),
            Steps::List(steps) if steps.len() > 1 => steps.pop_front(),
            Steps::List(steps) => steps.front().cloned(),
        };
        Box::pin(step.expect("a script has steps").act())
    }
}

impl Step {
    pub async fn act(self) -> Result<Response<ScriptBody>, BoxError> {
        match self {
            Self::Panic => panic!("scripted panic"),
            Self::Hang => std::future::pending().await,
            Self::Break { after } => {
                tokio::time::sleep(after).await;
                Err("connection reset".into())
            }
            Self::Lose { after } => {
                tokio::time::sleep(after).await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset).into())
            }
            Self::Refuse => Err(crate::refused::refused().await),
            Self::Marked { status, name, value } => {
                let body = ScriptBody { pieces: VecDeque::new(), pause: None };
                Ok(Response::builder().status(status).header(name, value).body(body)?)
            }
            Self::Headed { status, headers } => {
                let body = ScriptBody { pieces: VecDeque::new(), pause: None };
                let mut response = Response::builder().status(status).body(body)?;
                *response.headers_mut() = headers;
                *response.version_mut() = http::Version::HTTP_2;
                Ok(response)
            }
            Self::Streamed { headers, body } => {
                let mut response = Response::new(ScriptBody { pieces: body.into(), pause: None });
                *response.headers_mut() = headers;
                *response.version_mut() = http::Version::HTTP_2;
                Ok(response)
            }
            Self::Answer { after, status, retry_after, body } => {
                tokio::time::sleep(after).await;
                let mut response = Response::builder().status(status);
                if let Some(value) = retry_after {
                    response = response.header("retry-after", value);
                }
                Ok(response.body(ScriptBody { pieces: body.into(), pause: None })?)
            }
        }
    }
}

#[derive(Debug)]
pub struct ScriptBody {
    pieces: VecDeque<Piece>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body for ScriptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.pieces.pop_front() {
                None => return Poll::Ready(None),
                Some(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Some(Piece::Break) => return Poll::Ready(Some(Err("connection reset".into()))),
                Some(Piece::Pause(duration)) => self.pause = Some(Box::pin(tokio::time::sleep(duration))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.pause.is_none()
    }
}
