//! Spans to a collector: OTLP over HTTP, in Protobuf.
//!
//! What else there is to be said, OpenTelemetry's own variables say, such as
//! `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_EXPORTER_OTLP_TIMEOUT`.

use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};

/// Where a collector takes spans, under its base.
const TRACES: &str = "/v1/traces";

/// Gives spans to the collector at this base, such as `http://localhost:4318`.
///
/// # Errors
/// The base is no URL.
pub fn exporter(base: &str) -> Result<SpanExporter, ExporterBuildError> {
    let traces = format!("{}{TRACES}", base.trim_end_matches('/'));
    SpanExporter::builder().with_http().with_endpoint(traces).build()
}

/// The same where the process's environment says, or to `http://localhost:4318`.
///
/// # Errors
/// What the environment says makes no sense.
pub fn exporter_of_environment() -> Result<SpanExporter, ExporterBuildError> {
    SpanExporter::builder().with_http().build()
}
