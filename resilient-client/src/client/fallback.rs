//! Where the client meets the store of older answers. Without the feature, or unless asked for,
//! there is nothing here.

#[cfg(not(feature = "cache"))]
pub(crate) use off::{Answers, Fallback};
#[cfg(feature = "cache")]
pub(crate) use on::{Answers, Fallback};

#[cfg(feature = "cache")]
mod on {
    use std::sync::Arc;

    use reqwest::{Body, Request, Url};

    use crate::call::exchange::announces_stream;
    use crate::call::kept_body::KeptBody;
    use crate::call::options::CallOptions;
    use crate::call::trail::is_home;
    use crate::client::Response;
    use crate::client::response::assemble;
    use crate::error::Error;
    use crate::outcome::report::CallReport;
    use crate::stale::{self, Asked, Cache, Came, Capture, Read, StaleSnapshot, Stored};

    /// The client's store, if it has one.
    #[derive(Clone)]
    pub(crate) struct Answers(Option<Arc<Cache>>);

    impl Answers {
        pub(in crate::client) fn none() -> Self {
            Self(None)
        }

        pub(in crate::client) fn within(limits: Option<stale::Limits>) -> Self {
            Self(limits.map(|limits| Arc::new(Cache::new(limits))))
        }

        pub(in crate::client) fn about(
            &self,
            request: &Request,
            options: &CallOptions,
            max_body: usize,
        ) -> Fallback {
            let Some(cache) = &self.0 else { return Fallback::none() };
            let (method, url) = (request.method(), request.url());
            let key = options.key.as_deref();
            let has_body = request.body().is_some();
            let asked = Asked::new(cache, method, url, request.headers(), key, has_body);
            // A caller who wants a stream wants it live.
            let asked = asked.filter(|asked| !(options.streaming && matches!(asked, Asked::Read(_))));
            Fallback(asked.map(|asked| Box::new((asked, url.clone(), max_body))))
        }

        pub(in crate::client) fn snapshot(&self) -> Option<StaleSnapshot> {
            self.0.as_ref().map(|cache| cache.snapshot())
        }
    }

    /// What the store has to do with a call: mostly nothing.
    pub(crate) struct Fallback(Option<Box<(Asked, Url, usize)>>);

    impl Fallback {
        pub(in crate::client) fn none() -> Self {
            Self(None)
        }

        /// The answer leads elsewhere, and a request that changes something has been taken.
        pub(in crate::client) fn redirected(&self) {
            if let Some((Asked::Write { cache, url }, ..)) = self.0.as_deref() {
                cache.changed(url);
            }
        }

        /// The call's result: its own, or an older answer in its place.
        pub(in crate::client) fn settle(
            &mut self,
            ended: Result<Response, Error>,
        ) -> Result<Response, Error> {
            let Some(asked) = self.0.take() else { return ended };
            match (*asked, ended) {
                ((Asked::Read(read), url, max_body), Ok(response)) => {
                    Ok(answered(*read, &url, response, max_body))
                }
                ((Asked::Read(read), url, max_body), Err(error)) => failed(&read, url, error, max_body),
                ((Asked::Write { cache, url }, ..), ended) => {
                    if let Ok(response) = &ended
                        && (response.status().is_success() || response.status().is_redirection())
                    {
                        cache.changed(&url);
                    }
                    ended
                }
            }
        }
    }

    fn answered(read: Read, url: &Url, response: Response, max_body: usize) -> Response {
        let status = response.status();
        if Read::stands_in_for_status(status) {
            return match read.look_up() {
                Some(stored) => {
                    let report = response.report().clone();
                    let degraded = stored.degraded(None, Some(status));
                    given(stored, degraded, url.clone(), report, max_body)
                }
                None => response,
            };
        }
        let report = response.report();
        // Read whole or not: what a stream had to say is over.
        let stream = report.is_streaming() || announces_stream(status, response.headers());
        let own = is_own(url, response.url(), report) && !stream && !report.is_cut();
        let came = Came {
            earliest: if response.is_whole() { report.began() } else { report.ended() },
            latest: report.ended(),
        };
        match read.answered(status, response.headers(), response.content_length(), own, came) {
            Some(draft) => {
                response.map_body(|body, expected| Body::wrap(Capture::new(body, draft, expected)))
            }
            None => response,
        }
    }

    fn failed(read: &Read, url: Url, error: Error, max_body: usize) -> Result<Response, Error> {
        let stored = Read::stands_in_for_error(&error).then(|| read.look_up()).flatten();
        match (stored, error.report().cloned()) {
            (Some(stored), Some(report)) => {
                let degraded = stored.degraded(Some(error), None);
                Ok(given(stored, degraded, url, report, max_body))
            }
            _ => Err(error),
        }
    }

    fn given(
        stored: Stored,
        degraded: stale::Degraded,
        url: Url,
        report: CallReport,
        max_body: usize,
    ) -> Response {
        let Stored { status, headers, body, .. } = stored;
        let mut response = http::Response::new(());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response.extensions_mut().insert(degraded);
        let (parts, ()) = response.into_parts();
        let body = Body::wrap(KeptBody { bytes: body, cut: false });
        Response::kept(assemble(url, parts, body), report, max_body)
    }

    /// Whether the answer came from the URL that was asked, at its own place or at one of its
    /// endpoints, and not from where a redirect led.
    fn is_own(asked: &Url, answered: &Url, report: &CallReport) -> bool {
        asked.path() == answered.path()
            && asked.query() == answered.query()
            && is_home(asked, answered, report)
    }
}

#[cfg(not(feature = "cache"))]
mod off {
    use reqwest::Request;

    use crate::call::options::CallOptions;
    use crate::client::Response;
    use crate::error::Error;

    #[derive(Clone)]
    pub(crate) struct Answers;

    impl Answers {
        pub(in crate::client) fn none() -> Self {
            Self
        }

        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::client) fn about(&self, _: &Request, _: &CallOptions, _: usize) -> Fallback {
            Fallback
        }
    }

    pub(crate) struct Fallback;

    impl Fallback {
        pub(in crate::client) fn none() -> Self {
            Self
        }

        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::client) fn redirected(&self) {}

        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::client) fn settle(
            &mut self,
            ended: Result<Response, Error>,
        ) -> Result<Response, Error> {
            ended
        }
    }
}
