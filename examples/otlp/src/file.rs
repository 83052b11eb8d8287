//! Spans in a file, one batch a line, as OpenTelemetry's file exporter has them: OTLP's JSON.
//!
//! Messages and their JSON are opentelemetry-proto's; a collector's `otlpjsonfile` receiver reads
//! them. The file only grows: it is for a look, not for a year.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use opentelemetry_proto::{
    tonic::trace::v1::TracesData,
    transform::{
        common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};

/// Adds spans to the end of a file.
#[derive(Debug)]
pub struct FileExporter {
    /// Two threads' lines don't mix; the provider calls from one.
    file: Mutex<File>,
    resource: ResourceAttributesWithSchema,
}

impl FileExporter {
    /// Makes the file unless it is there. Several processes may share one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file), resource: ResourceAttributesWithSchema::default() })
    }

    fn write(&self, batch: Vec<SpanData>) -> io::Result<()> {
        let spans = TracesData { resource_spans: group_spans_by_resource_and_scope(batch, &self.resource) };
        let mut line = serde_json::to_vec(&spans)?;
        line.push(b'\n');
        // In one write, at the end: another process's lines stay whole, too.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }
}

impl SpanExporter for FileExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.write(batch)
            .map_err(|error| OTelSdkError::InternalFailure(format!("the file of traces: {error}")))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

/// The spans of a file's lines, each with the name of its service. A line that was cut off (a
/// process was killed at it) is passed over.
pub fn read(text: &str) -> Vec<(String, opentelemetry_proto::tonic::trace::v1::Span)> {
    let batches = text.lines().filter_map(|line| serde_json::from_str::<TracesData>(line).ok());
    let resources = batches.flat_map(|batch| batch.resource_spans);
    resources
        .flat_map(|resource| {
            let attributes = resource.resource.map(|it| it.attributes).unwrap_or_default();
            let service = crate::story::attribute(&attributes, "service.name").unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.map(move |span| (service.clone(), span))
        })
        .collect()
}
