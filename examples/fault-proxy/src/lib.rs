//! A TCP proxy that breaks what goes through it, and speaks
//! [Toxiproxy](https://github.com/Shopify/toxiproxy)'s API, so that clients written for that drive
//! it unmodified.
//!
//! A *proxy* listens on a port and passes each connection on to an upstream. A *toxic* is what it
//! does to the bytes of one direction: [`Kind`] lists them. Toxics come and go at run time, and
//! connections that are open feel it at once.
//!
//! It listens on loopback alone, and its API takes nothing from browsers.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8474").await?;
//! fault_proxy::serve(listener, fault_proxy::Proxies::new()).await
//! # }
//! ```

mod api;
mod clock;
mod error;
mod link;
mod proxies;
mod proxy;
mod shape;
mod toxic;

pub use api::serve;
pub use error::Error;
pub use proxies::{Proxies, ProxySpec, ProxyView};
pub use toxic::{Direction, Kind, Toxic, ToxicSpec};
