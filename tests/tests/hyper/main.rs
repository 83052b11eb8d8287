//! The client over hyper: the same verbs, the same engine, and nothing hidden below it.

mod bodies;
mod connecting;
mod counts;
mod http1;
mod http2;
mod requests;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method};
use http_body::Frame;
use http_body_util::StreamBody;
use resilient_client::hyper::{Body, Client, ClientBuilder, RequestBuilder};
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::policy::PolicySet;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Attempt, CallReport, Decline, Error, ErrorKind, Policy, Prepared};
use resilient_client_tests::h2_server::{self, Act, H2Server, NO_ERROR, REFUSED_STREAM};
use resilient_client_tests::server::{NobodyHome, Request};
use resilient_client_tests::tls::Tls;
use resilient_client_tests::{Gate, Heard, Reply, SOON, Server, everything_it_says, within};
use tokio::task::JoinSet;

/// For servers that will never answer.
const SHORT: Duration = Duration::from_millis(300);
/// Far below the attempt's.
const CONNECT: Duration = Duration::from_millis(100);

/// No breaker: faults are all there is in most of these.
fn builder(timeout: TimeoutPolicy, heard: &Heard) -> ClientBuilder {
    Client::builder().policy(Policy::standard().timeout(timeout).breaker(None)).observer(heard.clone())
}

fn client_of(heard: &Heard) -> Client {
    builder(TimeoutPolicy::standard(), heard).build().unwrap()
}

/// A whole call, to the last byte of the body.
async fn call(request: RequestBuilder) -> Result<(String, CallReport), Error> {
    within(SOON, async {
        let response = request.send().await?;
        let report = response.report().clone();
        Ok((response.text().await?, report))
    })
    .await
}

fn outcomes(report: &CallReport) -> Vec<Outcome> {
    report.attempts().iter().filter_map(resilient_client::AttemptReport::outcome).collect()
}

fn failed(error: &Error) -> Vec<Outcome> {
    outcomes(error.report().expect("a call that began has a report"))
}

const fn failure(kind: FailureKind) -> Outcome {
    Outcome::Failure(kind)
}

fn echo(request: &Request) -> Reply {
    let said = request.headers.iter().filter(|(name, _)| name.starts_with("x-") || name == "content-type");
    let said: Vec<_> = said.map(|(name, value)| format!("{name}={value}")).collect();
    let body = String::from_utf8_lossy(&request.body);
    Reply::answer(200, format!("{} {} {} {body}", request.method, request.target, said.join(",")))
}
