//! tonic's client and server, with the layer in between.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use http::HeaderMap;
use http::uri::PathAndQuery;
use resilient_client::grpc::PREVIOUS_ATTEMPTS;
use resilient_client::policy::PolicySet;
use resilient_client::policy::hedge::{Delay, HedgePolicy};
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::time::now;
use resilient_client::{
    CallOptions, CallReport, Client, Decline, Error, Event, Policy, ReplayBody, ResilienceLayer, ResponseBody,
};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Heard, SOON, Watched, within};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::util::BoxCloneService;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

type Codec = ProstCodec<String, String>;

/// What the server does with its nth request, counted from 1.
type Script = Arc<dyn Fn(usize) -> Act + Send + Sync>;

#[derive(Clone)]
enum Act {
    /// A message; of a call that asks for a stream, as many as there are words.
    Answers(&'static str),
    Fails(Status),
    /// As many messages as there are words, then this.
    Breaks(&'static str, Status),
    AnswersAfter(Duration, &'static str),
}

/// A server of `/test.Notes/Get`, `List` and `Put`: unary, streaming to the client, and from it.
struct Notes {
    url: String,
    /// The headers of each request.
    seen: Watched<Vec<HeaderMap>>,
}

impl Notes {
    async fn start(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, script): (_, Script) = (Watched::default(), Arc::new(script));
        let notes = Self { url, seen: seen.clone() };
        let service = service_fn(move |request: http::Request<Body>| {
            let (seen, script) = (seen.clone(), Arc::clone(&script));
            async move {
                let nth = seen.change(|seen| {
                    seen.push(request.headers().clone());
                    seen.len()
                });
                Ok::<_, Infallible>(answer(request, script(nth)).await)
            }
        });
        tokio::spawn(Server::builder().serve_with_incoming(service, TcpIncoming::from(listener)));
        notes
    }

    fn count(&self) -> usize {
        self.seen.read(Vec::len)
    }

    fn said(&self, name: &str) -> Vec<Option<String>> {
        let text = |headers: &HeaderMap| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        self.seen.read(|seen| seen.iter().map(text).collect())
    }
}

async fn answer(request: http::Request<Body>, act: Act) -> http::Response<Body> {
    let mut grpc = tonic::server::Grpc::new(Codec::default());
    match request.uri().path() {
        "/test.Notes/List" => {
            let list = service_fn(move |_: Request<String>| {
                let act = act.clone();
                async move {
                    let (words, end) = match act {
                        Act::Answers(words) => (words, None),
                        Act::Breaks(words, status) => (words, Some(Err(status))),
                        Act::Fails(status) => return Err(status),
                        Act::AnswersAfter(..) => return Err(Status::unimplemented("")),
                    };
                    let notes: Vec<_> =
                        words.split_whitespace().map(|word| Ok(word.to_owned())).chain(end).collect();
                    Ok(Response::new(stream::iter(notes)))
                }
            });
            grpc.server_streaming(list, request).await
        }
        "/test.Notes/Put" => {
            let put = service_fn(move |request: Request<Streaming<String>>| {
                let act = act.clone();
                async move {
                    let mut notes = request.into_inner();
                    while notes.message().await?.is_some() {}
                    one(act).await
                }
            });
            grpc.client_streaming(put, request).await
        }
        _ => {
            let get = service_fn(move |_: Request<String>| one(act.clone()));
            grpc.unary(get, request).await
        }
    }
}

async fn one(act: Act) -> Result<Response<String>, Status> {
    match act {
        Act::Answers(text) => Ok(Response::new(text.to_owned())),
        Act::Fails(status) | Act::Breaks(_, status) => Err(status),
        Act::AnswersAfter(time, text) => {
            tokio::time::sleep(time).await;
            Ok(Response::new(text.to_owned()))
        }
    }
}

/// What a tonic client is made on.
type Layered = BoxCloneService<http::Request<Body>, http::Response<ResponseBody<Body>>, Error>;

struct Rig {
    notes: Notes,
    client: tonic::client::Grpc<Layered>,
    layer: ResilienceLayer,
    heard: Heard,
}

impl Rig {
    async fn new(
        policies: impl Into<PolicySet>,
        script: impl Fn(usize) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::of(Notes::start(script).await, policies)
    }

    fn of(notes: Notes, policies: impl Into<PolicySet>) -> Self {
        let heard = Heard::new();
        let layer = ResilienceLayer::builder().policy(policies).observer(heard.clone());
        let layer = layer.follows_no_redirects().build().unwrap();
        let channel = Endpoint::from_shared(notes.url.clone()).unwrap().connect_lazy();
        let service = ServiceBuilder::new()
            .map_request(|request: http::Request<Body>| request.map(ReplayBody::new))
            .layer(layer.clone())
            .map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
            .service(channel)
            .boxed_clone();
        let client = tonic::client::Grpc::with_origin(service, notes.url.parse().unwrap());
        Self { notes, client, layer, heard }
    }

    async fn get(&mut self, request: Request<String>) -> Result<String, Status> {
        within(SOON, async {
            self.client.ready().await.unwrap();
            let path = PathAndQuery::from_static("/test.Notes/Get");
            self.client.unary(request, path, Codec::default()).await.map(Response::into_inner)
        })
        .await
    }

    /// The notes, and what came after them.
    async fn list(&mut self, request: Request<String>) -> (Vec<String>, Option<Status>) {
        within(SOON, async {
            self.client.ready().await.unwrap();
            let path = PathAndQuery::from_static("/test.Notes/List");
            let mut notes = match self.client.server_streaming(request, path, Codec::default()).await {
                Ok(response) => response.into_inner(),
                Err(status) => return (Vec::new(), Some(status)),
            };
            let mut all = Vec::new();
            loop {
                match notes.message().await {
                    Ok(Some(note)) => all.push(note),
                    Ok(None) => return (all, None),
                    Err(status) => return (all, Some(status)),
                }
            }
        })
        .await
    }

    async fn put(&mut self, notes: Vec<String>, options: CallOptions) -> Result<String, Status> {
        within(SOON, async {
            self.client.ready().await.unwrap();
            let path = PathAndQuery::from_static("/test.Notes/Put");
            let mut request = Request::new(stream::iter(notes));
            request.extensions_mut().insert(options);
            self.client.client_streaming(request, path, Codec::default()).await.map(Response::into_inner)
        })
        .await
    }

    fn failures(&self) -> u32 {
        self.layer.snapshot()[0].breaker.failures
    }

    fn declined(&self) -> Vec<Decline> {
        self.heard.find(|event| match event {
            Event::RetryDeclined { why, .. } => Some(why.clone()),
            _ => None,
        })
    }
}

fn asks(options: CallOptions) -> Request<String> {
    let mut request = Request::new("which".to_owned());
    request.extensions_mut().insert(options);
    request
}

fn safe() -> CallOptions {
    CallOptions::new().idempotent(true)
}

fn unavailable() -> Status {
    Status::unavailable("restarting")
}

fn pushes_back(ms: &'static str) -> Status {
    let mut status = unavailable();
    status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from_static(ms));
    status
}

fn fails_until(nth: usize, status: Status) -> impl Fn(usize) -> Act {
    move |now| if now < nth { Act::Fails(status.clone()) } else { Act::Answers("a note") }
}

/// The whole story, with the standard policy as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_survives_a_server_that_restarts() {
    let mut rig = Rig::new(Policy::standard(), fails_until(3, unavailable())).await;
    assert_eq!(rig.get(asks(safe())).await.unwrap(), "a note");
    let previous = rig.notes.said(PREVIOUS_ATTEMPTS.as_str());
    assert_eq!(previous, [None, Some("1".to_owned()), Some("2".to_owned())]);

    // The time that is left, in microseconds: less each time.
    let left = rig
        .notes
        .said("grpc-timeout")
        .into_iter()
        .map(|left| left.unwrap().strip_suffix('u').unwrap().parse::<u64>().unwrap());
    let left: Vec<_> = left.collect();
    assert!(left.is_sorted_by(|before, after| before > after), "{left:?}");
    assert!(left[0] > 9_000_000 && left[0] <= 10_000_000, "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_may_change_something_is_called_once() {
    let mut rig = Rig::new(Policy::standard(), fails_until(2, unavailable())).await;
    let status = rig.get(asks(CallOptions::new())).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "restarting"));
    assert_eq!((rig.notes.count(), rig.declined()), (1, vec![Decline::NotSafe]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_says_which_methods_may_be_repeated() {
    let notes = Notes::start(fails_until(2, unavailable())).await;
    let safe = |policy: Policy| policy.retry(RetryPolicy::standard().idempotent(true));
    let policies = PolicySet::new(Policy::standard()).route(&*notes.url, "POST", "/test.Notes/Get", safe);
    let mut rig = Rig::of(notes, policies);
    assert_eq!(rig.get(asks(CallOptions::new())).await.unwrap(), "a note");
    assert_eq!(rig.notes.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushback_is_obeyed() {
    let mut rig = Rig::new(Policy::standard(), fails_until(2, pushes_back("300"))).await;
    let begun = now();
    assert_eq!(rig.get(asks(safe())).await.unwrap(), "a note");
    assert!(now().since(begun) >= Duration::from_millis(300), "{:?}", now().since(begun));

    let mut rig = Rig::new(Policy::standard(), fails_until(2, pushes_back("-1"))).await;
    assert_eq!(rig.get(asks(safe())).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(rig.notes.count(), 1);
}

/// As a service of Google's asks for time: 300 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retry_info_asks_for_is_obeyed() {
    let duration = [&[0x10][..], &[0x80, 0xc6, 0x86, 0x8f, 0x01]].concat();
    let in_message = |field: u8, inner: &[u8]| [&[field << 3 | 2, inner.len() as u8][..], inner].concat();
    let retry_info = in_message(1, &duration);
    let any = [in_message(1, b"type.googleapis.com/google.rpc.RetryInfo"), in_message(2, &retry_info)];
    let details = in_message(3, &any.concat());
    let busy = Status::with_details(Code::ResourceExhausted, "busy", details.into());
    let mut rig = Rig::new(Policy::standard(), fails_until(2, busy)).await;
    let begun = now();
    assert_eq!(rig.get(asks(safe())).await.unwrap(), "a note");
    assert!(now().since(begun) >= Duration::from_millis(300), "{:?}", now().since(begun));
    assert_eq!(rig.failures(), 0, "throttled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_in_the_trailers_opens_the_breaker() {
    let mut rig = Rig::new(Policy::standard(), |_| Act::Breaks("", unavailable())).await;
    for _ in 0..5 {
        let (notes, end) = rig.list(asks(safe())).await;
        assert_eq!((notes.len(), end.unwrap().code()), (0, Code::Unavailable));
    }
    let refused = rig.list(asks(safe())).await.1.unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with("circuit breaker is open"), "{refused:?}");
    assert_eq!(rig.notes.count(), 5, "nothing was tried again, and the sixth was never sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_is_the_servers_failure_and_is_not_begun_again() {
    let mut rig = Rig::new(Policy::standard(), |_| Act::Breaks("one two", Status::internal("bug"))).await;
    let (notes, end) = rig.list(asks(safe())).await;
    assert_eq!((notes, end.unwrap().code()), (vec!["one".to_owned(), "two".to_owned()], Code::Internal));
    assert_eq!((rig.notes.count(), rig.failures()), (1, 1));

    let mut rig = Rig::new(Policy::standard(), |_| Act::Answers("one two three")).await;
    let (notes, end) = rig.list(asks(safe())).await;
    assert_eq!((notes.len(), end.is_none(), rig.failures()), (3, true, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_to_the_server_is_sent_again_only_where_that_is_safe_and_it_is_kept() {
    let few = || vec!["note".to_owned(); 3];
    let mut rig = Rig::new(Policy::standard(), fails_until(2, unavailable())).await;
    assert_eq!(rig.put(few(), CallOptions::new()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!((rig.notes.count(), rig.declined()), (1, vec![Decline::NotSafe]));

    let mut rig = Rig::new(Policy::standard(), fails_until(2, unavailable())).await;
    assert_eq!(rig.put(few(), safe()).await.unwrap(), "a note");
    assert_eq!(rig.notes.count(), 2, "as gRPC's own retries send it again from their buffer");

    let many = vec!["note".repeat(1000); 40];
    let mut rig = Rig::new(Policy::standard(), fails_until(2, unavailable())).await;
    assert_eq!(rig.put(many, safe()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!((rig.notes.count(), rig.declined()), (1, vec![Decline::BodyNotKept]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hedge_answers_for_a_call_that_is_late() {
    let policy =
        Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(Duration::from_millis(50))));
    let late = Act::AnswersAfter(Duration::from_secs(8), "late");
    let mut rig =
        Rig::new(policy, move |nth| if nth == 1 { late.clone() } else { Act::Answers("a note") }).await;
    let begun = now();
    assert_eq!(rig.get(asks(safe())).await.unwrap(), "a note");
    assert!(now().since(begun) < Duration::from_secs(2), "{:?}", now().since(begun));
    assert_eq!(rig.notes.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_that_a_caller_sets_reaches_the_server_and_ends_the_call() {
    let mut rig = Rig::new(Policy::standard(), |_| Act::AnswersAfter(Duration::from_secs(8), "late")).await;
    let mut request = asks(safe());
    request.set_timeout(Duration::from_millis(300));
    let begun = now();
    let status = rig.get(request).await.unwrap_err();
    assert!(now().since(begun) < Duration::from_secs(3), "{:?}", now().since(begun));
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    let told = rig.notes.said("grpc-timeout")[0].clone().unwrap();
    let told = told.strip_suffix('u').map_or(300_000, |micros| micros.parse::<u64>().unwrap());
    assert!(told <= 300_000, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_listens_even_what_must_not_be_repeated_is_tried_again() {
    let nobody = NobodyHome::new();
    let notes = Notes { url: nobody.url().trim_end_matches('/').to_owned(), seen: Watched::default() };
    let mut rig = Rig::of(notes, Policy::standard());
    let status = rig.get(asks(CallOptions::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(rig.heard.attempts(), 4, "{:?}", rig.declined());
}

/// A gRPC call by hand, for either client.
macro_rules! by_hand {
    ($client:expr, $url:expr) => {
        $client
            .post($url)
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            // A message of no bytes, uncompressed.
            .body(vec![0_u8; 5])
            .idempotent(true)
    };
}

/// What each attempt of such a call came to.
fn seen_by_hand(notes: &Notes, report: &CallReport, bytes: &[u8]) {
    assert_eq!(report.attempts().len(), 3, "{report}");
    assert!(notes.said("grpc-timeout").iter().all(Option::is_some));
    assert_eq!(notes.said(PREVIOUS_ATTEMPTS.as_str())[2].as_deref(), Some("2"));
    assert_eq!(bytes.len(), 5 + 2 + "a note".len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_clients_know_grpc_when_they_are_given_it() {
    let notes = Notes::start(fails_until(3, unavailable())).await;
    let client = Client::builder().transport(reqwest::ClientBuilder::http2_prior_knowledge).build().unwrap();
    let call = by_hand!(client, &format!("{}/test.Notes/Get", notes.url));
    let response = within(SOON, call.send_buffered()).await.unwrap();
    let report = response.report().clone();
    seen_by_hand(&notes, &report, &response.bytes().await.unwrap());

    let notes = Notes::start(fails_until(3, unavailable())).await;
    let client = resilient_client::hyper::Client::builder().http2_prior_knowledge().build().unwrap();
    let call = by_hand!(client, &format!("{}/test.Notes/Get", notes.url));
    let response = within(SOON, call.send_buffered()).await.unwrap();
    let report = response.report().clone();
    seen_by_hand(&notes, &report, &response.bytes().await.unwrap());
}

/// Over reqwest only where the body is read inside the call: its pieces come without trailers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_clients_hear_a_status_in_the_trailers() {
    // What had begun might be ended by what ends others, too, and counts once then.
    let notes = Notes::start(|nth| Act::Breaks(if nth <= 4 { "" } else { "one" }, unavailable())).await;
    let url = format!("{}/test.Notes/List", notes.url);
    let client = Client::builder().transport(reqwest::ClientBuilder::http2_prior_knowledge).build().unwrap();
    let failures = || client.snapshot()[0].breaker.failures;
    within(SOON, by_hand!(client, &*url).send_buffered()).await.unwrap();
    assert_eq!((notes.count(), failures()), (4, 4), "it is part of each attempt");
    let body = within(SOON, by_hand!(client, &*url).send()).await.unwrap().bytes().await.unwrap();
    assert_eq!((body.len(), failures()), (10, 4), "nobody saw it");

    let client = resilient_client::hyper::Client::builder().http2_prior_knowledge().build().unwrap();
    let body = within(SOON, by_hand!(client, &*url).send()).await.unwrap().bytes().await.unwrap();
    assert_eq!((body.len(), client.snapshot()[0].breaker.failures), (10, 1));
}
