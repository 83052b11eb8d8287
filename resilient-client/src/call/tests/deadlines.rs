//! Deadlines that travel: in from the ambient one, out as a header, and what comes back from a
//! server that heeds them.

use std::task::{Context, Poll};
use std::time::Duration;

use super::script::{Piece, Step, answer, answer_with, ms};
use super::*;
use crate::ErrorKind;
use crate::advice::{RETRY, SHED};
use crate::deadline::{self, Deadline};
use crate::endpoints::{Endpoints, Resolve, Resolving};
use crate::outcome::Outcome;
use crate::outcome::report::Decline;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::{Tick, now};

fn told(rig: &Rig) -> Vec<Option<String>> {
    let text = |headers: &http::HeaderMap| {
        headers.get("x-envoy-expected-rq-timeout-ms").map(|value| value.to_str().unwrap().to_owned())
    };
    rig.script.headers().iter().map(text).collect()
}

fn marked(status: u16, name: http::HeaderName, value: &'static str) -> Step {
    Step::Marked { status, name, value }
}

#[tokio::test(start_paused = true)]
async fn the_ambient_deadline_caps_the_total_and_never_raises_it() {
    for (ambient, expected) in [(Duration::from_secs(2), 2), (Duration::from_secs(60), 10)] {
        let rig = Rig::new(&Policy::standard(), [Step::Hang]);
        let begun = now();
        let error = deadline::scope(Deadline::within(ambient), rig.get()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
        assert_eq!(now().since(begun), Duration::from_secs(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_begun_after_the_deadline_sends_nothing() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    let error = deadline::scope(Deadline::within(Duration::ZERO), rig.get()).await.unwrap_err();
    assert_eq!((error.kind(), rig.script.count()), (ErrorKind::Deadline, 0));
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_how_long_its_answer_is_waited_for() {
    let rig = Rig::new(&Policy::standard(), [answer(503), answer(200)]);
    deadline::scope(Deadline::within(ms(2_500)), rig.get()).await.unwrap();
    let told: Vec<u64> = told(&rig).into_iter().map(|ms| ms.unwrap().parse().unwrap()).collect();
    assert_eq!(told[0], 2_500, "less than an attempt's three seconds");
    assert!(told[1] < 2_500 && told[1] > 2_400, "{told:?}");
}

/// The headers that most requests get are put together once an upstream, and cloned: never for whom
/// they don't hold.
#[tokio::test(start_paused = true)]
async fn what_most_servers_are_told_is_told_to_nobody_else() {
    let attempts_of =
        |seconds| Policy::standard().timeout(TimeoutPolicy::standard().attempt(Duration::from_secs(seconds)));
    let rig = Rig::new(&attempts_of(3), [answer(200)]);
    let hurried = || CallOptions::new().timeout(ms(1_000));
    rig.start(Method::GET, hurried()).await.unwrap();
    rig.get().await.unwrap();
    deadline::scope(Deadline::within(ms(2_500)), rig.get()).await.unwrap();
    rig.start(Method::GET, CallOptions::new().streaming()).await.unwrap();
    rig.get().await.unwrap();
    rig.core.reload(attempts_of(2).into()).unwrap();
    rig.get().await.unwrap();
    rig.start(Method::GET, hurried()).await.unwrap();
    let mut own = Rig::request(Method::GET, CallOptions::new());
    own.headers_mut().insert("x-own", "1".parse().unwrap());
    rig.service.clone().call(own).await.unwrap();
    let expected = ["1000", "3000", "2500", "", "3000", "2000", "1000", "2000"];
    let heard: Vec<String> = told(&rig).into_iter().map(Option::unwrap_or_default).collect();
    assert_eq!(heard, expected);
    let last = rig.script.headers().pop().unwrap();
    assert_eq!((last.len(), last.contains_key("x-own")), (2, true));
}

#[tokio::test(start_paused = true)]
async fn a_streaming_call_and_a_call_without_bounds_tell_nothing() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    rig.start(Method::GET, CallOptions::new().streaming()).await.unwrap();
    assert_eq!(told(&rig), [None]);
    let rig = Rig::new(&Policy::none(), [answer(200)]);
    rig.get().await.unwrap();
    assert_eq!(told(&rig), [None]);
}

#[tokio::test(start_paused = true)]
async fn a_request_shed_for_want_of_time_is_neither_repeated_nor_counted() {
    let rig = Rig::new(&Policy::standard(), [marked(504, SHED, "deadline")]);
    let response = rig.get().await.unwrap();
    assert_eq!((response.status().as_u16(), rig.script.count()), (504, 1));
    assert_eq!(response.body().report().declined(), [Decline::Final(Outcome::Ignored)]);
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_advises_against_retrying_is_heeded_and_its_failure_counts() {
    let rig = Rig::new(&Policy::standard(), [marked(503, RETRY, "never")]);
    assert_eq!(rig.get().await.unwrap().status(), 503);
    assert_eq!((rig.script.count(), rig.upstream().breaker_snapshot(now()).failures), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn no_attempt_starts_without_the_time_attempts_usually_take() {
    let slow = |status| Step::Answer { after: ms(200), status, retry_after: None, body: Vec::new() };
    let rig = Rig::new(&Policy::standard(), [slow(200)]);
    for _ in 0..100 {
        assert_eq!(rig.get().await.unwrap().status(), 200);
    }
    rig.script.then([slow(503)]);
    let before = rig.script.count();
    let response = deadline::scope(Deadline::within(ms(350)), rig.get()).await.unwrap();
    assert_eq!((response.status().as_u16(), rig.script.count() - before), (503, 1));
    assert!(matches!(response.body().report().declined(), [Decline::NoTime { .. }]));
    // What is known expires, so a server that has become fast again isn't held to it.
    tokio::time::sleep(Duration::from_secs(11)).await;
    rig.script.then([slow(503), answer(200)]);
    let again = deadline::scope(Deadline::within(ms(350)), rig.get()).await.unwrap();
    assert_eq!(again.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn only_the_origins_named_are_told() {
    for (origin, expected) in [(Some("http://other"), false), (Some("http://users:3000"), true), (None, true)]
    {
        let origins = origin.map(|origin| vec![origin.to_owned()]);
        let rig = Rig::set_up(Setup { deadline_origins: origins, ..Setup::default() }, [answer(200)]);
        rig.get().await.unwrap();
        assert_eq!(told(&rig)[0].is_some(), expected, "{origin:?}");
    }
    let origins = Some(vec!["users".to_owned()]);
    let error =
        crate::engine::Core::new(Setup { deadline_origins: origins, ..Setup::default() }).unwrap_err();
    assert!(error.to_string().starts_with("deadline_origins: origin"), "{error}");
}

/// A stranger was told how long our users wait, and how often we had tried.
#[tokio::test(start_paused = true)]
async fn a_stranger_is_told_nothing_unless_somebody_says_so() {
    for (url, origins, expected) in [
        ("http://api.example/x", None, false),
        ("http://api.example/x", Some("*.example"), true),
        ("http://10.0.0.7/x", None, true),
        ("http://users.prod.svc:3000/x", None, true),
    ] {
        let origins = origins.map(|origin: &str| vec![origin.to_owned()]);
        let setup = Setup { deadline_origins: origins, ..Setup::default() };
        let rig = Rig::set_up(setup, [answer(503), answer(200)]);
        let mut request = Rig::request(Method::GET, CallOptions::new());
        *request.uri_mut() = url.parse().unwrap();
        assert_eq!(rig.service.clone().call(request).await.unwrap().status(), 200);
        let counted = rig.script.headers()[1].contains_key(crate::ATTEMPT_COUNT);
        assert_eq!(
            (told(&rig)[0].is_some(), told(&rig)[1].is_some(), counted),
            (expected, expected, expected),
            "{url}"
        );
    }
}

/// Resolves whatever it is asked to this address.
struct To(&'static str);

impl Resolve for To {
    fn resolve(&self, _: &str, _: u16) -> Resolving {
        let address = self.0.parse().unwrap();
        Box::pin(async move { Ok(vec![address]) })
    }
}

/// Behind a name of ours a stranger was told all the same.
#[tokio::test(start_paused = true)]
async fn a_stranger_behind_a_local_name_is_a_stranger() {
    let stranger = || Endpoints::fixed(["http://eu.api.example"]);
    let dns = |name: &str, address| Endpoints::dns(name).resolver(To(address));
    for (endpoints, origins, expected) in [
        (stranger(), &[][..], false),
        (Endpoints::fixed(["http://10.0.0.7:3000"]), &[], true),
        (dns("http://api.example", "10.0.0.7:80"), &[], false),
        (dns("http://payments", "8.8.8.8:80"), &[], true),
        (stranger(), &["http://payments"], false),
        (stranger(), &["http://payments", "*.api.example"], true),
        (stranger(), &["*"], true),
    ] {
        let said = format!("{endpoints:?} {origins:?}");
        let deadline_origins = (!origins.is_empty())
            .then(|| origins.iter().map(|&origin: &&str| origin.to_owned()).collect::<Vec<_>>());
        let endpoints = vec![("http://payments".to_owned(), endpoints)];
        let setup = Setup { deadline_origins, endpoints, ..Setup::default() };
        let rig = Rig::set_up(setup, [answer(503), answer(200)]);
        let mut request = Rig::request(Method::GET, CallOptions::new());
        *request.uri_mut() = "http://payments/x".parse().unwrap();
        assert_eq!(rig.service.clone().call(request).await.unwrap().status(), 200, "{said}");
        let counted = rig.script.headers()[1].contains_key(crate::ATTEMPT_COUNT);
        let all = (told(&rig)[0].is_some(), told(&rig)[1].is_some(), counted);
        assert_eq!(all, (expected, expected, expected), "{said}");
    }
}

/// A service that is ready after a while.
#[derive(Clone)]
struct ReadyAfter {
    script: Script,
    until: Tick,
}

impl tower_service::Service<Request<String>> for ReadyAfter {
    type Response = Response<ScriptBody>;
    type Error = crate::error::BoxError;
    type Future = <Script as tower_service::Service<Request<String>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if now() >= self.until {
            return Poll::Ready(Ok(()));
        }
        let (waker, left) = (cx.waker().clone(), now().until(self.until));
        tokio::spawn(async move {
            tokio::time::sleep(left).await;
            waker.wake();
        });
        Poll::Pending
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.script.call(request)
    }
}

/// Ready in the same instant as its time was up, it was called for nobody; and the request bore a
/// time that was over.
#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_too_late_is_not_called() {
    for (ready_after, called) in [(100, false), (60, true)] {
        let timeout = TimeoutPolicy::standard().total(ms(100)).attempt(ms(100));
        let rig = Rig::new(&Policy::standard().timeout(timeout), [answer(200)]);
        let inner = ReadyAfter { script: rig.script.clone(), until: now().after(ms(ready_after)) };
        let mut service = ResilienceLayer::of(Arc::clone(&rig.core)).layer(inner);
        let response = service.call(Rig::request(Method::GET, CallOptions::new())).await;
        assert_eq!((response.is_ok(), rig.script.count() == 1), (called, called));
        if called {
            assert_eq!(rig.script.headers()[0]["x-envoy-expected-rq-timeout-ms"], "40");
        }
    }
}

/// Its place was given back with the error, and nobody watched what came after that.
#[tokio::test(start_paused = true)]
async fn a_body_that_has_failed_has_ended() {
    let data = || Piece::Data("piece".into());
    let timeout = TimeoutPolicy::standard().total(Duration::from_secs(20)).body_idle(Some(ms(500)));
    for (then, looks_away, kind) in [
        (Piece::Pause(ms(1)), Duration::from_secs(30), ErrorKind::Deadline),
        (Piece::Pause(Duration::from_secs(2)), ms(1), ErrorKind::BodyIdle),
        (Piece::Break, ms(1), ErrorKind::Body),
    ] {
        let pieces = vec![data(), then, data(), data()];
        let rig = Rig::new(&Policy::standard().timeout(timeout.clone()), [answer_with(200, pieces)]);
        let mut body = rig.get().await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        tokio::time::sleep(looks_away).await;
        assert_eq!(body.frame().await.unwrap().unwrap_err().kind(), kind);
        assert!(http_body::Body::is_end_stream(&body), "{kind:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(body.frame().await.is_none(), "{kind:?}");
    }
}

/// A server told how long an attempt is waited for cuts its handler off at the same moment as the
/// client gives the attempt up. Its answer said that it had turned the request away for want of
/// time: the call ended, and no breaker heard of it.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_behind_its_own_deadline_is_asked_again_and_opens_its_breaker() {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    for (hangs, status) in [(1, Some(200)), (usize::MAX, None)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let handler = tower::service_fn(move |_: Request<String>| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move {
                if number < hangs {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        });
        let server = crate::server::DeadlineLayer::standard().layer(handler);
        let timeout = TimeoutPolicy::standard().total(ms(1_000)).attempt(ms(200));
        let layer = ResilienceLayer::new(Policy::standard().timeout(timeout)).unwrap();
        let mut service = layer.layer(server);
        let mut call = || service.call(Request::get(URL).body(String::new()).unwrap());
        let answer = call().await;
        assert_eq!(
            answer.ok().map(|answer| answer.status().as_u16()).filter(|status| *status == 200),
            status
        );
        if status.is_none() {
            let _ = call().await;
            let breaker = layer.breaker("http://users:3000").unwrap().snapshot().unwrap();
            assert_eq!(breaker.state, State::Open, "{breaker:?}");
        }
    }
}

/// The handler's call had its caller's time to the end, and its fallback came when that had hung
/// up.
#[tokio::test(start_paused = true)]
async fn a_handlers_fallback_arrives_before_its_caller_gives_up() {
    use std::convert::Infallible;

    let hangs = tower::service_fn(|_: Request<String>| {
        std::future::pending::<Result<Response<String>, Infallible>>()
    });
    let dependency = ResilienceLayer::new(Policy::standard()).unwrap().layer(hangs);
    let handler = tower::service_fn(move |_: Request<String>| {
        let mut dependency = dependency.clone();
        async move {
            let asked =
                dependency.call(Request::get("http://stock:3000/").body(String::new()).unwrap()).await;
            assert_eq!(asked.unwrap_err().kind(), ErrorKind::Deadline);
            Ok::<_, Infallible>(Response::new("what we know".to_owned()))
        }
    });
    let server = crate::server::DeadlineLayer::standard().layer(handler);
    let mut service = ResilienceLayer::new(Policy::standard().retry(None)).unwrap().layer(server);
    let (begun, one_second) = (now(), CallOptions::new().timeout(ms(1_000)));
    let mut request = Request::get(URL).body(String::new()).unwrap();
    request.extensions_mut().insert(one_second);
    let answer = service.call(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), now().since(begun)), (200, ms(900)));
}

/// Who leaves its server no chance learns nothing of it.
#[tokio::test(start_paused = true)]
async fn what_is_cut_off_for_callers_in_a_great_hurry_opens_no_breaker() {
    use std::convert::Infallible;

    let handler = tower::service_fn(|_: Request<String>| async {
        tokio::time::sleep(ms(100)).await;
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let mut service = ResilienceLayer::new(Policy::standard())
        .unwrap()
        .layer(crate::server::DeadlineLayer::standard().layer(handler));
    let mut call = || service.call(Request::get(URL).body(String::new()).unwrap());
    for _ in 0..30 {
        assert_eq!(call().await.unwrap().status(), 200);
    }
    for _ in 0..30 {
        let _ = deadline::scope(Deadline::within(ms(20)), call()).await;
    }
    assert_eq!(call().await.unwrap().status(), 200, "nobody was refused");
}

fn cut_off_after(after: u64, advice: Option<&'static str>) -> impl Clone + Fn(Request<String>) -> CutOff {
    move |_| {
        Box::pin(async move {
            tokio::time::sleep(ms(after)).await;
            let mut response = Response::new(String::new());
            *response.status_mut() = http::StatusCode::GATEWAY_TIMEOUT;
            response.headers_mut().insert(SHED, crate::advice::SHED_CUT);
            if let Some(advice) = advice {
                response.headers_mut().insert(RETRY, http::HeaderValue::from_static(advice));
            }
            Ok(response)
        })
    }
}

type CutOff =
    std::pin::Pin<Box<dyn Future<Output = Result<Response<String>, std::convert::Infallible>> + Send>>;

/// A server with a bound of its own that is far below what its callers allow cuts everything off:
/// that is its failure, not its callers' hurry.
#[tokio::test(start_paused = true)]
async fn a_server_that_cuts_off_long_before_its_callers_time_is_over_fails() {
    let timeout = TimeoutPolicy::standard().total(ms(5_000)).attempt(ms(4_000));
    let layer = ResilienceLayer::new(Policy::standard().timeout(timeout).retry(None)).unwrap();
    let mut service = layer.layer(tower::service_fn(cut_off_after(100, None)));
    for _ in 0..5 {
        assert_eq!(service.call(Request::get(URL).body(String::new()).unwrap()).await.unwrap().status(), 504);
    }
    let breaker = layer.breaker("http://users:3000").unwrap().snapshot().unwrap();
    assert_eq!(breaker.state, State::Open, "{breaker:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_advice_holds_for_what_was_cut_off_too() {
    for (advice, is_repeated) in [(Some("never"), false), (None, true)] {
        let timeout = TimeoutPolicy::standard().total(ms(450)).attempt(ms(200));
        let layer = ResilienceLayer::new(Policy::standard().timeout(timeout)).unwrap();
        let mut service = layer.layer(tower::service_fn(cut_off_after(198, advice)));
        let answer = service.call(Request::get(URL).body(String::new()).unwrap()).await.unwrap();
        assert_eq!(answer.body().report().attempts().len() > 1, is_repeated, "{advice:?}");
    }
}
