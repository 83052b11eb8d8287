//! What a reqwest client underneath is made from, as often as one is.

use std::time::Duration;

use crate::client::redirect;
use crate::error::BoxError;
use crate::pool_defaults::POOL_IDLE;
#[cfg(feature = "http2")]
use crate::pool_defaults::{PING_EVERY, PING_TIMEOUT};
use crate::sync::OneOwner;

type Configure = Box<dyn Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send>;

#[derive(Default)]
pub(super) struct Recipe {
    pub(super) configure: OneOwner<Vec<Configure>>,
    pub(super) connect: Option<Duration>,
    pub(super) no_redirects: bool,
}

impl Recipe {
    /// A client, and whether each redirect that it follows is seen. One without a pool gives each
    /// request a connection of its own.
    pub(super) fn make(&mut self, pool: bool) -> Result<(reqwest::Client, bool), BoxError> {
        // Without TLS there may be no HTTP/2 either; with it, a dead connection must show before
        // the calls on it do.
        let (same_origin, witness) = redirect::same_origin();
        let mut transport = reqwest::Client::builder().pool_idle_timeout(POOL_IDLE).redirect(same_origin);
        #[cfg(feature = "http2")]
        {
            transport = transport
                .http2_keep_alive_interval(PING_EVERY)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .http2_keep_alive_while_idle(true);
        }
        for configure in self.configure.get_mut() {
            transport = configure(transport);
        }
        if let Some(connect) = self.connect {
            transport = transport.connect_timeout(connect);
        }
        if self.no_redirects {
            transport = transport.redirect(reqwest::redirect::Policy::none());
        }
        if !pool {
            transport = transport.pool_max_idle_per_host(0);
        }
        // Hidden retries would break every count; zero per request also keeps reqwest from cloning
        // each request.
        let client = build(transport.retry(reqwest::retry::never().max_retries_per_request(0)))?;
        Ok((client, self.no_redirects || witness.is_in_force()))
    }
}

#[cfg(not(feature = "rustls-no-provider"))]
fn build(transport: reqwest::ClientBuilder) -> Result<reqwest::Client, BoxError> {
    Ok(transport.build()?)
}

/// Without a crypto provider reqwest panics, which nobody who asks for a client expects.
#[cfg(feature = "rustls-no-provider")]
fn build(transport: reqwest::ClientBuilder) -> Result<reqwest::Client, BoxError> {
    let build = std::panic::AssertUnwindSafe(|| transport.build());
    let built = std::panic::catch_unwind(build);
    Ok(built.map_err(
        |_| "reqwest panicked; has a crypto provider been installed, as `rustls-no-provider` needs?",
    )??)
}
