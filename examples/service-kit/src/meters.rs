//! `/metrics`: what a service counts, as Prometheus reads it.
//!
//! Counting and rendering are metrics-exporter-prometheus's: the recorder that users of the
//! `metrics` facade know, kept by the same people. Here is what it doesn't know: a service's own
//! requests, what has to be looked up before it is rendered, and a recorder for each service rather
//! than one for the process, so that two services in one process (a test's, the demo's) count
//! apart.
//!
//! A request's labels are its method, its route's template and its status, under OpenTelemetry's
//! names. A path is never one.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, header::CONTENT_TYPE},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

/// Upper bounds for durations, in seconds, as OpenTelemetry's conventions for HTTP advise.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// How often what was recorded is put in order when nobody asks for it, which bounds what waits for
/// that.
const UPKEEP: Duration = Duration::from_secs(5);
/// What Prometheus reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Duration of the service's own requests.
pub const REQUEST_DURATION: &str = "http.server.request.duration";
/// Requests that are being answered.
pub const ACTIVE_REQUESTS: &str = "http.server.active_requests";

const METADATA: Metadata<'static> = Metadata::new("service_kit", Level::INFO, Some("service_kit"));

type BeforeRendering = Box<dyn Fn() + Send + Sync>;

/// One service's counts. A clone is the same service's.
#[derive(Clone)]
pub struct Meters(Arc<Inner>);

struct Inner {
    recorder: Arc<PrometheusRecorder>,
    before_rendering: Mutex<Vec<BeforeRendering>>,
}

impl Default for Meters {
    fn default() -> Self {
        let builder = PrometheusBuilder::new().with_recommended_naming(true);
        // The error is for no buckets at all.
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("duration".to_owned()), &BUCKETS)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        recorder.describe_histogram(
            KeyName::from_const_str(REQUEST_DURATION),
            Some(Unit::Seconds),
            "Duration of a request, from its head to its answer's.".into(),
        );
        recorder.describe_gauge(
            KeyName::from_const_str(ACTIVE_REQUESTS),
            None,
            "Requests that are being answered.".into(),
        );
        Self(Arc::new(Inner { recorder: Arc::new(recorder), before_rendering: Mutex::default() }))
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    /// Where others may count, too.
    pub fn recorder(&self) -> Arc<PrometheusRecorder> {
        Arc::clone(&self.0.recorder)
    }

    /// `tell` is called before each rendering: for what has a level that only its owner knows.
    pub fn before_rendering(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.0.before_rendering.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(tell));
    }

    /// All that was counted, as text.
    pub fn render(&self) -> String {
        for tell in &*self.0.before_rendering.lock().unwrap_or_else(PoisonError::into_inner) {
            tell();
        }
        self.0.recorder.handle().render()
    }

    /// `GET /metrics`.
    pub fn routes(&self) -> Router {
        let meters = self.clone();
        let text = async move || ([(CONTENT_TYPE, TEXT)], meters.render()).into_response();
        Router::new().route("/metrics", get(text))
    }

    /// Counts what these routes answer.
    pub fn around(&self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self.clone(), count))
    }

    /// Keeps what is recorded in order, also while nobody asks for it.
    pub async fn keep_until(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
            self.0.recorder.handle().run_upkeep();
        }
    }

    fn active(&self, method: &'static str) -> metrics::Gauge {
        let key = Key::from_parts(ACTIVE_REQUESTS, vec![Label::new("http.request.method", method)]);
        self.0.recorder.register_gauge(&key, &METADATA)
    }

    fn answered(
        &self,
        method: &'static str,
        route: Option<MatchedPath>,
        status: Option<StatusCode>,
        took: Duration,
    ) {
        let mut labels = vec![Label::new("http.request.method", method)];
        labels.extend(route.map(|route| Label::new("http.route", route.as_str().to_owned())));
        // What handlers answer is theirs to choose: a bounded set.
        labels
            .extend(status.map(|status| Label::new("http.response.status_code", status.as_str().to_owned())));
        let key = Key::from_parts(REQUEST_DURATION, labels);
        self.0.recorder.register_histogram(&key, &METADATA).record(took);
    }
}

/// A request on its way. One whose client goes away has no status.
struct Counted {
    meters: Meters,
    method: &'static str,
    route: Option<MatchedPath>,
    begun: Instant,
    active: metrics::Gauge,
    status: OnceLock<StatusCode>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.active.decrement(1.0);
        let (route, status) = (self.route.take(), self.status.get().copied());
        self.meters.answered(self.method, route, status, self.begun.elapsed());
    }
}

async fn count(State(meters): State<Meters>, request: Request, next: Next) -> Response {
    let method = known(request.method());
    let active = meters.active(method);
    active.increment(1.0);
    #[allow(clippy::disallowed_methods, reason = "a duration that is only shown")]
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let counted = Counted { meters, method, route, begun, active, status: OnceLock::new() };
    let response = next.run(request).await;
    let _ = counted.status.set(response.status());
    response
}

/// As OpenTelemetry's conventions have it: anybody may make up methods.
pub(crate) fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn requests_are_counted_by_method_route_and_status_and_never_by_path() {
        let meters = Meters::default();
        let routes = Router::new().route("/users/{id}", get(async || "ada")).merge(meters.routes());
        let app = meters.around(routes);
        for path in ["/users/s3cret-1", "/users/s3cret-2", "/nowhere/s3cret-3"] {
            testing::get(&app, path).await;
        }
        let text = testing::get(&app, "/metrics").await.body;
        let count = |labels: &str| {
            let line = format!("http_server_request_duration_seconds_count{{{labels}}} ");
            text.lines().find_map(|it| it.strip_prefix(&line).map(str::to_owned))
        };
        let users =
            "http_request_method=\"GET\",http_route=\"/users/{id}\",http_response_status_code=\"200\"";
        assert_eq!(count(users).as_deref(), Some("2"), "{text}");
        let nowhere = "http_request_method=\"GET\",http_response_status_code=\"404\"";
        assert_eq!(count(nowhere).as_deref(), Some("1"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        // The one that asks is being answered.
        assert!(text.contains("http_server_active_requests{http_request_method=\"GET\"} 1\n"), "{text}");
        assert!(text.contains("# HELP http_server_request_duration_seconds Duration"), "{text}");
    }
}
