//! From the command line to a service that is up: what both `main`s do, and how a process ends at
//! once when told.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
};

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

/// Where a listener answers this host as this host, which is who may use what operators use; `what`
/// that is. An error where it doesn't listen on loopback: nobody could.
pub fn for_this_host(what: &str, listener: &TcpListener) -> Result<String, Error> {
    let address = listener.local_addr()?;
    on_loopback(address).ok_or_else(|| {
        let why = format!("{what} is for this host alone, and {} isn't loopback", address.ip());
        Error::config(format!("host: {why}: leave it out, or make host 127.0.0.1 or 0.0.0.0"))
    })
}

fn on_loopback(address: SocketAddr) -> Option<String> {
    const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let ip = address.ip();
    if ip.is_unspecified() || LOCALHOST.contains(&ip) {
        return Some(format!("localhost:{}", address.port()));
    }
    ip.is_loopback().then(|| address.to_string())
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
    use super::{health_port, on_loopback};

    /// What was shown for an address of the network was at localhost, where nobody listened.
    #[test]
    fn what_operators_use_is_shown_where_this_host_may_use_it() {
        for (address, shown) in [
            ("127.0.0.1:3100", Some("localhost:3100")),
            ("[::1]:3100", Some("localhost:3100")),
            ("0.0.0.0:3100", Some("localhost:3100")),
            ("[::]:3100", Some("localhost:3100")),
            ("127.0.0.2:3100", Some("127.0.0.2:3100")),
            ("10.0.0.5:3100", None),
            ("[2001:db8::1]:3100", None),
        ] {
            assert_eq!(on_loopback(address.parse().unwrap()).as_deref(), shown, "{address}");
        }
    }

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
