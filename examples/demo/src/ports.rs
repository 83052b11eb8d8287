//! Where everyone listens.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

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
    _block: Arc<TcpListener>,
}

/// Where one replica of user-service listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserPorts {
    pub(crate) control: u16,
    /// It as each order-service knows it.
    pub(crate) door: [u16; Client::ALL.len()],
}

/// Below the range from which systems take ports for outgoing connections: while user-service is
/// down, no client must be given its port by chance.
const FIRST: u16 = 20_000;
const BLOCKS: u16 = 100;
/// Nine user-services and what is round them need 66.
const BLOCK: u16 = 100;

impl Ports {
    /// From a block of ports that is this demo's as long as it lasts: another one that starts
    /// meanwhile takes none of them, also none on which nobody listens yet, or any more.
    pub(crate) fn choose(replicas: usize) -> io::Result<Self> {
        let start = fastrand::u16(..BLOCKS);
        for number in (0..BLOCKS).map(|n| (start + n) % BLOCKS) {
            let first = FIRST + number * BLOCK;
            // Whoever listens on the first has the others, too.
            let Ok(block) = listen(first) else { continue };
            let free = (first + 1..first + BLOCK).filter(|port| listen(*port).is_ok());
            if let Some(ports) = Self::of(free, replicas, block) {
                return Ok(ports);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// `None` if they are too few.
    fn of(mut free: impl Iterator<Item = u16>, replicas: usize, block: TcpListener) -> Option<Self> {
        let mut users = Vec::new();
        for _ in 0..replicas {
            users.push(UserPorts { control: free.next()?, door: several(&mut free)? });
        }
        let (order, gateway) = (several(&mut free)?, several(&mut free)?);
        Some(Self { users, order, gateway, admin: free.next()?, _block: block.into() })
    }
}

fn several<const N: usize>(free: &mut impl Iterator<Item = u16>) -> Option<[u16; N]> {
    let mut ports = [0; N];
    for port in &mut ports {
        *port = free.next()?;
    }
    Some(ports)
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ports: &Ports) -> impl Iterator<Item = u16> {
        let users = ports.users.iter().flat_map(|user| user.door.into_iter().chain([user.control]));
        users.chain(ports.order).chain(ports.gateway).chain([ports.admin])
    }

    /// They were free ones, and another demo found them free, too, until somebody listened there.
    #[test]
    fn demos_at_one_time_share_no_port_though_nobody_listens_there() {
        let demos: Vec<_> = (0..20).map(|_| Ports::choose(9).unwrap()).collect();
        let mut ports: Vec<_> = demos.iter().flat_map(all).collect();
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((ports.len(), count), (20 * 65, 20 * 65));
        assert!(ports.iter().all(|port| (20_000..30_000).contains(port)), "{ports:?}");
    }

    #[test]
    fn a_block_in_which_too_few_are_free_is_none() {
        let block = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert!(Ports::of(1..=16, 1, block()).is_none());
        assert_eq!(Ports::of(1..=17, 1, block()).unwrap().admin, 17);
    }
}
