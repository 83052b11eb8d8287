//! The adaptive limit beside a server whose capacity changes.

mod scenarios;
mod server;
