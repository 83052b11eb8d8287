//! What user-service answers, as `GET /openapi.json` has it. `tests/openapi.rs` compares it with
//! what is answered.

use serde_json::{Value, json};
use service_kit::openapi::{
    answer, document, key_in_flight, plain_problem, problem, reference, unavailable_or_full, with_usual,
};

/// The document.
pub(crate) fn openapi() -> Value {
    document(
        "user-service",
        "Keeps users.",
        json!({
            "/users": { "get": list(), "post": create() },
            "/users/events": { "get": follow() },
            "/users/{id}": { "get": show(), "put": change() },
        }),
        schemas(),
    )
}

fn list() -> Value {
    json!({
        "summary": "Users in the order of their commits, page by page",
        "parameters": [reference("parameters", "Limit"), reference("parameters", "After")],
        "responses": with_usual(json!({
            "200": answer("A page. Who follows `next`, or goes on after the last row seen, misses none.", "UserPage", &[]),
            "400": plain_problem("A parameter isn't known or not within its bounds."),
        })),
    })
}

fn follow() -> Value {
    json!({
        "summary": "New and changed users as they are committed; without an end",
        "parameters": [{
            "name": "Last-Event-ID", "in": "header",
            "description": "The number of the last change that was seen; by default the next change is the first.",
            "schema": { "type": "integer", "minimum": 0 },
        }],
        "responses": with_usual(json!({
            "200": {
                "description": "Server-sent events of the type `user`: the data is a `ListedUser`, the id the database's and the change's number, with a colon between them.",
                "content": { "text/event-stream": { "schema": { "type": "string" } } },
            },
            "400": plain_problem("`Last-Event-ID` isn't one."),
        })),
    })
}

fn create() -> Value {
    json!({
        "summary": "Makes a user",
        "parameters": [reference("parameters", "IdempotencyKey")],
        "requestBody": new_user(),
        "responses": with_usual(json!({
            "201": answer("The user.", "User", &["Location", "Idempotent-Replayed"]),
            "400": plain_problem("The body isn't JSON, or the key isn't one."),
            "409": key_in_flight(),
            "413": plain_problem("The body is too long."),
            "415": plain_problem("The body isn't said to be JSON."),
            "422": problem(
                "The user breaks a rule, or the key was used with another request.",
                &["urn:problem:invalid-request", "urn:problem:idempotency-key-reused"],
                &[],
            ),
            "503": unavailable_or_full(),
        })),
    })
}

fn show() -> Value {
    json!({
        "summary": "One user",
        "parameters": [reference("parameters", "Id")],
        "responses": with_usual(json!({
            "200": answer("The user.", "User", &[]),
            "400": plain_problem("The id isn't one."),
            "404": not_found(),
        })),
    })
}

fn change() -> Value {
    json!({
        "summary": "Changes a user; doing it twice changes nothing more",
        "parameters": [reference("parameters", "Id")],
        "requestBody": new_user(),
        "responses": with_usual(json!({
            "200": answer("The user as it is now.", "User", &[]),
            "400": plain_problem("The id isn't one, or the body isn't JSON."),
            "404": not_found(),
            "413": plain_problem("The body is too long."),
            "415": plain_problem("The body isn't said to be JSON."),
            "422": problem("The user breaks a rule.", &["urn:problem:invalid-request"], &[]),
            "503": unavailable_or_full(),
        })),
    })
}

fn not_found() -> Value {
    problem("There is no such user: `instance` is the path asked for.", &["urn:problem:user-not-found"], &[])
}

fn new_user() -> Value {
    json!({ "required": true, "content": { "application/json": { "schema": reference("schemas", "NewUser") } } })
}

fn schemas() -> Value {
    let user = json!({
        "id": reference("schemas", "Id"),
        "name": { "type": "string", "minLength": 1, "maxLength": 200 },
        "email": { "type": "string", "minLength": 3, "maxLength": 254 },
        "created_at_ms": reference("schemas", "Timestamp"),
    });
    let mut listed = user.clone();
    listed["version"] = json!({ "type": "integer", "description": "The number of the user's last change." });
    json!({
        "NewUser": {
            "type": "object", "required": ["name", "email"], "additionalProperties": false,
            "properties": {
                "name": {
                    "type": "string", "minLength": 1, "maxLength": 200,
                    "description": "Spaces at its ends are cut off; no control characters.",
                },
                "email": { "type": "string", "minLength": 3, "maxLength": 254, "examples": ["ada@example.com"] },
            },
        },
        "User": {
            "type": "object", "required": ["id", "name", "email", "created_at_ms"], "additionalProperties": false,
            "properties": user,
        },
        "ListedUser": {
            "type": "object", "required": ["id", "name", "email", "created_at_ms", "version"],
            "additionalProperties": false,
            "properties": listed,
        },
        "UserPage": {
            "type": "object", "required": ["users", "next", "last_change", "database", "mark"],
            "additionalProperties": false,
            "properties": {
                "users": { "type": "array", "items": reference("schemas", "ListedUser") },
                "next": reference("schemas", "Cursor"),
                "last_change": {
                    "type": "integer",
                    "description": "The number of the last change of any user when the page was read.",
                },
                "database": { "type": "string", "description": "Which database these numbers are of." },
                "mark": {
                    "type": "string",
                    "description": "The mark of the last change that was published; empty before the first.",
                },
            },
        },
    })
}
