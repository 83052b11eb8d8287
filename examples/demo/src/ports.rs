//! Where everyone listens.

use std::io;

use tokio::net::TcpListener;

use crate::cli::Client;

/// The ports, all on loopback, fixed for the whole run so that user-service comes back where it
/// was.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    /// By replica of user-service.
    pub(crate) users: Vec<UserPorts>,
    /// By order-service.
    pub(crate) order: [u16; Client::ALL.len()],
    /// In front of each order-service, where something is.
    pub(crate) gateway: [u16; Client::ALL.len()],
    /// Of the resilient one's admin page.
    pub(crate) admin: u16,
}

/// Where one replica of user-service listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserPorts {
    pub(crate) control: u16,
    /// It as each order-service knows it.
    pub(crate) door: [u16; Client::ALL.len()],
}

impl Ports {
    pub(crate) async fn choose(replicas: usize) -> io::Result<Self> {
        // All held until all are chosen, so that none is chosen twice.
        let mut held = Vec::new();
        let mut hold = async || {
            let listener = free_port().await?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            io::Result::Ok(port)
        };
        let mut users = Vec::new();
        for _ in 0..replicas {
            let (control, mut door) = (hold().await?, [0; Client::ALL.len()]);
            for port in &mut door {
                *port = hold().await?;
            }
            users.push(UserPorts { control, door });
        }
        let (mut order, mut gateway) = ([0; Client::ALL.len()], [0; Client::ALL.len()]);
        for port in order.iter_mut().chain(&mut gateway) {
            *port = hold().await?;
        }
        let admin = hold().await?;
        Ok(Self { users, order, gateway, admin })
    }
}

/// A free port below the range from which systems take ports for outgoing connections: while
/// user-service is down, no client must be given its port by chance.
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
