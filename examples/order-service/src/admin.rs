//! What the operator sees of the client for user-service: resilient-client's own admin router, at
//! the port for probes.

use std::{fmt, io::Write as _};

use axum::Router;
use clap::{Args, builder::FalseyValueParser};
use resilient_client::{access::Access, admin::Admin};
use service_kit::start;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::{Error, ResilientUsers};

/// Where it is.
const PATH: &str = "/admin";

/// Whether there is an admin router.
#[derive(Args, Clone, Default)]
pub struct AdminOptions {
    /// Show what the client for user-service does, live, and let its circuit breakers be forced:
    /// `/admin` at the port for probes, for this host and by the token
    #[arg(long, env = "ADMIN", value_parser = FalseyValueParser::new())]
    pub admin: bool,
    /// What the admin router asks for as a bearer token; made up and printed by default
    #[arg(long, env = "ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
}

impl fmt::Debug for AdminOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminOptions").field("admin", &self.admin).finish_non_exhaustive()
    }
}

impl AdminOptions {
    /// The router, which is empty unless there is to be one; and where it is, in words for whoever
    /// starts the service.
    pub fn router(&self, users: &ResilientUsers, probes: &TcpListener) -> Result<Router, Error> {
        if !self.admin {
            return Ok(Router::new());
        }
        let made_up = self.admin_token.is_none().then(|| Uuid::new_v4().simple().to_string());
        let token = self.admin_token.as_ref().or(made_up.as_ref()).map_or("", String::as_str);
        let admin = Admin::new(Access::token(token)).client("user-service", users.client());
        let router: Router =
            admin.router().map_err(|error| Error::config(format!("admin-token: {error}")))?;
        let address = start::for_this_host("--admin", probes)?;
        let shown = made_up.as_deref().unwrap_or("the one given");
        let mut out = std::io::stdout().lock();
        // Whoever doesn't read it doesn't want to know.
        let _ = writeln!(out, "order-service's admin page is http://{address}{PATH}; its token: {shown}")
            .and_then(|()| out.flush());
        // And not `nest`, which leaves `/admin/` out.
        Ok(Router::new().nest_service(PATH, router))
    }
}
