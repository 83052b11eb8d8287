//! What any small HTTP service needs and what it is not about: errors, ids, idempotency, a
//! database, a drain.
//!
//! What a well-kept library does is the library's. Each module says at its top why there is
//! something left to do:
//!
//! | | the library's | here |
//! |---|---|---|
//! | routes, extractors, body limit | axum | [`extract`]: its rejections as problems; ids in one spelling |
//! | timeout, panics, tracing | tower-http | [`http`]: their order |
//! | request ids | tower-http | [`request_id`]: which ids of callers are taken |
//! | HTTP/1 | hyper | [`server`]: how many connections, how slow, how they end |
//! | problem details | none | [`problem`]: the rules outweigh the struct |
//! | idempotency keys | none | [`idempotency`]: the key is part of the work's own transaction |
//! | paging | none | [`page`] and [`commit_order`]: a cursor that misses no row |
//! | messages | lapin | `amqp` (a feature): a session that begins again, with resilient-client's waits |
//! | database | sqlx | [`database`]: two databases with one SQL, migrations by several processes |
//! | faults on purpose | resilient-client | [`faults`]: round what they go, and who changes them |
//! | traces | resilient-client, OpenTelemetry | [`http`]: a request's span; [`traces`]: who has it |
//! | settings | clap | [`limits`]: bounds and their names |
//! | logs | tracing-subscriber | [`logs`]: where colours go |
//! | metrics | metrics-exporter-prometheus | [`meters`]: the service's own requests |
//! | `OpenAPI` | none | [`openapi`]: a document by hand, and a test that compares it with the answers |

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod clock;
pub mod commit_order;
#[cfg(feature = "testing")]
pub mod contract;
pub mod database;
pub mod error;
pub mod extract;
pub mod faults;
pub mod health;
pub mod http;
pub mod idempotency;
pub mod limits;
pub mod logs;
pub mod meters;
pub mod openapi;
pub mod page;
#[cfg(feature = "ports")]
pub mod ports;
pub mod problem;
pub mod request_id;
pub mod server;
pub mod start;
#[cfg(feature = "testing")]
pub mod testing;
pub mod traces;
