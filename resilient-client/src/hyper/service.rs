//! The client as a service, for whoever builds on services of HTTP requests: SDKs that are given
//! one, layers of tower's.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Body, Client, Pending};
use crate::call::response_body::ResponseBody;
use crate::error::{BoxError, Error};

impl<B> Service<Request<B>> for Client
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<ResponseBody<Incoming>>;
    type Error = Error;
    type Future = Answered;

    /// Always: what has no room is refused by the call, so that an upstream without any doesn't
    /// hold up calls to another.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// A body that is there at once, in one piece of the length it says, can be sent again; any
    /// other is a stream. [`CallOptions`](crate::CallOptions) in the extensions hold for the call.
    fn call(&mut self, request: Request<B>) -> Answered {
        Answered { call: self.execute(request.map(body)) }
    }
}

impl<B> Service<Request<B>> for &Client
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<ResponseBody<Incoming>>;
    type Error = Error;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answered {
        Answered { call: self.execute(request.map(body)) }
    }
}

/// Anybody's body as one of ours, by its bytes if they are all there.
fn body<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut body = Some(body);
    if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>() {
        return own.take().unwrap_or_default();
    }
    let Some(body) = body else { return Body::empty() };
    if body.is_end_stream() {
        return Body::empty();
    }
    let Some(length) = body.size_hint().exact() else { return Body::wrap(body) };
    let mut body = Box::pin(body);
    // Who has them all yields them now, as their only frame; who hasn't is asked again later.
    let mut next = || {
        let ended = body.is_end_stream();
        let mut cx = Context::from_waker(Waker::noop());
        if ended { Poll::Ready(None) } else { body.as_mut().poll_frame(&mut cx) }
    };
    let first = match next() {
        Poll::Ready(Some(Ok(frame))) => frame,
        Poll::Ready(Some(Err(error))) => return Body::wrap(Broken(Some(error.into()))),
        Poll::Ready(None) => return Body::empty(),
        Poll::Pending => return Body::wrap(body),
    };
    let whole = first.data_ref().filter(|bytes| bytes.len() as u64 == length).cloned();
    let mut begun = VecDeque::from([Ok(first)]);
    if let Some(bytes) = whole {
        match next() {
            Poll::Ready(None) => return bytes.into(),
            // Trailers, as a rule.
            Poll::Ready(Some(second)) => begun.push_back(second.map_err(Into::into)),
            Poll::Pending => {}
        }
    }
    Body::wrap(Begun { first: begun, rest: body })
}

/// A stream whose first frames have been taken out.
struct Begun<B> {
    first: VecDeque<Result<Frame<Bytes>, BoxError>>,
    rest: Pin<Box<B>>,
}

impl<B> http_body::Body for Begun<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.pop_front() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.rest.as_mut().poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let pieces = self.first.iter().flatten().filter_map(Frame::data_ref);
        let first = pieces.map(|piece| piece.len() as u64).sum::<u64>();
        let (rest, mut hint) = (self.rest.size_hint(), http_body::SizeHint::new());
        hint.set_lower(rest.lower().saturating_add(first));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(first));
        }
        hint
    }
}

/// A body that failed when it was asked for its first piece.
struct Broken(Option<BoxError>);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.take().map(Err))
    }
}

pin_project! {
    /// A call in progress that was made of a [service](Service)'s request. Dropping it cancels the
    /// call.
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct Answered {
        #[pin]
        call: Pending,
    }
}

impl Future for Answered {
    type Output = Result<http::Response<ResponseBody<Incoming>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx).map_ok(Into::into)
    }
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Empty, Full};

    use super::*;
    use crate::replay::Replay as _;

    #[test]
    fn a_body_that_is_all_there_can_be_sent_again() {
        let whole = Full::new(Bytes::from_static(b"tea")).map_err(BoxError::from).boxed_unsync();
        assert_eq!(body(whole).as_bytes(), Some(&b"tea"[..]));
        assert_eq!(body(Body::from("tea")).as_bytes(), Some(&b"tea"[..]));
        assert_eq!(body(Empty::<Bytes>::new()).as_bytes(), Some(&b""[..]));
    }

    #[tokio::test]
    async fn what_follows_the_bytes_is_sent_with_them() {
        let trailers = || http::HeaderMap::from_iter([(http::header::ETAG, "7".parse().unwrap())]);
        for bytes in ["tea", ""] {
            let with = Full::new(Bytes::from(bytes)).with_trailers(async move { Some(Ok(trailers())) });
            let body = body(with);
            assert!(!body.is_replayable());
            let whole = body.collect().await.unwrap();
            assert_eq!(whole.trailers(), Some(&trailers()));
            assert_eq!(whole.to_bytes(), bytes);
        }
        let without = Full::new(Bytes::from("tea")).with_trailers(std::future::ready(None));
        assert_eq!(body(without).as_bytes(), Some(&b"tea"[..]), "none came");
    }

    /// Two pieces, and whether it says how long it is.
    struct Pieces(Vec<&'static str>, bool);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.pop().map(|piece| Ok(http_body::Frame::data(piece.into()))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            let left = self.0.iter().map(|piece| piece.len() as u64).sum();
            if self.1 { http_body::SizeHint::with_exact(left) } else { http_body::SizeHint::default() }
        }
    }

    #[tokio::test]
    async fn a_stream_loses_nothing_by_being_looked_at() {
        for says in [true, false] {
            let stream = body(Pieces(vec!["a", "te"], says));
            assert!(!stream.is_replayable());
            assert_eq!(http_body::Body::size_hint(&stream).exact(), says.then_some(3));
            assert_eq!(stream.collect().await.unwrap().to_bytes(), "tea");
        }
    }
}
