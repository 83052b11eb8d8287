//! `--faults`: faults on purpose, changed at run time.
//!
//! The faults are resilient-client's (its feature `fault`); here is where they go. They are round
//! the service whole, so that what a proxy would do is done where a proxy would be; health isn't
//! behind them. The admin route is at the listener for probes: it answers when the service hangs or
//! is full, and whoever reaches the service doesn't reach it.
//!
//! Without the cargo feature `faults` there is no flag, no route and no layer.

#[cfg(not(feature = "faults"))]
pub use off::{FaultOptions, Faulty};
#[cfg(feature = "faults")]
pub use on::{FaultOptions, Faulty};

#[cfg(feature = "faults")]
mod on {
    use std::{fmt, io::Write as _};

    use axum::Router;
    use clap::{Args, builder::FalseyValueParser};
    use resilient_client::access::Access;
    use resilient_client::fault::{Faults, ServerLayer, admin::Admin};
    use tokio::net::TcpListener;
    use tower_layer::Layer as _;
    use uuid::Uuid;

    use crate::{error::Error, health::Health, http, limits::Limits, start};

    /// Where the admin route is, at the listener for probes.
    const PATH: &str = "/faults";

    /// Whether faults may be injected.
    #[derive(Args, Clone, Default)]
    pub struct FaultOptions {
        /// Let faults be injected: the admin route is `/faults` at the port for probes, for this
        /// host and by the token; those of `RESILIENT_CLIENT_FAULTS` (JSON, or `@` and a file's
        /// path) are in force from the start
        #[arg(long, env = "FAULTS", value_parser = FalseyValueParser::new())]
        pub faults: bool,
        /// What the admin route asks for as a bearer token; made up and printed by default
        #[arg(long, env = "FAULTS_TOKEN", hide_env_values = true)]
        pub faults_token: Option<String>,
    }

    impl fmt::Debug for FaultOptions {
        /// Without the token.
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("FaultOptions").field("faults", &self.faults).finish_non_exhaustive()
        }
    }

    impl FaultOptions {
        /// What is put round the service.
        pub fn open(&self) -> Result<Faulty, Error> {
            if !self.faults {
                return Ok(Faulty(None));
            }
            let config = |error: &dyn fmt::Display| Error::config(error.to_string());
            let faults = Faults::from_env().map_err(|error| config(&crate::error::causes(&error)))?;
            let made_up = self.faults_token.is_none().then(|| Uuid::new_v4().simple().to_string());
            let token = self.faults_token.as_ref().or(made_up.as_ref()).map_or("", String::as_str);
            let admin = Admin::new(faults.clone(), Access::token(token))
                .map_err(|error| config(&format_args!("faults-token: {error}")))?;
            Ok(Faulty(Some(Kit { faults, admin, made_up })))
        }
    }

    /// The faults of one service, if there may be any.
    #[derive(Clone)]
    pub struct Faulty(Option<Kit>);

    #[derive(Clone)]
    struct Kit {
        faults: Faults,
        admin: Admin,
        /// The one that was made up; one that was given stays a secret.
        made_up: Option<String>,
    }

    impl Faulty {
        /// `app` behind the faults; health isn't.
        pub fn around(&self, app: Router, health: &Health, limits: &Limits) -> Router {
            let Some(kit) = &self.0 else { return app };
            let faulty = ServerLayer::new(kit.faults.clone()).layer(app);
            http::wrap(health.routes(), limits).fallback_service(faulty)
        }

        /// The admin route.
        pub fn admin(&self) -> Router {
            match &self.0 {
                Some(kit) => Router::new().route_service(PATH, kit.admin.clone()),
                None => Router::new(),
            }
        }

        /// Says on stdout how to inject the first one.
        pub fn announce(&self, probes: &TcpListener) -> Result<(), Error> {
            let Some(kit) = &self.0 else { return Ok(()) };
            let address = start::for_this_host("--faults", probes)?;
            let token = kit.made_up.as_deref().unwrap_or("<the token>");
            let mut out = std::io::stdout().lock();
            // Whoever doesn't read it doesn't want to know.
            let _ = writeln!(
                out,
                "faults can be injected; the first one, for example:\n\
                 curl -X PUT {address}{PATH} -H 'authorization: Bearer {token}' \
                 --json '{{\"kind\": \"delay\", \"delay\": \"2s\"}}'"
            )
            .and_then(|()| out.flush());
            Ok(())
        }
    }
}

#[cfg(not(feature = "faults"))]
mod off {
    use axum::Router;
    use clap::Args;
    use tokio::net::TcpListener;

    use crate::{error::Error, health::Health, limits::Limits};

    /// Nothing to be told.
    #[derive(Args, Clone, Debug, Default)]
    pub struct FaultOptions {}

    impl FaultOptions {
        /// As with the feature.
        #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
        pub fn open(&self) -> Result<Faulty, Error> {
            Ok(Faulty)
        }
    }

    /// Nothing.
    #[derive(Clone)]
    pub struct Faulty;

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
    impl Faulty {
        /// `app` as it is.
        pub fn around(&self, app: Router, _health: &Health, _limits: &Limits) -> Router {
            app
        }

        /// No routes.
        pub fn admin(&self) -> Router {
            Router::new()
        }

        /// Says nothing.
        pub fn announce(&self, _probes: &TcpListener) -> Result<(), Error> {
            Ok(())
        }
    }
}
