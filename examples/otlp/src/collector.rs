//! Spans to a collector: OTLP over HTTP, in Protobuf.
//!
//! What else there is to be said, OpenTelemetry's own variables say, such as
//! `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_EXPORTER_OTLP_TIMEOUT`.

use std::fmt;

use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};

/// Where a collector takes spans, under its base.
const TRACES: &str = "/v1/traces";

/// Gives spans to the collector at this base, such as `http://localhost:4318`.
///
/// # Errors
/// The base is no URL.
pub fn exporter(base: &str) -> Result<SpanExporter, NoCollector> {
    let traces = format!("{}{TRACES}", base.trim_end_matches('/'));
    SpanExporter::builder().with_http().with_endpoint(traces).build().map_err(|_| NoCollector)
}

/// The same where the process's environment says, or to `http://localhost:4318`.
///
/// # Errors
/// What the environment says makes no sense.
pub fn exporter_of_environment() -> Result<SpanExporter, NoCollector> {
    SpanExporter::builder().with_http().build().map_err(|_| NoCollector)
}

/// No exporter can be made of what is said of the collector. It isn't repeated, as
/// OpenTelemetry's own error does: a URL may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCollector;

impl fmt::Display for NoCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be at a URL such as http://localhost:4318, and OTEL_EXPORTER_OTLP_* make sense")
    }
}

impl std::error::Error for NoCollector {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_that_is_no_url_is_refused_without_being_repeated() {
        let error = exporter("http://u:secret@[bad").expect_err("it is no URL");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
}
