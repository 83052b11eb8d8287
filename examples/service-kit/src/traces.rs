//! `--traces FILE`: the spans of requests and calls, as OpenTelemetry's file exporter writes them.
//! `OTEL_EXPORTER_OTLP_ENDPOINT`: the same to a collector.
//!
//! All of it is the package `otlp` of this repository over OpenTelemetry's own; here is whether it
//! is asked for. With it a request's span and an attempt's have the tracer's ids, and those go out
//! and are in the log; without, resilient-client's trace context does.
//!
//! Without the cargo feature `traces` there is no flag, and without `collector` no collector.

#[cfg(not(feature = "traces"))]
pub use off::{TraceOptions, Traces};
#[cfg(feature = "traces")]
pub use on::{TraceOptions, Traces};

use resilient_client::{Attempt, AttemptHook, Prepared, trace_context::PropagateTrace};

/// A client's [hook](resilient_client::ClientBuilder::on_attempt): the ids of the attempt's own
/// span where there is a tracer, otherwise a span id of its own in the request's trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Propagate;

impl AttemptHook for Propagate {
    fn prepare(&self, attempt: &Attempt<'_>) -> Prepared {
        let traced = tracer::headers();
        Prepared::now(traced.unwrap_or_else(|| PropagateTrace::headers(attempt)))
    }
}

/// What a tracer says of the spans of this process, if there is one.
#[cfg(feature = "traces")]
pub(crate) mod tracer {
    use axum::http::HeaderMap;
    use otlp::propagation::{TracerHeaders, continue_trace};
    use resilient_client::trace_context::TraceContext;
    use tracing::Span;

    pub(super) fn headers() -> Option<HeaderMap> {
        Some(TracerHeaders::headers()).filter(|headers| !headers.is_empty())
    }

    /// Makes `span` the child of what its request came from; its own context then.
    pub(crate) fn begin(span: &Span, parent: Option<&TraceContext>) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        if let Some(parent) = parent {
            parent.write(&mut headers);
        }
        continue_trace(span, &headers);
        TraceContext::of(&TracerHeaders::of(span))
    }
}

#[cfg(not(feature = "traces"))]
pub(crate) mod tracer {
    use axum::http::HeaderMap;
    use resilient_client::trace_context::TraceContext;
    use tracing::Span;

    pub(super) fn headers() -> Option<HeaderMap> {
        None
    }

    pub(crate) fn begin(_: &Span, _: Option<&TraceContext>) -> Option<TraceContext> {
        None
    }
}

#[cfg(feature = "traces")]
mod on {
    use std::fmt;
    use std::path::PathBuf;

    use clap::Args;
    use otlp::{file::FileExporter, spans};
    use tracing::Subscriber;
    use tracing_subscriber::{Layer, registry::LookupSpan};

    use crate::error::Error;

    /// Whether spans are written down.
    #[derive(Args, Clone, Default)]
    pub struct TraceOptions {
        /// Write the spans of requests and calls to this file, which only grows: OTLP in JSON, one
        /// batch a line
        #[arg(long, env = "TRACES", value_name = "FILE")]
        pub traces: Option<PathBuf>,
        /// Send the spans to the collector at this base URL (its port is 4318 as a rule): OTLP over
        /// HTTP in Protobuf
        #[cfg(feature = "collector")]
        #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
        pub traces_collector: Option<String>,
    }

    /// Leaves out the collector's URL, which may hold a password.
    impl fmt::Debug for TraceOptions {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut options = f.debug_struct("TraceOptions");
            options.field("traces", &self.traces);
            #[cfg(feature = "collector")]
            options.field("collector", &self.traces_collector.is_some());
            options.finish_non_exhaustive()
        }
    }

    impl TraceOptions {
        /// To this file and to nobody else, whatever the environment says.
        pub fn to_file(traces: Option<PathBuf>) -> Self {
            Self {
                traces,
                #[cfg(feature = "collector")]
                traces_collector: None,
            }
        }

        /// Where the spans of this service go. Call it outside of a runtime.
        pub fn open(&self, service: &str) -> Result<Traces, Error> {
            let (mut provider, mut asked) = (spans::builder(service), false);
            if let Some(path) = &self.traces {
                let file = FileExporter::open(path)
                    .map_err(|error| Error::config(format!("traces {}: {error}", path.display())))?;
                (provider, asked) = (provider.with_span_processor(spans::batches(file)), true);
            }
            #[cfg(feature = "collector")]
            if let Some(base) = self.traces_collector.as_deref().filter(|base| !base.is_empty()) {
                let collector = otlp::collector::exporter(base)
                    .map_err(|error| Error::config(format!("traces-collector {error}")))?;
                (provider, asked) = (provider.with_span_processor(spans::batches(collector)), true);
            }
            Ok(Traces(asked.then(|| provider.build())))
        }
    }

    /// Where spans go, if anywhere.
    pub struct Traces(Option<spans::SdkTracerProvider>);

    impl Traces {
        /// What takes them.
        pub fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
        where
            S: Subscriber + for<'span> LookupSpan<'span>,
        {
            self.0.as_ref().map(spans::layer)
        }

        /// Writes down what waits to be. The spans after it are lost.
        pub fn end(self) {
            if let Some(Err(error)) = self.0.map(|provider| provider.shutdown()) {
                tracing::warn!(%error, "not all spans were written down");
            }
        }
    }
}

#[cfg(not(feature = "traces"))]
mod off {
    use clap::Args;
    use tracing_subscriber::layer::Identity;

    use crate::error::Error;

    /// Nothing to be told.
    #[derive(Args, Clone, Debug, Default)]
    pub struct TraceOptions {}

    /// Nothing.
    pub struct Traces;

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
    impl TraceOptions {
        /// As with the feature.
        pub fn open(&self, _service: &str) -> Result<Traces, Error> {
            Ok(Traces)
        }
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    impl Traces {
        /// Nobody.
        pub fn layer(&self) -> Option<Identity> {
            None
        }

        /// Does nothing.
        pub fn end(self) {}
    }
}

#[cfg(all(test, feature = "collector"))]
mod tests {
    use super::TraceOptions;

    #[test]
    fn a_collectors_password_is_repeated_nowhere() {
        for base in ["http://u:secret@[bad", "secret of no scheme"] {
            let options = TraceOptions { traces_collector: Some(base.into()), ..TraceOptions::default() };
            let debug = format!("{options:?}");
            assert!(debug.contains("collector: true") && !debug.contains("secret"), "{debug}");
            let error = options.open("test").err().unwrap_or_else(|| panic!("{base} is no URL"));
            assert!(error.is_config(), "{base}: {error:?}");
            let said = format!("{error} {error:?} {}", crate::error::causes(&error));
            assert!(said.contains("traces-collector") && !said.contains("secret"), "{said}");
        }
    }
}
