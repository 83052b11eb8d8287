//! One proxy: where it listens, what goes through it, and what happens to that.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::Error;
use crate::link::{self, Toxics};
use crate::toxic::Toxic;

/// More connections of one proxy than this wait to be accepted.
const MOST_CONNECTIONS: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens; once it has, with the port that it got.
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: String,
    /// While it is enabled.
    accepting: Option<Accepting>,
    pub(crate) toxics: watch::Sender<Arc<[Toxic]>>,
}

/// Ends with all its connections when it is dropped.
#[derive(Debug)]
struct Accepting {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Accepting {
    /// The same, and waits until it has.
    async fn end(self) {
        drop(self.stop);
        let _ = self.ended.await;
    }
}

impl Proxy {
    pub(crate) fn new(listen: SocketAddr, upstream: String) -> Self {
        Self { listen, upstream, accepting: None, toxics: watch::Sender::new(Arc::from([])) }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.accepting.is_some()
    }

    /// Listens, or does no more: then its port is free and all its connections are closed.
    pub(crate) async fn enable(&mut self, enabled: bool) -> Result<(), Error> {
        if !enabled {
            if let Some(accepting) = self.accepting.take() {
                accepting.end().await;
            }
        } else if self.accepting.is_none() {
            let listener = bind(self.listen).map_err(|error| Error::Listen(self.listen, error))?;
            self.listen = listener.local_addr().map_err(|error| Error::Listen(self.listen, error))?;
            let (stop, stopped) = oneshot::channel();
            let accepting = accept(listener, self.upstream.clone(), self.toxics.subscribe(), stopped);
            self.accepting = Some(Accepting { stop, ended: tokio::spawn(accepting) });
        }
        Ok(())
    }
}

/// Not tokio's, which may wait: nothing here does.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listener: TcpListener, upstream: String, toxics: Toxics, mut stopped: oneshot::Receiver<()>) {
    let (upstream, mut links) = (Arc::<str>::from(upstream), JoinSet::new());
    loop {
        tokio::select! {
            accepted = listener.accept(), if links.len() < MOST_CONNECTIONS => match accepted {
                Ok((client, _)) => {
                    let (upstream, toxics, lot) = (Arc::clone(&upstream), toxics.clone(), fastrand::u64(..));
                    links.spawn(async move { link::run(client, &upstream, toxics, lot).await });
                }
                // Out of descriptors, say: one connection that ends makes room.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Some(_) = links.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    links.shutdown().await;
}

/// Where a proxy may listen: on loopback. `localhost` and nothing before the colon mean 127.0.0.1.
pub(crate) fn loopback(listen: &str) -> Result<SocketAddr, Error> {
    let refused = || Error::NotLoopback(listen.to_owned());
    if listen.is_empty() {
        return Ok((Ipv4Addr::LOCALHOST, 0).into());
    }
    let (host, port) = listen.rsplit_once(':').ok_or_else(refused)?;
    let port: u16 = port.parse().map_err(|_| refused())?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = match host {
        "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().map_err(|_| refused())?,
    };
    if address.is_loopback() { Ok((address, port).into()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_on_loopback_or_not_at_all() {
        for (listen, at) in [
            ("", "127.0.0.1:0"),
            (":1234", "127.0.0.1:1234"),
            ("localhost:1234", "127.0.0.1:1234"),
            ("127.0.0.2:0", "127.0.0.2:0"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(loopback(listen).unwrap().to_string(), at, "{listen}");
        }
        for listen in
            ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "example.test:1", "127.0.0.1", "127.0.0.1:99999"]
        {
            let error = loopback(listen).unwrap_err();
            assert!(error.to_string().contains(listen) && error.status() == 400, "{listen}: {error}");
        }
    }
}
