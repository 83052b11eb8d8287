//! Where everyone listens.

use std::io;

use tokio::net::TcpListener;

use crate::cli::Client;

/// The ports, all on loopback, fixed for the whole run so that user-service comes back where it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) user_control: u16,
    /// user-service as each order-service knows it.
    pub(crate) user_door: [u16; Client::TWINS.len()],
    /// By order-service.
    pub(crate) order: [u16; Client::ALL.len()],
}

impl Ports {
    pub(crate) async fn choose() -> io::Result<Self> {
        // All held until all are chosen, so that none is chosen twice.
        let mut held = Vec::new();
        let mut ports = [0; 6];
        for port in &mut ports {
            let listener = free_port().await?;
            *port = listener.local_addr()?.port();
            held.push(listener);
        }
        let [user_control, to_naive, to_resilient, order @ ..] = ports;
        Ok(Self { user_control, user_door: [to_naive, to_resilient], order })
    }
}

/// A free port below the range from which systems take ports for outgoing connections: while user-service is down, no
/// client must be given its port by chance.
async fn free_port() -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..200 {
        let port = fastrand::u16(20_000..30_000);
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}
