//! What a tower service's caller gets through a `ClientLayer`, on a clock that is driven.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::super::*;
use crate::error::BoxError;
use crate::time;

const BODY: &[u8] = b"a body of 24 bytes, whole";

fn faults(kind: Kind) -> Faults {
    let limits = Limits::standard().max_delay(Duration::from_secs(2));
    Faults::new(Settings::new().rule(Rule::new(kind)).limits(limits)).unwrap()
}

/// The answer, and how long it took.
async fn ask(faults: &Faults) -> (Result<Response<Body<Full<Bytes>>>, BoxError>, Duration) {
    let service = service_fn(async |_: Request<()>| {
        let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
        response.headers_mut().insert("x-own", http::HeaderValue::from_static("1"));
        Ok::<_, Infallible>(response)
    });
    let began = time::now();
    let answer = ClientLayer::new(faults.clone()).layer(service).oneshot(Request::new(())).await;
    (answer, time::now().since(began))
}

fn chain(error: &BoxError) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut source = error.source();
    while let Some(link) = source {
        chain.push(link.to_string());
        source = link.source();
    }
    chain
}

async fn none_is_active(faults: &Faults) {
    while faults.snapshot().active > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hang_ends_at_the_cap_as_a_reset_of_hypers_own() {
    let faults = faults(Kind::Hang);
    let (answer, took) = ask(&faults).await;
    let error = answer.unwrap_err();
    assert_eq!(took.as_secs(), 2);
    let own = error.downcast_ref::<hyper::Error>().expect("hyper's");
    let io = own.source().unwrap().downcast_ref::<io::Error>().expect("an io error");
    assert_eq!(io.kind(), io::ErrorKind::ConnectionReset, "{:?}", chain(&error));
    none_is_active(&faults).await;
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_its_time_and_then_the_answer_is_the_services_own() {
    let faults = faults(Kind::Delay(Delay::Fixed(Duration::from_millis(700))));
    let (answer, took) = ask(&faults).await;
    let answer = answer.unwrap();
    assert_eq!((took.as_millis(), &answer.headers()["x-own"]), (700, &http::HeaderValue::from_static("1")));
    assert_eq!(faults.snapshot().active, 0);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), BODY);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_gives_its_place_back_at_once() {
    for kind in [Kind::Hang, Kind::Delay(Delay::Fixed(Duration::from_secs(2)))] {
        let faults = faults(kind);
        tokio::time::timeout(Duration::from_secs(1), ask(&faults)).await.unwrap_err();
        assert_eq!(faults.snapshot().active, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_keeps_the_head_and_lets_the_rest_through_at_the_cap() {
    let faults = faults(Kind::Trickle { bytes: 1, every: Duration::from_millis(300) });
    let (answer, _) = ask(&faults).await;
    let mut body = answer.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(BODY.len() as u64));
    let began = time::now();
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        pieces.push(frame.unwrap().into_data().unwrap());
    }
    assert_eq!(pieces.concat(), BODY);
    assert_eq!((pieces.len(), time::now().since(began).as_millis()), (8, 2000), "{pieces:?}");
    drop(body);
    none_is_active(&faults).await;
}

/// What never ends: a stream of events.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"event")))))
    }
}

/// It was counted for as long as the stream lasted, and a hundred of them spared everybody else.
#[tokio::test(start_paused = true)]
async fn a_trickle_over_a_stream_gives_its_place_back_at_the_cap() {
    let faults = faults(Kind::Trickle { bytes: 1, every: Duration::from_millis(300) });
    let service = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Endless)));
    let answer = ServerLayer::new(faults.clone()).layer(service).oneshot(Request::new(())).await.unwrap();
    let (mut body, began) = (answer.into_body(), time::now());
    while time::now().since(began) < Duration::from_secs(2) {
        assert_eq!(faults.snapshot().active, 1);
        body.frame().await.unwrap().unwrap();
    }
    body.frame().await.unwrap().unwrap();
    assert_eq!(faults.snapshot().active, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_brings_what_there_was_and_hypers_own_error() {
    for (kind, whole) in [(Kind::Truncate { bytes: 6 }, &b"a body"[..]), (Kind::ResetAfterHead, b"")] {
        let faults = faults(kind.clone());
        let (answer, _) = ask(&faults).await;
        let answer = answer.unwrap();
        assert_eq!(answer.headers()["x-own"], "1");
        let mut body = answer.into_body();
        let mut came = Vec::new();
        let error = loop {
            match body.frame().await.expect("an error first") {
                Ok(frame) => came.extend_from_slice(&frame.into_data().unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(came, whole, "{kind:?}");
        assert!(error.is::<hyper::Error>(), "{kind:?}: {:?}", chain(&error));
        drop(body);
        none_is_active(&faults).await;
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_is_what_hyper_cannot_parse() {
    let (answer, _) = ask(&faults(Kind::Garbage)).await;
    let error = answer.unwrap_err();
    assert!(error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse), "{:?}", chain(&error));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_served_never_reaches_the_service() {
    for kind in
        [Kind::Hang, Kind::ResetBeforeHead, Kind::Garbage, Kind::WrongPage { status: http::StatusCode::OK }]
    {
        let never = service_fn(async |_: Request<()>| -> Result<Response<Full<Bytes>>, Infallible> {
            panic!("it was served");
        });
        drop(ClientLayer::new(faults(kind)).layer(never).oneshot(Request::new(())).await);
    }
}
