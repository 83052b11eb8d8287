//! A small HTTP/2 server on a bare TCP socket, frame by frame.
//!
//! Not built on the `h2` crate: that one counts what it accepts, and won't send a `GOAWAY` whose
//! last stream lies below one it has accepted. Here every `HEADERS` frame that reaches the wire is
//! counted, whatever becomes of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::Watched;

/// `NO_ERROR` (RFC 9113, section 7).
pub const NO_ERROR: u32 = 0;
/// `INTERNAL_ERROR`.
pub const INTERNAL_ERROR: u32 = 2;
/// `REFUSED_STREAM`.
pub const REFUSED_STREAM: u32 = 7;
/// `CANCEL`.
pub const CANCEL: u32 = 8;

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
/// `:status: 200` and `content-length: 10`: 8 and 28 in HPACK's static table, the second with a
/// value of its own.
const TEN_BYTES: &[u8] = &[0x88, 0x0f, 0x0d, 2, b'1', b'0'];
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A request whose last frame has come.
#[derive(Clone, Debug)]
pub struct Request {
    /// 1 for the server's first, over all connections.
    pub nth: usize,
    /// 1 for the server's first connection.
    pub connection: usize,
    /// 1, 3, 5, ...
    pub stream: u32,
    /// What came in its `DATA` frames.
    pub body: Bytes,
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// 200 with this body.
    Answer(&'static str),
    /// 200 with a length of 10, and no more than this of the body; then the end that is named.
    Short(&'static str, End),
    /// The same, said to be gzip: so many bytes of an empty file, and `RST_STREAM(NO_ERROR)`.
    ShortGzip(usize),
    /// 200 with a length of 10, and the end of the stream: an answer to `HEAD`.
    Head,
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// `GOAWAY` with this last stream and code; the connection stays until the client leaves.
    GoAway {
        /// The last stream that may have been processed.
        last: u32,
        /// Why.
        code: u32,
    },
    /// 200 with this body, then a graceful `GOAWAY` that admits this stream and none above: what
    /// comes on those isn't read.
    AnswerLast(&'static str),
    /// Nothing; the connection serves on.
    Nothing,
    /// The end of the connection, without a word.
    Close,
}

/// How a body ends that is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// A graceful `GOAWAY` that admits every stream, and then the end of the connection.
    GoAway,
    /// None: nothing more comes.
    Silence,
}

/// What a server has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Connections accepted.
    pub connections: usize,
    /// `HEADERS` frames: requests begun.
    pub begun: usize,
    /// Those of them above the last stream of a `GOAWAY` sent before.
    pub excluded: usize,
    /// Requests read whole, in order.
    pub requests: Vec<Request>,
}

type Script = Arc<dyn Fn(&Request) -> Act + Send + Sync>;

/// A server on a loopback port of its own, gone with all its connections when dropped.
pub struct H2Server {
    scheme: &'static str,
    address: SocketAddr,
    seen: Watched<Seen>,
    accepting: JoinHandle<()>,
}

impl H2Server {
    /// Starts serving by `script`, which is asked about each request once that has been read whole.
    pub async fn start(script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Self {
        Self::listen(script, None).await
    }

    /// The same behind TLS.
    pub async fn start_tls(
        script: impl Fn(&Request) -> Act + Send + Sync + 'static,
        tls: TlsAcceptor,
    ) -> Self {
        Self::listen(script, Some(tls)).await
    }

    async fn listen(
        script: impl Fn(&Request) -> Act + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (script, seen): (Script, _) = (Arc::new(script), Watched::default());
        let accepting = tokio::spawn(accept(listener, tls, script, seen.clone()));
        Self { scheme, address, seen, accepting }
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// What has been seen, to read or to wait on.
    pub fn seen(&self) -> &Watched<Seen> {
        &self.seen
    }

    /// How many requests were begun: every one that reached the wire.
    pub fn count(&self) -> usize {
        self.seen.read(|seen| seen.begun)
    }
}

impl Drop for H2Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, script: Script, seen: Watched<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let number = seen.change(|seen| {
            seen.connections += 1;
            seen.connections
        });
        let (tls, script, seen) = (tls.clone(), Arc::clone(&script), seen.clone());
        connections.spawn(async move {
            // A client that hangs up is an error here, and no concern of ours.
            let _ = stream.set_nodelay(true);
            let _ = match tls {
                None => serve(stream, number, &script, &seen).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, number, &script, &seen).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    script: &Script,
    seen: &Watched<Seen>,
) -> std::io::Result<()> {
    stream.read_exact(&mut [0; PREFACE]).await?;
    send(&mut stream, SETTINGS, 0, 0, &[]).await?;
    let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut last = u32::MAX;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => send(&mut stream, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => send(&mut stream, PING, ACK, 0, &payload).await?,
            HEADERS => {
                assert!(flags & END_HEADERS != 0, "requests here are small");
                seen.change(|seen| {
                    seen.begun += 1;
                    seen.excluded += usize::from(id > last);
                });
                bodies.insert(id, Vec::new());
            }
            DATA => bodies.entry(id).or_default().extend_from_slice(&payload),
            _ => continue,
        }
        if !matches!(kind, HEADERS | DATA) || flags & END_STREAM == 0 || id > last {
            continue;
        }
        let body = bodies.remove(&id).unwrap_or_default().into();
        let request = seen.change(|seen| {
            let request = Request { nth: seen.requests.len() + 1, connection, stream: id, body };
            seen.requests.push(request.clone());
            request
        });
        match script(&request) {
            Act::Answer(body) => answer(&mut stream, id, body).await?,
            Act::AnswerLast(body) => {
                answer(&mut stream, id, body).await?;
                last = id;
                let payload = [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
                send(&mut stream, GOAWAY, 0, 0, &payload).await?;
            }
            Act::Short(body, end) => {
                send(&mut stream, HEADERS, END_HEADERS, id, TEN_BYTES).await?;
                send(&mut stream, DATA, 0, id, body.as_bytes()).await?;
                match end {
                    End::Reset(code) => send(&mut stream, RST_STREAM, 0, id, &code.to_be_bytes()).await?,
                    End::GoAway => {
                        let payload = [id.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
                        send(&mut stream, GOAWAY, 0, 0, &payload).await?;
                        return Ok(());
                    }
                    End::Silence => {}
                }
            }
            Act::ShortGzip(bytes) => {
                // 26 is `content-encoding`.
                let head = [TEN_BYTES, &[0x0f, 0x0b, 4], b"gzip"].concat();
                send(&mut stream, HEADERS, END_HEADERS, id, &head).await?;
                let empty = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                if bytes > 0 {
                    send(&mut stream, DATA, 0, id, &empty[..bytes]).await?;
                }
                send(&mut stream, RST_STREAM, 0, id, &NO_ERROR.to_be_bytes()).await?;
            }
            Act::Head => send(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, TEN_BYTES).await?,
            Act::Reset(code) => send(&mut stream, RST_STREAM, 0, id, &code.to_be_bytes()).await?,
            Act::GoAway { last, code } => {
                let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
                send(&mut stream, GOAWAY, 0, 0, &payload).await?;
            }
            Act::Nothing => {}
            Act::Close => return Ok(()),
        }
    }
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), id: u32, body: &str) -> std::io::Result<()> {
    // In HPACK's static table, 8 is `:status: 200`.
    send(stream, HEADERS, END_HEADERS, id, &[0x88]).await?;
    send(stream, DATA, END_STREAM, id, body.as_bytes()).await
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    flags: u8,
    id: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}
