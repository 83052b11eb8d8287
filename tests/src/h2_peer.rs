//! HTTP/2 as the `h2` crate serves it: what a server of hyper's kind does about limits and its own
//! leaving.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::Watched;

/// The request header that names a request.
pub const ID: &str = "x-id";

/// How the server treats its connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// After so many streams a connection says that it goes away, and serves those it has accepted.
    pub leaves_after: Option<usize>,
    /// After so long a connection is gone without a word.
    pub dies_after: Option<Duration>,
    /// How many streams a connection allows at once.
    pub streams: Option<u32>,
    /// How long an answer takes.
    pub takes: Duration,
    /// How late the server's first frames, its settings among them, reach the client.
    pub late: Duration,
    /// How long the server takes to accept a connection.
    pub accepts_after: Duration,
}

/// What has been seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Connections accepted.
    pub connections: usize,
    /// How often each request was taken, by its [`ID`], once it had been read whole.
    pub taken: HashMap<String, usize>,
}

/// A server on a loopback port of its own, gone with all its connections when dropped.
pub struct H2Peer {
    address: SocketAddr,
    seen: Watched<Seen>,
    accepting: JoinHandle<()>,
}

impl H2Peer {
    /// Starts answering 200 to everything.
    pub async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Watched::default();
        let accepting = tokio::spawn(accept(listener, manners, seen.clone()));
        Self { address, seen, accepting }
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What has been seen.
    pub fn seen(&self) -> &Watched<Seen> {
        &self.seen
    }

    /// The requests that were taken more than once.
    pub fn taken_twice(&self) -> Vec<(String, usize)> {
        let twice = |seen: &Seen| {
            let taken = seen.taken.iter().filter(|(_, times)| **times > 1);
            taken.map(|(id, times)| (id.clone(), *times)).collect()
        };
        self.seen.read(twice)
    }
}

impl Drop for H2Peer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, manners: Manners, seen: Watched<Seen>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        seen.change(|seen| seen.connections += 1);
        let _ = stream.set_nodelay(true);
        let seen = seen.clone();
        connections.spawn(async move {
            tokio::time::sleep(manners.accepts_after).await;
            let served = async {
                match manners.late {
                    Duration::ZERO => {
                        let mut stream = stream;
                        let served = serve(&mut stream, manners, seen).await;
                        linger(stream).await;
                        served
                    }
                    late => tokio::select! {
                        served = async {
                            let (inner, outer) = tokio::io::duplex(1 << 20);
                            tokio::join!(serve(inner, manners, seen), delayed(stream, outer, late)).0
                        } => served,
                    },
                }
            };
            match manners.dies_after {
                Some(after) => drop(tokio::time::timeout(after, served).await),
                // A client that hangs up is an error here, and no concern of ours.
                None => drop(served.await),
            }
        });
    }
}

/// Reads on until the client has closed, as servers do that end in good order: what is left unread
/// makes the kernel reset the connection, answers that are under way included.
async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 4096];
    let read = async { while let Ok(1..) = stream.read(&mut rest).await {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
}

/// Passes everything on, the server's side only from some time on.
async fn delayed(client: TcpStream, server: tokio::io::DuplexStream, late: Duration) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let there = async {
        let _ = copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    let back = async {
        tokio::time::sleep(late).await;
        let _ = copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(there, back);
}

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    manners: Manners,
    seen: Watched<Seen>,
) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    if let Some(streams) = manners.streams {
        builder.max_concurrent_streams(streams);
    }
    let mut connection = builder.handshake::<_, bytes::Bytes>(stream).await?;
    let (mut accepted, mut answers) = (0, JoinSet::new());
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        accepted += 1;
        if manners.leaves_after == Some(accepted) {
            connection.graceful_shutdown();
        }
        let seen = seen.clone();
        let answer = async move {
            let (head, mut body) = request.into_parts();
            while let Some(piece) = body.data().await {
                let Ok(piece) = piece else { return };
                let _ = body.flow_control().release_capacity(piece.len());
            }
            let id = head.headers.get(ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
            seen.change(|seen| *seen.taken.entry(id.unwrap_or_default()).or_default() += 1);
            if !manners.takes.is_zero() {
                tokio::time::sleep(manners.takes).await;
            }
            let _ = respond.send_response(http::Response::new(()), true);
        };
        answers.spawn(answer);
    }
    while answers.join_next().await.is_some() {}
    Ok(())
}
