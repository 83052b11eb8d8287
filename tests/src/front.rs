//! What stands between two services in a network: a TCP proxy that can be told to break.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::{SOON, Watched, within};

/// What becomes of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They lead to the service behind.
    #[default]
    Forward,
    /// They stay open, the old ones too, and nothing comes.
    Hang,
    /// There is nobody: old ones end, new ones are refused.
    Refuse,
    /// Each is made to wait for this long before anything is passed on.
    Slow(Duration),
    /// Whatever is asked, the answer isn't HTTP.
    Garbage,
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    /// Whether the port is open: follows the mode.
    listening: bool,
}

/// A proxy on a loopback port of its own, gone with all its connections when dropped.
pub struct Front {
    address: SocketAddr,
    state: Watched<State>,
    running: JoinHandle<()>,
}

impl Front {
    /// Forwards to `backend`, until told otherwise.
    pub async fn of(backend: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Watched::default();
        let running = tokio::spawn(run(listener, backend, state.clone()));
        Self { address, state, running }
    }

    /// The URL of this side.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what becomes of the connections; back once it is so.
    pub async fn set(&self, mode: Mode) {
        self.state.change(|state| state.mode = mode);
        let listening = mode != Mode::Refuse;
        within(SOON, self.state.until(|state| state.listening == listening)).await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn run(mut listener: TcpListener, backend: SocketAddr, state: Watched<State>) {
    let address = listener.local_addr().expect("a bound socket has an address");
    // Dropping the set, as aborting this task does, ends every connection.
    let mut connections = JoinSet::new();
    loop {
        state.change(|state| state.listening = true);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    connections.spawn(serve(stream, backend, state.clone()));
                }
                () = state.until(|state| state.mode == Mode::Refuse) => break,
            }
        }
        drop(listener);
        // A socket that is bound and doesn't listen keeps the port ours and refuses connections.
        let shut = TcpSocket::new_v4().expect("a socket");
        shut.set_reuseaddr(true).expect("a socket option");
        shut.bind(address).expect("the port was ours a moment ago");
        connections.shutdown().await;
        state.change(|state| state.listening = false);
        state.until(|state| state.mode != Mode::Refuse).await;
        listener = shut.listen(1024).expect("a bound socket");
    }
}

/// One connection, for as long as the mode stays what it was, or hangs.
async fn serve(mut stream: TcpStream, backend: SocketAddr, state: Watched<State>) {
    let _ = stream.set_nodelay(true);
    let mode = state.read(|state| state.mode);
    let work = async {
        match mode {
            Mode::Forward => forward(&mut stream, backend).await,
            Mode::Slow(delay) => {
                tokio::time::sleep(delay).await;
                forward(&mut stream, backend).await;
            }
            Mode::Garbage => {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ =
                    stream.write_all(b"\x00\xff this is not the service you are looking for\r\n\r\n").await;
            }
            Mode::Hang | Mode::Refuse => std::future::pending().await,
        }
    };
    tokio::select! {
        () = work => return,
        () = state.until(|state| state.mode != mode) => {}
    }
    // A hang must catch the connections that are already in somebody's pool.
    state.until(|state| state.mode != Mode::Hang).await;
}

async fn forward(stream: &mut TcpStream, backend: SocketAddr) {
    let Ok(mut onward) = TcpStream::connect(backend).await else { return };
    let _ = onward.set_nodelay(true);
    let _ = copy_bidirectional(stream, &mut onward).await;
}
