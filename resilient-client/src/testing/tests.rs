//! The wire that users script, through each door.

use std::error::Error as _;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::outcome::FailureKind;
use crate::time::now;
use crate::{Client, Decline, ErrorKind, Policy, Rejection, ResilienceLayer, Trigger};

const MS: Duration = Duration::from_millis(1);
const URL_OF_ALL: &str = "http://users:3000/users";
const URL: &str = "http://users:3000/users/1";

fn client(script: &Script) -> Client {
    Client::builder().policy(Policy::standard()).script(script).seed(1).build().unwrap()
}

fn panics(it: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(it)).expect_err("it panics");
    let literal = panic.downcast_ref::<&str>().map(|message| (*message).to_owned());
    panic.downcast_ref::<String>().cloned().or(literal).expect("a message")
}

/// A test got the 302 that its client would have followed in production.
#[tokio::test(start_paused = true)]
async fn redirects_are_followed_as_by_the_client_that_it_will_be() {
    let script = Script::new()
        .on(get("/old").always(Answer::status(302).header("location", "/new")))
        .on(get("/away").always(Answer::status(302).header("location", "http://elsewhere/new")))
        .on(post("/old").always(Answer::status(303).header("location", "/new")))
        .on(get("/new").always(Answer::text(200, "Ada")));
    let at = |path: &str| format!("http://users:3000{path}");
    let usual = client(&script);
    let response = usual.get(at("/old")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.url().as_str()), (200, &*at("/new")));
    assert_eq!(usual.post(at("/old")).body("tea").send().await.unwrap().status(), 200);
    assert_eq!(usual.get(at("/away")).send().await.unwrap().status(), 302);
    for client in [
        Client::builder().follows_no_redirects().script(&script),
        Client::builder().redirects(crate::Redirects::none()).script(&script),
        Client::builder().transport(|it| it.redirect(reqwest::redirect::Policy::none())).script(&script),
    ] {
        assert_eq!(client.build().unwrap().get(at("/old")).send().await.unwrap().status(), 302);
    }
}

/// Both were sent, and it was the server's to choose.
#[tokio::test(start_paused = true)]
async fn a_key_takes_the_place_of_the_one_before() {
    let script = Script::new().on(post("/users").always(Answer::status(201)));
    client(&script).post(URL_OF_ALL).idempotency_key("1").idempotency_key("2").send().await.unwrap();
    #[cfg(feature = "hyper")]
    {
        let lean = crate::hyper::Client::builder().script(&script).build().unwrap();
        lean.post(URL_OF_ALL).idempotency_key("1").idempotency_key("2").send().await.unwrap();
    }
    for request in script.requests() {
        let keys: Vec<_> = request.headers.get_all(crate::IDEMPOTENCY_KEY).iter().collect();
        assert_eq!(keys, ["2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_turn_and_the_engine_does_the_rest() {
    let script = Script::new()
        .on(get("/users/{id}").fails(2).then_json(&["Ada"]))
        .on(post("/users").header("idempotency-key", "7").then(Answer::status(201)));
    let client = client(&script);
    let response = client.get(URL).send().await.unwrap();
    assert_attempts(&response, ["first 503", "retry 503", "retry 200"]);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.content_length(), Some(7));
    assert_eq!(response.url().as_str(), URL);
    assert_eq!(response.json::<Vec<String>>().await.unwrap(), ["Ada"]);
    let made = client.post("http://users:3000/users?page=2").idempotency_key("7").body("Grace");
    assert_eq!(made.send().await.unwrap().status(), 201);
    script.verify();
    script.assert_came(["GET /users/1", "GET /users/1", "GET /users/1", "POST /users?page=2"]);
    let last = script.requests().pop().unwrap();
    assert_eq!(
        (&*last.host, &*last.body, last.header("idempotency-key")),
        ("users:3000", &b"Grace"[..], Some("7"))
    );
}

/// Each of them on the paused clock: hours of it, were it real.
#[tokio::test(start_paused = true)]
async fn everything_that_goes_wrong_is_the_engines_to_mend() {
    let broken = || Answer::text(200, "a body of some length");
    for (answer, policy, words) in [
        (Answer::refused(), Policy::standard(), "first connect"),
        (Answer::reset(), Policy::standard(), "first transport"),
        (Answer::garbage(), Policy::standard(), "first transport"),
        (Answer::hang(), Policy::standard(), "first timeout"),
        (Answer::status(200).after(Duration::from_secs(3_600)), Policy::standard(), "first timeout"),
        (broken().cut_after(3), Policy::standard(), "first body"),
        (broken().reset_after_head(), Policy::standard(), "first body"),
        (broken().stalls_after(3), Policy::standard(), "first timeout"),
        (Answer::status(429), Policy::standard(), "first 429"),
    ] {
        let script = Script::new().on(get("/users/1").then(answer.clone()).then_text("well"));
        let client = Client::builder().policy(policy).script(&script).build().unwrap();
        let response =
            client.get(URL).send_buffered().await.unwrap_or_else(|error| panic!("{answer:?}: {error:?}"));
        assert_attempts(&response, [words, "retry 200"]);
        assert_eq!(response.text().await.unwrap(), "well");
        script.verify();
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_an_error_of_hypers_own_where_it_is_read() {
    let script = Script::new().on(anything().then(Answer::text(200, "a body").cut_after(2)));
    let response = client(&script).get(URL).send().await.unwrap();
    let error = response.text().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    let chain: Vec<_> = std::iter::successors(error.source(), |link| (*link).source()).collect();
    assert!(chain.iter().any(|link| link.is::<hyper::Error>()), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_trickle_takes_its_time_on_the_clock_there_is() {
    let slow = Answer::text(200, "12345678").after(30 * MS).trickles(2, 10 * MS);
    let script = Script::new().on(anything().then(slow));
    let began = now();
    assert_eq!(client(&script).get(URL).fetch_text().await.unwrap(), "12345678");
    let took = now().since(began);
    assert!((60 * MS..200 * MS).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_overtakes_what_hangs() {
    use crate::policy::hedge::{Delay, HedgePolicy};

    let script = Script::new().on(get("/users/1").then(Answer::hang()).then_text("well"));
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(50 * MS));
    let client = Client::builder().policy(Policy::standard().hedge(hedge)).script(&script).build().unwrap();
    let response = client.get(URL).send().await.unwrap();
    assert_attempts(&response, ["first abandoned", "hedge 200"]);
}

/// Its head had come, and its body was on the way.
#[tokio::test(start_paused = true)]
async fn a_hedges_loser_is_no_success_although_its_head_was_one() {
    use crate::policy::hedge::{Delay, HedgePolicy};

    let slow = Answer::text(200, "a body").trickles(1, Duration::from_secs(1));
    let script = Script::new().on(get("/users/1").then(slow).then_text("well"));
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(50 * MS));
    let client = Client::builder().policy(Policy::standard().hedge(hedge)).script(&script).build().unwrap();
    let response = client.get(URL).send_buffered().await.unwrap();
    assert_attempts(&response, ["first abandoned", "hedge 200"]);
    assert_eq!(response.report().attempts()[0].status().map(|status| status.as_u16()), Some(200));
}

#[tokio::test(start_paused = true)]
async fn a_forced_breaker_lets_nothing_through() {
    let script = Script::new().on(anything().always(Answer::status(200)));
    let client = client(&script);
    let breaker = client.breaker("http://users:3000").unwrap();
    breaker.force_open().unwrap();
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::CircuitOpen, true));
    script.assert_came([""; 0]);
    breaker.enable().unwrap();
    assert_eq!(client.get(URL).send().await.unwrap().status(), 200);
    script.verify();
}

#[tokio::test(start_paused = true)]
async fn what_the_script_does_not_know_is_a_clear_failure() {
    let script = Script::new().on(get("/users/1").then_text("Ada"));
    let client = client(&script);
    let stray = tokio::spawn(client.get("http://users:3000/users/2?all").send()).await.unwrap_err();
    let message = stray.into_panic().downcast::<String>().expect("a message");
    assert!(message.starts_with("the script has no answer for GET /users/2?all\n"), "{message}");
    assert!(message.contains("GET /users/1: 0 given, 1 left"), "{message}");
    let told = panics(|| script.verify());
    assert!(told.starts_with("1 answers were left; no answer was there for: [GET /users/2?all]"), "{told}");
    // What is used up is as little known.
    assert_eq!(client.get(URL).send().await.unwrap().status(), 200);
    assert!(tokio::spawn(client.get(URL).send()).await.is_err());
    let told = panics(|| script.assert_came(["GET /users/1"]));
    assert!(told.contains("GET /users/2?all to users:3000"), "{told}");
    // And nothing is held by what ended in a panic.
    assert_eq!(client.snapshot()[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_assertion_shows_the_whole_report() {
    let script = Script::new().on(anything().then(Answer::status(503)));
    let response = client(&script).post(URL).send().await.unwrap();
    assert_declined(&response, ["not_safe"]);
    let told = panics(|| assert_attempts(&response, ["first 503", "retry 200"]));
    assert!(told.contains("expected: [\"first 503\", \"retry 200\"]\nattempts: [\"first 503\"]\n"), "{told}");
    assert!(told.contains(&response.report().to_string()), "{told}");
    let told = panics(|| assert_declined(&response, ["budget_exhausted"]));
    assert!(told.contains("not retried: not idempotent"), "{told}");
    let told = panics(|| assert_attempts(&error(ErrorKind::Config).build(), ["first 200"]));
    assert!(told.ends_with("there is no report: no call began"), "{told}");
}

/// Nothing of it needs a clock that stands, or a thread alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_threads_on_the_real_clock_share_a_script() {
    let script = Script::new().on(get("/users/{id}").fails(1).always(Answer::text(200, "well").after(MS)));
    let client = client(&script);
    let calls: Vec<_> = (0..50)
        .map(|n| tokio::spawn(client.get(format!("http://users:3000/users/{n}")).fetch_text()))
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "well");
    }
    assert_eq!(script.requests().len(), 51);
    script.verify();
}

#[tokio::test(start_paused = true)]
async fn the_layer_takes_a_script_for_its_service() {
    let script = Script::new()
        .on(post("/users").then(Answer::refused()).then_text("well"))
        .on(get("/users").then(Answer::reset()).then(Answer::text(200, "cut").cut_after(1)));
    let layer = ResilienceLayer::builder().follows_no_redirects().seed(1).build().unwrap();
    let service = layer.layer(script.clone());
    let request = Request::post("http://users:3000/users?page=2").body("Ada".to_owned()).unwrap();
    let response = service.clone().oneshot(request).await.unwrap();
    assert_attempts(&response, ["first connect", "retry 200"]);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "well");
    let request = Request::get("http://users:3000/users").body(String::new()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_attempts(&response, ["first transport", "retry 200"]);
    assert_eq!(response.into_body().collect().await.unwrap_err().kind(), ErrorKind::Body);
    assert_eq!(script.requests()[1].body, "Ada");
    script.verify();
}

#[cfg(feature = "hyper")]
#[tokio::test(start_paused = true)]
async fn the_client_over_hyper_takes_one_too() {
    let script = Script::new()
        .on(post("/users").then(Answer::refused()).then(Answer::text(200, "Ada").stalls_after(1)));
    let client = crate::hyper::Client::builder().script(&script).build().unwrap();
    let response = client.post("http://users:3000/users").body("Grace").send().await.unwrap();
    assert_attempts(&response, ["first connect", "retry 200"]);
    assert_eq!(response.text().await.unwrap_err().kind(), ErrorKind::BodyIdle);
    assert!(script.requests().iter().all(|request| request.body == "Grace"));
    script.verify();
}

#[cfg(feature = "blocking")]
#[test]
fn the_blocking_client_takes_one_too() {
    let script = Script::new().on(get("/users/1").fails(1).then_text("Ada"));
    let client = crate::blocking::Client::builder().script(&script).build().unwrap();
    assert_eq!(client.get(URL).send().unwrap().text().unwrap(), "Ada");
    script.verify();
}

#[tokio::test(start_paused = true)]
async fn routes_fit_by_method_path_host_and_header() {
    let script = Script::new()
        .on(get("/").host("a").then_text("host a"))
        .on(get("/").header("accept", "text/css").then_text("css"))
        .on(Route::new("*", "/{any}").times(2, &Answer::text(200, "one segment")))
        .on(head("/").then(Answer::text(200, "no body").cut_after(2)))
        .on(anything().always(Answer::status(404)));
    let client = client(&script);
    assert_eq!(client.get("http://a/").fetch_text().await.unwrap(), "host a");
    assert_eq!(client.get("http://b/").header("accept", "text/css").fetch_text().await.unwrap(), "css");
    assert_eq!(client.put("http://b/x").fetch_text().await.unwrap(), "one segment");
    assert_eq!(client.delete("http://a/y").fetch_text().await.unwrap(), "one segment");
    assert_eq!(client.head("http://b/").send().await.unwrap().bytes().await.unwrap().len(), 0);
    assert_eq!(client.get("http://a/").send().await.unwrap().status(), 404);
    script.verify();
    assert!(panics(|| _ = get("users")).contains("must begin with /"));
}

/// Each kind, and each reason to refuse, as a call would have them.
#[tokio::test]
async fn an_error_of_any_kind_is_as_a_calls() {
    use ErrorKind as E;
    for kind in [
        E::Config,
        E::Request,
        E::Connect,
        E::Timeout,
        E::Deadline,
        E::CircuitOpen,
        E::Draining,
        E::WouldBlock,
        E::BulkheadFull,
        E::Overloaded,
        E::RateLimited,
        E::Throttled,
        E::NoEndpoint,
        E::Transport,
        E::Body,
        E::BodyIdle,
        E::BodyTooLarge,
        E::Decode,
        E::Redirect,
        E::Status,
    ] {
        let error = error(kind).says("so").retry_after(MS).because(std::io::Error::other("cause")).build();
        assert_eq!((error.kind(), error.retry_after()), (kind, Some(MS)));
        assert_eq!(error.source().unwrap().to_string(), "cause");
        assert!(error.to_string().contains(": so"), "{error}");
        let unsent = kind.is_rejected() || error.is_connect() || error.is_builder() || kind == E::WouldBlock;
        assert_eq!(error.is_unsent(), unsent, "{kind:?}");
        assert_eq!(error.is_body(), matches!(kind, E::Body | E::BodyIdle | E::BodyTooLarge), "{kind:?}");
    }
    let status = error(E::Status).status(404).url("http://users/7?key=secret").build();
    assert_eq!(status.status().unwrap(), 404);
    assert_eq!(status.url().unwrap().path(), "/7");
    assert!(!status.to_string().contains("secret"));
    for (why, kind) in [
        (Rejection::CircuitOpen { retry_after: Some(MS) }, E::CircuitOpen),
        (Rejection::BulkheadFull { limit: 3 }, E::BulkheadFull),
        (Rejection::QueueWait { waited: MS, displaced: true }, E::BulkheadFull),
        (Rejection::Overloaded { limit: 3, waited: MS }, E::Overloaded),
        (Rejection::Silent, E::Overloaded),
        (Rejection::RateLimited { retry_after: MS }, E::RateLimited),
        (Rejection::Throttled { percent: 3 }, E::Throttled),
        (Rejection::NoEndpoint, E::NoEndpoint),
        (Rejection::HeldBack { retry_after: MS }, E::Throttled),
    ] {
        let error = rejected(why).build();
        assert_eq!((error.kind(), error.retry_after()), (kind, why.retry_after()));
        assert!(error.is_unsent() && error.to_string().contains(&why.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_response_and_a_report_are_as_they_are_made() {
    let went = report("http://users:3000")
        .queued(5 * MS)
        .failed(Trigger::First, FailureKind::Timeout, 30 * MS)
        .answered(Trigger::Hedge, 503, 2 * MS)
        .declined(Decline::BudgetExhausted)
        .build();
    assert_attempts(&went, ["first timeout", "hedge 503"]);
    assert_eq!((went.queued(), went.elapsed()), (5 * MS, 37 * MS));
    let answer = || Answer::json(503, "busy").header("retry-after", "2");
    let made = response(answer()).url("http://users:3000/7").report(went).build();
    assert_declined(&made, ["budget_exhausted"]);
    assert_eq!((made.status().as_u16(), made.url().path()), (503, "/7"));
    assert_eq!(made.headers()["retry-after"], "2");
    assert_eq!(made.error_for_status().unwrap_err().status().unwrap(), 503);
    assert_eq!(response(answer()).build().json::<String>().await.unwrap(), "busy");
    #[cfg(feature = "hyper")]
    assert_eq!(response(answer()).build_hyper().json::<String>().await.unwrap(), "busy");
    assert!(panics(|| _ = response(Answer::hang())).contains("no whole answer"));
}
