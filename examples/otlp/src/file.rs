//! Spans in a file, one batch a line, as OpenTelemetry's file exporter has them: OTLP's JSON.
//!
//! Messages and their JSON are opentelemetry-proto's; a collector's `otlpjsonfile` receiver reads
//! them. The file only grows: it is for a look, not for a year.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
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
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        if is_cut_off(&mut file)? {
            // The first line must not be the end of that one.
            file.write_all(b"\n")?;
        }
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

/// Whether whoever wrote to it was killed at a line.
fn is_cut_off(file: &mut File) -> io::Result<bool> {
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != *b"\n")
}

/// What a file says, or every file of a folder whose name ends in `.jsonl`. See [`read`].
pub fn read_from(path: &Path) -> io::Result<Vec<Named>> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let named = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        files = named.collect::<io::Result<Vec<PathBuf>>>()?;
        files.retain(|file| file.extension().is_some_and(|kind| kind == "jsonl"));
        files.sort();
    }
    let mut spans = Vec::new();
    for file in files {
        // A line that was cut off may have been cut off in a character.
        spans.extend(read(&String::from_utf8_lossy(&std::fs::read(file)?)));
    }
    Ok(spans)
}

/// A span and the name of its service.
pub type Named = (String, opentelemetry_proto::tonic::trace::v1::Span);

/// The spans of a file's lines, each with the name of its service. A line that was cut off (a
/// process was killed at it) is passed over.
pub fn read(text: &str) -> Vec<Named> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        let line =
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00","spanId":"01","name":"GET"}]}]}]}"#;
        std::fs::write(&file, format!("{line}\n{}", &line[..20])).unwrap();
        let exporter = FileExporter::open(&file).unwrap();
        exporter.file.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
        std::fs::write(folder.path().join("notes.txt"), line).unwrap();
        for path in [folder.path(), &file] {
            let names: Vec<_> = read_from(path).unwrap().into_iter().map(|(_, span)| span.name).collect();
            assert_eq!(names, ["GET"; 2]);
        }
        drop(FileExporter::open(&file).unwrap());
        assert!(std::fs::read_to_string(&file).unwrap().ends_with("}\n"), "it is whole");
    }
}
