//! From the command line to a service that is up: what both `main`s do, and how a process ends at
//! once when told.

use std::{io::Write as _, process::ExitCode};

use tokio::{net::TcpListener, runtime};

use crate::{
    error::{Error, causes},
    logs::{self, LogFormat},
    traces::TraceOptions,
};

/// How far the port for probes is from the service's own unless it is given.
const HEALTH_PORT_AFTER: u16 = 100;

/// [`run`] with a log, and with traces where they are asked for.
pub fn traced(
    name: &'static str,
    log: LogFormat,
    traces: &TraceOptions,
    service: impl Future<Output = Result<(), Error>>,
) -> ExitCode {
    let traces = match traces.open(name) {
        Ok(traces) => traces,
        Err(error) => {
            eprintln!("{name}: {}", causes(&error));
            return ExitCode::FAILURE;
        }
    };
    logs::init(log, &traces);
    let ended = run(name, service);
    traces.end();
    ended
}

/// Runs a service to its end; says on stderr what ended it, if not a request to stop.
pub fn run(name: &str, service: impl Future<Output = Result<(), Error>>) -> ExitCode {
    let ended =
        runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::from).and_then(|runtime| {
            let ended = runtime.block_on(service);
            // Dropping it would wait for what can't be stopped: a name that is being looked up,
            // say.
            runtime.shutdown_background();
            ended
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Listens on an address of this host.
pub async fn listen(host: &str, port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind((host, port)).await.map_err(|error| Error::listen(format!("{host}:{port}"), error))
}

/// Says on stdout where a listener listens, so that whoever asked for port 0 can read which port it
/// became.
pub fn announce(what: &str, listener: &TcpListener) -> Result<(), Error> {
    let address = listener.local_addr()?;
    let mut out = std::io::stdout().lock();
    // Whoever doesn't read it doesn't want to know.
    let _ = writeln!(out, "{what} http://{address}").and_then(|()| out.flush());
    Ok(())
}

/// The port for probes: the one given, or 100 after the service's own; any free one (0) if that is
/// any.
pub fn health_port(port: u16, given: Option<u16>) -> Result<u16, Error> {
    match (given, port) {
        (Some(given), port) if given == port && port != 0 => {
            Err(Error::config(format!("health-port and port are both {port}")))
        }
        (Some(given), _) => Ok(given),
        (None, 0) => Ok(0),
        (None, port) => port.checked_add(HEALTH_PORT_AFTER).ok_or_else(|| {
            Error::config(format!("health-port must be given: there is none 100 after {port}"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::health_port;

    #[test]
    fn probes_are_answered_100_ports_on_unless_told_otherwise() {
        for (port, given, expected) in [
            (3000, None, Some(3100)),
            (0, None, Some(0)),
            (3000, Some(9000), Some(9000)),
            (0, Some(0), Some(0)),
        ] {
            assert_eq!(health_port(port, given).ok(), expected, "{port} {given:?}");
        }
        for (port, given) in [(65_500, None), (3000, Some(3000))] {
            assert!(health_port(port, given).unwrap_err().is_config(), "{port} {given:?}");
        }
    }
}
