//! `GET /openapi.json`: what a service answers, in `OpenAPI` 3.1.
//!
//! The document is written by hand, in a file of each service's. utoipa, the best kept library for
//! it, makes one from attributes at the handlers; but it believes what they say of statuses and
//! problem types, which are most of such a document, and its macros are compiled before anything
//! else of the services. Here a test asks the service for every answer that the document has and
//! checks every answer against the document (`contract`), so neither can say what the other
//! doesn't.

use axum::{Json, Router, routing::get};
use serde_json::{Map, Value, json};

/// Where the document is.
pub const PATH: &str = "/openapi.json";

/// Serves a document.
pub fn route(document: Value) -> Router {
    Router::new().route("/openapi.json", get(async move || Json(document)))
}

/// A document: the service's own paths and schemas, and what all services have.
pub fn document(title: &str, description: &str, paths: Value, schemas: Value) -> Value {
    let mut paths = object(paths);
    paths.extend(object(common_paths()));
    let mut schemas = object(schemas);
    schemas.extend(object(common_schemas()));
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": title,
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "{description}\n\nEvery error is a problem (RFC 9457). What no operation has is a 404, or a 405 with `Allow`."
            ),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": common_parameters(),
            "headers": common_headers(),
        },
    })
}

/// An answer of JSON, and headers of [`document`]'s components by name.
pub fn answer(description: &str, schema: &str, headers: &[&str]) -> Value {
    let schema = reference("schemas", schema);
    json!({
        "description": description,
        "headers": header_references(headers),
        "content": { "application/json": { "schema": schema } },
    })
}

/// A problem, which is of one of these types.
pub fn problem(description: &str, kinds: &[&str], headers: &[&str]) -> Value {
    json!({
        "description": description,
        "headers": header_references(headers),
        "content": { "application/problem+json": { "schema": {
            "allOf": [reference("schemas", "Problem"), { "properties": { "type": { "enum": kinds } } }],
        } } },
    })
}

/// A problem that its status says all about.
pub fn plain_problem(description: &str) -> Value {
    problem(description, &["about:blank"], &[])
}

/// An operation's answers, with those that any operation may have, as it needs the database.
pub fn with_usual(responses: Value) -> Value {
    let mut responses = object(responses);
    responses.insert("500".into(), plain_problem("The service has a fault; its log says which."));
    responses.insert(
        "504".into(),
        plain_problem("The caller said how long it waits, and that was too short or is over."),
    );
    responses.entry("503").or_insert_with(|| {
        problem("The service is busy, or was too slow.", &["about:blank"], &["Retry-After"])
    });
    Value::Object(responses)
}

/// 503 of an operation that stores something.
pub fn unavailable_or_full() -> Value {
    problem(
        "The service is busy, was too slow, or can't store anything at present.",
        &["about:blank", "urn:problem:storage"],
        &["Retry-After"],
    )
}

/// 409 and its conditions: the key's request is being worked on.
pub fn key_in_flight() -> Value {
    problem(
        "A request with this `Idempotency-Key` is being worked on.",
        &["urn:problem:idempotency-key-in-flight"],
        &["Retry-After"],
    )
}

/// A component.
pub fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn header_references(names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), reference("headers", name))).collect::<Map<_, _>>().into()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn common_paths() -> Value {
    let alive = json!({ "200": answer("The process is alive.", "Health", &[]) });
    let ready = json!({
        "200": answer("The service serves, and its database answers.", "Health", &[]),
        "503": problem("The service starts, ends, or its database doesn't answer.", &["about:blank"], &["Retry-After"]),
    });
    let this = json!({ "200": {
        "description": "This document.",
        "content": { "application/json": { "schema": { "type": "object" } } },
    } });
    let get =
        |summary: &str, responses: Value| json!({ "get": { "summary": summary, "responses": responses } });
    json!({
        "/healthz": get("Whether the process is alive", alive),
        "/readyz": get("Whether the service can serve", ready),
        PATH: get("What the service answers", this),
    })
}

fn common_schemas() -> Value {
    json!({
        "Id": { "type": "string", "format": "uuid", "description": "A UUID; the service's own are version 7." },
        "Timestamp": { "type": "integer", "minimum": 0, "description": "Milliseconds since the Unix epoch." },
        "Cursor": {
            "type": ["string", "null"], "format": "uuid",
            "description": "What `after` asks for the next page with; null on the last.",
        },
        "Health": {
            "type": "object", "required": ["status"], "additionalProperties": false,
            "properties": { "status": { "enum": ["alive", "ready"] } },
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status"],
            "properties": {
                "type": { "type": "string", "format": "uri-reference" },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "instance": { "type": "string", "description": "The path that the problem is about." },
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object", "required": ["field", "detail"], "additionalProperties": false,
                        "properties": {
                            "field": { "type": "string", "description": "Its path in the request: `items[0].quantity`." },
                            "detail": { "type": "string" },
                        },
                    },
                },
            },
        },
    })
}

fn common_parameters() -> Value {
    json!({
        "Id": {
            "name": "id", "in": "path", "required": true,
            "schema": reference("schemas", "Id"),
        },
        "Limit": {
            "name": "limit", "in": "query", "description": "The most rows of a page.",
            "schema": { "type": "integer", "minimum": 1, "maximum": 100, "default": 50 },
        },
        "After": {
            "name": "after", "in": "query", "description": "The id of the row that the page begins after.",
            "schema": reference("schemas", "Id"),
        },
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header",
            "description": "Who sends a request again with the same key gets the first answer again, and nothing is done twice.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$" },
        },
    })
}

fn common_headers() -> Value {
    json!({
        "Location": { "description": "The path of what was made.", "schema": { "type": "string" } },
        "Retry-After": { "description": "Seconds.", "schema": { "type": "integer", "minimum": 1 } },
        "Idempotent-Replayed": {
            "description": "Present where the answer is an earlier one's, for the same `Idempotency-Key`.",
            "schema": { "const": "true" },
        },
    })
}
