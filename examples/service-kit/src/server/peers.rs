//! Who is connected: how many connections there may be in all and from one peer, and which one
//! makes room.
//!
//! A newcomer is worth more than a connection that nobody uses. At either bound the connection that
//! has been without a request for longest is closed; where there is none, the oldest stream, which
//! might go on for ever and whose reader comes back for the rest. Only when each is answering a
//! request that has an end is the newcomer turned away (one peer's bound) or left in the listener's
//! backlog (the bound of all).

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::activity::{Activity, IdleOrder};

/// All connections of one server. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    most: usize,
    most_of_one: usize,
    pub(super) order: IdleOrder,
    /// A lock, because accepting and ending connections change it together; held for a look-up, at
    /// a bound for one look at each connection.
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    connections: HashMap<u64, Connection>,
    by_peer: HashMap<IpAddr, usize>,
    next: u64,
    /// Whose bound has been logged and still holds.
    told: HashSet<IpAddr>,
    told_of_all: bool,
}

#[derive(Debug)]
struct Connection {
    peer: IpAddr,
    activity: Arc<Activity>,
    evicted: CancellationToken,
}

/// Why a newcomer has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Its peer is answered on as many connections as one may have.
    OfOne,
    /// All connections are being answered on.
    OfAll,
}

/// A place among the connections, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    peers: Peers,
    number: u64,
    pub(super) activity: Arc<Activity>,
    /// Cancelled when another connection needs the place more.
    pub(super) evicted: CancellationToken,
}

impl Peers {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, order: IdleOrder::default(), open: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`, if need be that of one that nobody uses.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Place, Full> {
        let peer = host(address);
        let mut open = self.open();
        if open.by_peer.get(&peer).is_some_and(|count| *count >= self.most_of_one) {
            if open.told.insert(peer) {
                let (connections, of) = (self.most_of_one, "this peer");
                tracing::warn!(%peer, connections, of, "at the cap: unused connections make room for new ones, else new ones are turned away");
            }
            open.evict(|connection| connection.peer == peer).ok_or(Full::OfOne)?;
        }
        if open.connections.len() >= self.most {
            if !std::mem::replace(&mut open.told_of_all, true) {
                let (connections, of) = (self.most, "all peers");
                tracing::warn!(
                    connections,
                    of,
                    "at the cap: unused connections make room for new ones, else new ones wait"
                );
            }
            open.evict(|_| true).ok_or(Full::OfAll)?;
        }
        let (activity, evicted) = (Arc::new(self.order.new_connection()), CancellationToken::new());
        let number = open.next;
        open.next += 1;
        *open.by_peer.entry(peer).or_default() += 1;
        open.connections
            .insert(number, Connection { peer, activity: activity.clone(), evicted: evicted.clone() });
        Ok(Place { peers: self.clone(), number, activity, evicted })
    }
}

impl Open {
    /// Ends the connection of those whose turn it is to give way; `None` if none does.
    fn evict(&mut self, of: impl Fn(&Connection) -> bool) -> Option<()> {
        let those = self.connections.iter().filter(|(_, connection)| of(connection));
        let turns = those.filter_map(|(number, connection)| Some((connection.activity.turn()?, *number)));
        let (_, number) = turns.min()?;
        self.remove(number)?.evicted.cancel();
        Some(())
    }

    fn remove(&mut self, number: u64) -> Option<Connection> {
        let connection = self.connections.remove(&number)?;
        if let Some(count) = self.by_peer.get_mut(&connection.peer) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&connection.peer);
                self.told.remove(&connection.peer);
            }
        }
        Some(connection)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        if let Some(Connection { peer, .. }) = open.remove(self.number) {
            // Well below the bound again, reaching it anew is news.
            if open.by_peer.get(&peer).copied().unwrap_or_default() <= self.peers.most_of_one / 2 {
                open.told.remove(&peer);
            }
            if open.connections.len() <= self.peers.most / 2 {
                open.told_of_all = false;
            }
        }
        drop(open);
        self.peers.order.room.notify_one();
    }
}

/// What counts as one peer: an IPv4 address, or a network of 64 bits of IPv6, which is what one
/// host gets.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn admit(peers: &Peers, address: IpAddr, how_many: usize) -> Vec<Place> {
        (0..how_many).map(|_| peers.admit(address).unwrap()).collect()
    }

    #[test]
    fn at_its_bound_a_peers_longest_idle_connection_makes_room() {
        let peers = Peers::new(100, 3);
        let places = admit(&peers, ONE, 3);
        places[0].activity.request_read();
        places[0].activity.answered();
        let newcomer = peers.admit(ONE).unwrap();
        let evicted = [0, 1, 2].map(|index: usize| places[index].evicted.is_cancelled());
        assert_eq!((evicted, newcomer.evicted.is_cancelled()), ([false, true, false], false));
    }

    #[test]
    fn a_connection_that_is_being_answered_is_never_evicted() {
        let peers = Peers::new(100, 2);
        let places = admit(&peers, ONE, 2);
        for place in &places {
            place.activity.request_read();
        }
        assert_eq!(peers.admit(ONE).unwrap_err(), Full::OfOne);
        peers.admit(OTHER).unwrap();
        places[1].activity.answered();
        peers.admit(ONE).unwrap();
        assert!(places[1].evicted.is_cancelled() && !places[0].evicted.is_cancelled());
    }

    #[test]
    fn streams_make_room_when_no_connection_is_idle() {
        let peers = Peers::new(100, 3);
        let places = admit(&peers, ONE, 3);
        for place in &places {
            place.activity.request_read();
        }
        places[1].activity.streams();
        places[2].activity.streams();
        let idle = peers.admit(ONE).unwrap();
        let evicted =
            |places: &[Place]| places.iter().map(|place| place.evicted.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(evicted(&places), [false, true, false], "the oldest");
        peers.admit(ONE).unwrap();
        assert_eq!((evicted(&places), idle.evicted.is_cancelled()), (vec![false, true, false], true));
    }

    #[test]
    fn at_the_bound_of_all_whoever_is_idle_longest_makes_room() {
        let peers = Peers::new(2, 2);
        let (first, second) = (peers.admit(ONE).unwrap(), peers.admit(OTHER).unwrap());
        let third = peers.admit(OTHER).unwrap();
        assert!(first.evicted.is_cancelled() && !second.evicted.is_cancelled());
        second.activity.request_read();
        third.activity.request_read();
        assert_eq!(peers.admit(ONE).unwrap_err(), Full::OfAll);
    }

    #[test]
    fn a_cap_that_is_reached_is_one_line_in_the_log_however_many_come() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let peers = Peers::new(4, 2);
            let places: Vec<Place> = [ONE, OTHER].iter().flat_map(|peer| admit(&peers, *peer, 2)).collect();
            for place in &places {
                place.activity.request_read();
            }
            for _ in 0..10 {
                peers.admit(ONE).unwrap_err();
                peers.admit(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3))).unwrap_err();
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let count =
            |of: &str| text.lines().filter(|line| line.contains("at the cap") && line.contains(of)).count();
        assert_eq!((count("this peer"), count("all peers")), (1, 1), "{text}");
    }

    /// A log to be read.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_place_is_given_back_once() {
        let peers = Peers::new(100, 2);
        for _ in 0..10 {
            // Evicted ones have given theirs already.
            drop(admit(&peers, ONE, 5));
        }
        let open = peers.open();
        assert!(open.connections.is_empty() && open.by_peer.is_empty() && open.told.is_empty());
    }

    #[test]
    fn addresses_of_one_host_are_one_peer() {
        let parse = |text: &str| host(text.parse().unwrap());
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8:0:1::1"), parse("2001:db8::1"));
        assert_eq!(parse("::ffff:10.0.0.1"), ONE);
    }
}
