//! A hostile HTTP/1.1 server on a bare TCP socket: it does what its script says, however wrong, and
//! counts.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::{Gate, Watched, clock};

/// A request, read to its last byte.
#[derive(Clone, Debug)]
pub struct Request {
    /// 1 for the server's first.
    pub nth: usize,
    /// 1 for the server's first connection.
    pub connection: usize,
    /// 1 for the first on its connection.
    pub nth_on_connection: usize,
    /// `GET`.
    pub method: String,
    /// The target as it stood in the request line.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Bytes,
    /// When its last byte had been read.
    pub at: Instant,
}

impl Request {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a server has seen and done.
#[derive(Debug, Default)]
pub struct Seen {
    /// Connections accepted.
    pub connections: usize,
    /// Requests read whole, in order.
    pub requests: Vec<Request>,
    /// Well-formed answers written whole.
    pub answered: usize,
    /// Connections over, whoever ended them.
    pub closed: usize,
    /// Requests being made to wait by a [delay](Reply::delayed) now.
    pub delayed: usize,
    /// Requests whose client hung up while a [delay](Reply::delayed) kept it waiting.
    pub hung_up: usize,
}

/// What to do with a connection as it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Read requests and follow the script.
    Serve,
    /// Close it at once.
    Close,
    /// Reset it at once.
    Reset,
}

/// One thing to do about a request.
#[derive(Clone, Debug)]
enum Act {
    Send(Bytes),
    /// Sends the same again and again, until the client has had enough.
    Repeat(Bytes),
    Wait(Gate),
    /// Works for so long, and notices if the client hangs up meanwhile.
    Delay(Duration),
    /// Reads and does nothing until the client hangs up.
    Hang,
    Close,
    Reset,
}

/// What to do about a request, step by step. After the last step the connection waits for the next
/// request.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Reply {
    acts: Vec<Act>,
    is_answer: bool,
}

impl Reply {
    /// Nothing yet: the client gets no answer.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// A well-formed answer.
    pub fn answer(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::answer_with(status, &[], body)
    }

    /// A well-formed answer with more headers.
    pub fn answer_with(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Self::answer_with_bytes(status, &headers, body)
    }

    /// The same, with values that needn't be text.
    pub fn answer_with_bytes(status: u16, headers: &[(&str, &[u8])], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut answer = format!("HTTP/1.1 {status} Told\r\ncontent-length: {}\r\n", body.len()).into_bytes();
        for (name, value) in headers {
            answer.extend_from_slice(name.as_bytes());
            answer.extend_from_slice(b": ");
            answer.extend_from_slice(value);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(body);
        Self { is_answer: true, ..Self::raw(answer) }
    }

    /// Exactly these bytes.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::nothing().then(bytes)
    }

    /// Then exactly these bytes.
    pub fn then(self, bytes: impl AsRef<[u8]>) -> Self {
        self.and(Act::Send(Bytes::copy_from_slice(bytes.as_ref())))
    }

    /// Then the same bytes again and again, until the client has had enough.
    pub fn then_repeat(self, bytes: impl AsRef<[u8]>) -> Self {
        self.and(Act::Repeat(Bytes::copy_from_slice(bytes.as_ref())))
    }

    /// Then nothing, until the gate opens.
    pub fn then_wait(self, gate: &Gate) -> Self {
        self.and(Act::Wait(gate.clone()))
    }

    /// Then nothing, until the client hangs up.
    pub fn then_hang(self) -> Self {
        self.and(Act::Hang)
    }

    /// Then the end of the connection.
    pub fn then_close(self) -> Self {
        self.and(Act::Close)
    }

    /// Then a reset, which takes unread bytes with it.
    pub fn then_reset(self) -> Self {
        self.and(Act::Reset)
    }

    /// This, once the gate is open.
    pub fn after(mut self, gate: &Gate) -> Self {
        self.acts.insert(0, Act::Wait(gate.clone()));
        self
    }

    /// This, after so long, unless the client has hung up by then.
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.acts.insert(0, Act::Delay(delay));
        self
    }

    fn and(mut self, act: Act) -> Self {
        self.acts.push(act);
        self
    }
}

type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Orders {
    script: Arc<Mutex<Script>>,
    accept: Arc<Mutex<Accept>>,
    seen: Watched<Seen>,
}

/// A server on a loopback port of its own, gone with all its connections when dropped.
pub struct Server {
    address: SocketAddr,
    orders: Orders,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts serving by `script`, which is asked about each request once that has been read whole.
    pub async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(IpAddr::from([127, 0, 0, 1]), script).await
    }

    /// The same on a port of another address of this machine.
    pub async fn start_at(
        address: IpAddr,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let orders = Orders {
            script: Arc::new(Mutex::new(Arc::new(script))),
            accept: Arc::new(Mutex::new(Accept::Serve)),
            seen: Watched::default(),
        };
        let accepting = tokio::spawn(accept(listener, orders.clone()));
        Self { address, orders, accepting }
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, this is the script.
    pub fn now(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.orders.script.lock().unwrap() = Arc::new(script);
    }

    /// From now on, this is what becomes of new connections.
    pub fn on_accept(&self, accept: Accept) {
        *self.orders.accept.lock().unwrap() = accept;
    }

    /// What has been seen, to read or to wait on.
    pub fn seen(&self) -> &Watched<Seen> {
        &self.orders.seen
    }

    /// How many requests were read whole.
    pub fn count(&self) -> usize {
        self.seen().read(|seen| seen.requests.len())
    }

    /// Waits until this many requests were read whole.
    pub async fn until_count(&self, requests: usize) {
        self.seen().until(|seen| seen.requests.len() >= requests).await;
    }

    /// The requests read whole, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.seen().read(|seen| seen.requests.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A port that is taken, so that nobody else gets it, and where nobody listens: connections are
/// refused.
pub struct NobodyHome {
    socket: TcpSocket,
}

impl NobodyHome {
    /// A loopback port of its own.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a loopback port");
        Self { socket }
    }

    /// The URL of the root there.
    pub fn url(&self) -> String {
        format!("http://{}/", self.socket.local_addr().expect("a bound socket has an address"))
    }
}

impl Default for NobodyHome {
    fn default() -> Self {
        Self::new()
    }
}

async fn accept(listener: TcpListener, orders: Orders) {
    // Dropping the set, as aborting this task does, ends every connection.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let number = orders.seen.change(|seen| {
            seen.connections += 1;
            seen.connections
        });
        let what = *orders.accept.lock().unwrap();
        match what {
            Accept::Serve => drop(connections.spawn(serve(stream, number, orders.clone()))),
            Accept::Close => orders.seen.change(|seen| seen.closed += 1),
            Accept::Reset => {
                let _ = stream.set_zero_linger();
                orders.seen.change(|seen| seen.closed += 1);
            }
        }
    }
}

async fn serve(mut stream: TcpStream, connection: usize, orders: Orders) {
    let _ = stream.set_nodelay(true);
    let mut unread = BytesMut::new();
    let mut nth_on_connection = 0;
    while let Some(mut request) = read_request(&mut stream, &mut unread).await {
        nth_on_connection += 1;
        (request.connection, request.nth_on_connection) = (connection, nth_on_connection);
        // Counted before the script is asked: an answer must never arrive before its request was
        // counted.
        let nth = orders.seen.change(|seen| {
            request.nth = seen.requests.len() + 1;
            seen.requests.push(request.clone());
            request.nth
        });
        request.nth = nth;
        let script = Arc::clone(&orders.script.lock().unwrap());
        let reply = script(&request);
        if reply.is_answer {
            // Before the last byte is out, for the same reason.
            orders.seen.change(|seen| seen.answered += 1);
        }
        if !carry_out(&mut stream, reply, &orders).await {
            break;
        }
    }
    orders.seen.change(|seen| seen.closed += 1);
}

/// Whether the connection goes on.
async fn carry_out(stream: &mut TcpStream, reply: Reply, orders: &Orders) -> bool {
    for act in reply.acts {
        match act {
            Act::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return false;
                }
            }
            Act::Repeat(bytes) => {
                while stream.write_all(&bytes).await.is_ok() {}
                return false;
            }
            Act::Wait(gate) => gate.pass().await,
            Act::Delay(delay) => {
                orders.seen.change(|seen| seen.delayed += 1);
                // Our client says nothing before it has its answer, so whatever comes here is its
                // end.
                let waited = tokio::time::timeout(delay, stream.read_u8()).await.is_err();
                orders.seen.change(|seen| {
                    seen.delayed -= 1;
                    seen.hung_up += usize::from(!waited);
                });
                if !waited {
                    return false;
                }
            }
            Act::Hang => {
                let mut sink = [0; 1024];
                while matches!(stream.read(&mut sink).await, Ok(1..)) {}
                return false;
            }
            Act::Close => return false,
            Act::Reset => {
                let _ = stream.set_zero_linger();
                return false;
            }
        }
    }
    true
}

/// `None` when the connection ended first.
async fn read_request(stream: &mut TcpStream, unread: &mut BytesMut) -> Option<Request> {
    let end = loop {
        if let Some(end) = find(unread, b"\r\n\r\n") {
            break end;
        }
        more(stream, unread).await?;
    };
    let head = String::from_utf8_lossy(&unread.split_to(end + 4)).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header =
        |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let body = if header("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
        read_chunks(stream, unread).await?
    } else {
        let length =
            header("content-length").map_or(0, |length| length.parse().expect("our client is honest"));
        while unread.len() < length {
            more(stream, unread).await?;
        }
        unread.split_to(length).freeze()
    };
    Some(Request {
        nth: 0,
        connection: 0,
        nth_on_connection: 0,
        method,
        target,
        headers,
        body,
        at: clock::now(),
    })
}

async fn read_chunks(stream: &mut TcpStream, unread: &mut BytesMut) -> Option<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let end = loop {
            if let Some(end) = find(unread, b"\r\n") {
                break end;
            }
            more(stream, unread).await?;
        };
        let line = unread.split_to(end + 2);
        let size = std::str::from_utf8(&line[..end]).expect("our client is honest");
        let size = usize::from_str_radix(size, 16).expect("our client is honest");
        while unread.len() < size + 2 {
            more(stream, unread).await?;
        }
        body.extend_from_slice(&unread.split_to(size));
        unread.advance(2);
        if size == 0 {
            return Some(body.freeze());
        }
    }
}

async fn more(stream: &mut TcpStream, unread: &mut BytesMut) -> Option<()> {
    matches!(stream.read_buf(unread).await, Ok(1..)).then_some(())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
