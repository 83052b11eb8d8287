//! Ports for servers that are killed and come back where they were.

use std::{io, net::TcpListener, sync::Arc};

/// Below the range from which systems take ports for outgoing connections: while a server is down,
/// no client must be given its port by chance.
const FIRST: u16 = 20_000;
const BLOCKS: u16 = 100;
/// A demo of nine user-services and what is round them needs 66.
const BLOCK: u16 = 100;

/// Free ports of loopback, in order, that are their holder's as long as this or a copy lives:
/// others that reserve some meanwhile get none of them, also none on which nobody listens yet, or
/// any more.
#[derive(Clone, Debug)]
pub struct Reserved {
    free: Vec<u16>,
    /// On its block's first: whoever listens there has the others, too.
    _block: Arc<TcpListener>,
}

/// Reserves so many, at most 99.
///
/// # Errors
/// Where no block has enough of them.
pub fn reserve(count: usize) -> io::Result<Reserved> {
    let start = fastrand::u16(..BLOCKS);
    let mut blocks = (0..BLOCKS).map(|number| FIRST + (start + number) % BLOCKS * BLOCK);
    blocks.find_map(|first| block(first, count)).ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

/// Of the block that begins there; `None` if somebody has it, or too few are free.
fn block(first: u16, count: usize) -> Option<Reserved> {
    let block = listen(first).ok()?.into();
    let free = (first + 1..first + BLOCK).filter(|port| listen(*port).is_ok());
    let free: Vec<_> = free.take(count).collect();
    (free.len() == count).then_some(Reserved { free, _block: block })
}

impl std::ops::Deref for Reserved {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        &self.free
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were free ones, and others found them free, too, until somebody listened there.
    #[test]
    fn nobody_else_is_given_a_port_on_which_nobody_listens() {
        let all: Vec<_> = (0..20).map(|_| reserve(65).unwrap()).collect();
        let mut ports: Vec<u16> = all.iter().flat_map(|ports| ports.iter().copied()).collect();
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((ports.len(), count), (20 * 65, 20 * 65));
        assert!(ports.iter().all(|port| (FIRST..FIRST + BLOCKS * BLOCK).contains(port)), "{ports:?}");
    }

    #[test]
    fn more_than_a_block_has_are_none() {
        assert_eq!(reserve(100).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
