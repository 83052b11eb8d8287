//! HTTP/2 says of some failures that the request was never processed. Those are repeated whatever
//! the method, once each, by us and by nobody below us.

use std::time::Duration;

use http::Method;
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::{CallReport, Client, Decline, Error, ErrorKind, Policy, Trigger};
use resilient_client_tests::h2_server::{
    Act, CANCEL, H2Server, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, Request,
};
use resilient_client_tests::{Heard, SOON, within};

const REFUSED: Outcome = Outcome::Failure(FailureKind::Refused);
const BROKEN: Outcome = Outcome::Failure(FailureKind::Transport);

struct Rig {
    server: H2Server,
    client: Client,
    heard: Heard,
}

impl Rig {
    async fn new(script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Self {
        let server = H2Server::start(script).await;
        let heard = Heard::new();
        let client = Client::builder()
            .policy(Policy::standard().breaker(None))
            .transport(reqwest::ClientBuilder::http2_prior_knowledge)
            .observer(heard.clone())
            .build()
            .unwrap();
        Self { server, client, heard }
    }

    /// The body of the answer and the call's report.
    async fn call(&self, method: Method) -> Result<(String, CallReport), Error> {
        let mut request = self.client.request(method.clone(), self.server.url("/orders"));
        if method == Method::POST {
            request = request.body("an order");
        }
        within(SOON, async {
            let response = request.send().await?;
            let report = response.report().clone();
            Ok((response.text().await?, report))
        })
        .await
    }

    fn assert_the_counts_agree(&self, requests: usize) {
        assert_eq!((self.server.count(), self.heard.attempts()), (requests, requests));
    }
}

fn outcomes(report: &CallReport) -> Vec<Outcome> {
    report.attempts().iter().filter_map(resilient_client::AttemptReport::outcome).collect()
}

fn first(act: Act) -> impl Fn(&Request) -> Act {
    move |request| if request.nth == 1 { act } else { Act::Answer("done") }
}

#[tokio::test]
async fn a_refused_stream_is_sent_once_more_whatever_the_method() {
    for method in [Method::GET, Method::POST, Method::PATCH] {
        let rig = Rig::new(first(Act::Reset(REFUSED_STREAM))).await;
        let (text, report) = rig.call(method.clone()).await.unwrap();
        assert_eq!(text, "done", "{method}");
        assert_eq!(outcomes(&report), [REFUSED, Outcome::Success], "{method}");
        assert_eq!(report.attempts()[1].trigger(), Trigger::Retry);
        rig.assert_the_counts_agree(2);
        assert_eq!(rig.server.seen().read(|seen| seen.connections), 1, "the connection was fine");
    }
}

#[tokio::test]
async fn a_post_refused_once_arrives_whole_the_second_time() {
    let rig = Rig::new(first(Act::Reset(REFUSED_STREAM))).await;
    rig.call(Method::POST).await.unwrap();
    let bodies =
        rig.server.seen().read(|seen| seen.requests.iter().map(|r| r.body.clone()).collect::<Vec<_>>());
    assert_eq!(bodies, ["an order", "an order"]);
}

#[tokio::test]
async fn a_server_that_refuses_every_stream_is_asked_nine_times_and_no_more_and_by_nobody_below_us() {
    for method in [Method::GET, Method::POST] {
        let rig = Rig::new(|_| Act::Reset(REFUSED_STREAM)).await;
        let error = rig.call(method).await.unwrap_err();
        let report = error.report().unwrap();
        assert_eq!(outcomes(report), [REFUSED; 9]);
        assert_eq!(report.declined(), [Decline::AttemptsExhausted(9)]);
        assert!(error.is_unsent());
        rig.assert_the_counts_agree(9);
    }
}

#[tokio::test]
async fn refused_streams_cost_nothing() {
    let rig = Rig::new(
        |request| if request.nth % 4 == 0 { Act::Answer("done") } else { Act::Reset(REFUSED_STREAM) },
    )
    .await;
    // There are ten tokens to begin with, and each call takes three attempts in vain.
    for n in 0..20 {
        rig.call(Method::POST).await.unwrap_or_else(|error| panic!("call {n}: {error:?}"));
    }
    rig.assert_the_counts_agree(80);
    assert!(rig.client.snapshot()[0].budget > 14.9, "{:?}", rig.client.snapshot()[0].budget);
}

#[tokio::test]
async fn a_stream_above_the_last_one_of_a_goaway_is_sent_once_more_on_another_connection() {
    for method in [Method::GET, Method::POST] {
        let rig = Rig::new(first(Act::GoAway { last: 0, code: NO_ERROR })).await;
        let (text, report) = rig.call(method.clone()).await.unwrap();
        assert_eq!(text, "done", "{method}");
        // Of a GET nobody asks whether it was its stream that the GOAWAY excluded: it is safe to
        // repeat.
        let first = if method == Method::POST { REFUSED } else { BROKEN };
        assert_eq!(outcomes(&report), [first, Outcome::Success], "{method}");
        rig.assert_the_counts_agree(2);
        assert_eq!(rig.server.seen().read(|seen| seen.connections), 2);
    }
}

/// A rolling deployment: each connection ends with a GOAWAY after a while. Nothing is lost and
/// nothing runs twice.
#[tokio::test]
async fn posts_through_a_server_that_goes_away_every_tenth_request_all_arrive_once() {
    let rig = Rig::new(|request| match request.stream {
        ..19 => Act::Answer("done"),
        stream => Act::GoAway { last: stream - 2, code: NO_ERROR },
    })
    .await;
    for n in 0..200 {
        let (text, _) = rig.call(Method::POST).await.unwrap_or_else(|error| panic!("call {n}: {error:?}"));
        assert_eq!(text, "done");
    }
    assert_eq!(rig.server.count(), rig.heard.attempts());
    let refused = rig.heard.ended_as(REFUSED);
    assert_eq!(rig.server.count(), 200 + refused);
    assert!(refused >= 20, "{refused}");
}

/// The other side of the rule: what may have been processed is not repeated unless that is safe.
#[tokio::test]
async fn a_post_that_may_have_been_processed_is_sent_once() {
    for act in [Act::Reset(INTERNAL_ERROR), Act::Reset(CANCEL), Act::Close] {
        let rig = Rig::new(first(act)).await;
        let error = rig.call(Method::POST).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transport, "{act:?}");
        let report = error.report().unwrap();
        assert_eq!(outcomes(report), [BROKEN], "{act:?}");
        assert_eq!(report.declined(), [Decline::NotSafe], "{act:?}");
        rig.assert_the_counts_agree(1);

        let rig = Rig::new(first(act)).await;
        let (text, report) = rig.call(Method::GET).await.unwrap();
        assert_eq!((text.as_str(), outcomes(&report)), ("done", vec![BROKEN, Outcome::Success]), "{act:?}");
        rig.assert_the_counts_agree(2);
    }
}

/// At or below the last stream of a graceful GOAWAY, the answer still comes: going away is not an
/// error.
#[tokio::test]
async fn a_stream_the_goaway_admits_is_waited_for() {
    let rig = Rig::new(first(Act::GoAway { last: 1, code: NO_ERROR })).await;
    let call = rig.client.post(rig.server.url("/")).body("x").timeout(Duration::from_millis(500)).send();
    let error = within(SOON, call).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    rig.assert_the_counts_agree(1);
}
