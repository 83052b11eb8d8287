//! From `tracing` to OpenTelemetry.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
pub use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanExporter, TracerProviderBuilder},
};
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// How long a span that has ended waits for others to go with.
pub const WAIT: Duration = Duration::from_secs(1);

/// Gives the spans of a service of this name to `exporter`.
///
/// Keep it: what isn't given yet when the process ends is, if `shutdown` is called.
pub fn provider(service: &str, exporter: impl SpanExporter + 'static) -> SdkTracerProvider {
    builder(service).with_span_processor(batches(exporter)).build()
}

/// Of the spans of a service of this name; who gets them is to be said.
pub fn builder(service: &str) -> TracerProviderBuilder {
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    SdkTracerProvider::builder().with_resource(resource)
}

/// Gives spans to `exporter`, from a thread of its own. Of those that come faster than they go
/// 2,048 wait, and the others are lost.
pub fn batches(exporter: impl SpanExporter + 'static) -> BatchSpanProcessor {
    let config = BatchConfigBuilder::default().with_scheduled_delay(WAIT).build();
    BatchSpanProcessor::builder(exporter).with_batch_config(config).build()
}

/// The layer that makes them of `tracing`'s.
///
/// Of resilient-client it takes the events, too: they are in the call's span and say what no
/// attribute does, why there was another attempt or none. Of everybody else, what has the level
/// info and isn't the exporter's own doing, which would never end.
pub fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let wanted =
        Targets::new().with_default(Level::INFO).with_target("resilient_client", Level::DEBUG).with_targets(
            ["opentelemetry", "hyper", "h2", "reqwest", "sqlx"]
                .map(|it| (it, tracing::level_filters::LevelFilter::OFF)),
        );
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("resilient-client"))
        // Attributes that the conventions for HTTP don't have.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(wanted)
}
