//! Responses that no call has brought, for code that takes them.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use url::Url;

use super::answer::Answer;
use super::made::{UPSTREAM, parsed, report};
use crate::outcome::report::{CallReport, Trigger};
use crate::pool_defaults::MAX_BODY;

/// A response with this head and body, as from a call that made one attempt. One whose body breaks
/// needs a call: [`Script`](super::Script) it.
///
/// ```
/// use resilient_client::testing::{Answer, response};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), resilient_client::Error> {
/// let response = response(Answer::json(200, &["Ada"])).url("http://users:3000/users").build();
/// assert_eq!(response.report().attempts().len(), 1);
/// assert_eq!(response.json::<Vec<String>>().await?, ["Ada"]);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// When that is no answer, but what comes in place of one, or its body breaks.
#[track_caller]
pub fn response(answer: Answer) -> ResponseMaker {
    let Some((status, headers, body)) = answer.whole() else {
        panic!("no whole answer: script it, and make a call")
    };
    let made = report(UPSTREAM).answered(Trigger::First, status.as_u16(), Duration::from_millis(1));
    let url = parsed(UPSTREAM);
    ResponseMaker { status, headers, body, url, report: made.build() }
}

/// Makes a response of either client. From [`response`].
#[derive(Debug)]
#[must_use = "it makes nothing until `build`"]
pub struct ResponseMaker {
    status: StatusCode,
    headers: HeaderMap,
    body: bytes::Bytes,
    url: Url,
    report: CallReport,
}

impl ResponseMaker {
    /// The URL that answered. Default `http://upstream.test`.
    ///
    /// # Panics
    /// When that is none.
    #[track_caller]
    pub fn url(mut self, url: &str) -> Self {
        self.url = parsed(url);
        self
    }

    /// How the call went.
    pub fn report(mut self, report: CallReport) -> Self {
        self.report = report;
        self
    }

    fn head<B>(status: StatusCode, headers: HeaderMap, body: B) -> http::Response<B> {
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// The response of a [`Client`](crate::Client).
    #[cfg(feature = "reqwest")]
    pub fn build(self) -> crate::Response {
        let Self { status, headers, body, url, report } = self;
        let mut response = Self::head(status, headers, body);
        // How reqwest is told where a response comes from.
        if let Ok(carrier) = reqwest::ResponseBuilderExt::url(http::Response::builder(), url).body(()) {
            response.extensions_mut().extend(carrier.into_parts().0.extensions);
        }
        crate::Response::kept(response.into(), report, MAX_BODY)
    }

    /// The response of a [`hyper::Client`](crate::hyper::Client).
    #[cfg(feature = "hyper")]
    pub fn build_hyper(self) -> crate::hyper::Response {
        let Self { status, headers, body: bytes, url, report } = self;
        let (head, ()) = Self::head(status, headers, ()).into_parts();
        let body = crate::call::kept_body::KeptBody { bytes, cut: false, trailers: None };
        let uri = url.as_str().parse().unwrap_or_default();
        crate::hyper::Response::kept(head, body, report, uri, MAX_BODY)
    }
}
