//! What order-service answers, as `GET /openapi.json` has it. `tests/openapi.rs` compares it with
//! what is answered.

use serde_json::{Value, json};
use service_kit::openapi::{
    answer, document, key_in_flight, plain_problem, problem, reference, unavailable_or_full, with_usual,
};

/// The document.
pub(crate) fn openapi() -> Value {
    document(
        "order-service",
        "Takes orders, and keeps taking them while user-service is down.",
        json!({ "/orders": { "get": list(), "post": create() }, "/orders/{id}": { "get": show() } }),
        schemas(),
    )
}

fn list() -> Value {
    let status = json!({
        "name": "status", "in": "query", "description": "Only orders that stand so.",
        "schema": reference("schemas", "OrderStatus"),
    });
    json!({
        "summary": "Orders in the order of their commits, page by page",
        "parameters": [reference("parameters", "Limit"), reference("parameters", "After"), status],
        "responses": with_usual(json!({
            "200": answer("A page. Who follows `next`, or goes on after the last row seen, misses none.", "OrderPage", &[]),
            "400": plain_problem("A parameter isn't known or not within its bounds."),
        })),
    })
}

fn create() -> Value {
    json!({
        "summary": "Places an order",
        "parameters": [reference("parameters", "IdempotencyKey")],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": reference("schemas", "NewOrder") } },
        },
        "responses": with_usual(json!({
            "201": answer("The order, confirmed: the user exists.", "Order", &["Location", "Idempotent-Replayed"]),
            "202": answer(
                "The order, pending: user-service can't be asked at present. It is confirmed or rejected later.",
                "Order",
                &["Location", "Idempotent-Replayed"],
            ),
            "400": plain_problem("The body isn't JSON, or the key isn't one."),
            "409": key_in_flight(),
            "413": plain_problem("The body is too long."),
            "415": plain_problem("The body isn't said to be JSON."),
            "422": problem(
                "The order breaks a rule, there is no such user, or the key was used with another request.",
                &[
                    "urn:problem:invalid-request",
                    "urn:problem:unknown-user",
                    "urn:problem:idempotency-key-reused",
                ],
                &["Idempotent-Replayed"],
            ),
            "503": unavailable_or_full(),
        })),
    })
}

fn show() -> Value {
    json!({
        "summary": "One order",
        "parameters": [reference("parameters", "Id")],
        "responses": with_usual(json!({
            "200": answer("The order.", "Order", &[]),
            "400": plain_problem("The id isn't one."),
            "404": plain_problem("There is no such order."),
        })),
    })
}

fn schemas() -> Value {
    let items =
        json!({ "type": "array", "minItems": 1, "maxItems": 100, "items": reference("schemas", "Item") });
    json!({
        "Item": {
            "type": "object", "required": ["sku", "quantity"], "additionalProperties": false,
            "properties": {
                "sku": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
                "quantity": { "type": "integer", "minimum": 1, "maximum": 10000 },
            },
        },
        "NewOrder": {
            "type": "object", "required": ["user_id", "items"], "additionalProperties": false,
            "properties": { "user_id": reference("schemas", "Id"), "items": items },
        },
        "OrderStatus": { "enum": ["confirmed", "pending_verification", "rejected"] },
        "Order": {
            "type": "object",
            "required": ["id", "user_id", "items", "status", "created_at_ms", "resolved_at_ms", "resolutions"],
            "additionalProperties": false,
            "properties": {
                "id": reference("schemas", "Id"),
                "user_id": reference("schemas", "Id"),
                "items": items,
                "status": reference("schemas", "OrderStatus"),
                "created_at_ms": reference("schemas", "Timestamp"),
                "resolved_at_ms": {
                    "type": ["integer", "null"],
                    "description": "When it was settled later, in milliseconds since the Unix epoch.",
                },
                "resolutions": { "type": "integer", "description": "How often it was settled later: 0 or 1." },
            },
        },
        "OrderPage": {
            "type": "object", "required": ["orders", "next"], "additionalProperties": false,
            "properties": {
                "orders": { "type": "array", "items": reference("schemas", "Order") },
                "next": reference("schemas", "Cursor"),
            },
        },
    })
}
