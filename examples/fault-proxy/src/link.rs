//! One connection: bytes of both directions, as the toxics let them.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock;
use crate::shape::{Cut, Next, Piece, Shape};
use crate::toxic::{Direction, Toxic};

/// The most that is read at once, and how many such pieces one direction may hold: a megabyte, so
/// that latency takes no bandwidth.
const PIECE: usize = 16 * 1024;
const PIECES: usize = 64;
/// How long the upstream may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The toxics of a proxy, as they come and go.
pub(crate) type Toxics = watch::Receiver<Arc<[Toxic]>>;

/// Passes a connection on to the upstream until both sides have closed, or a toxic cuts it.
pub(crate) async fn run(mut client: TcpStream, upstream: &str, toxics: Toxics, lot: u64) {
    // Dropped, the client sees a connection that was closed before anything came.
    let Ok(Ok(mut server)) = timeout(CONNECT, TcpStream::connect(upstream)).await else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, OwnToxics::new(toxics.clone(), Direction::Upstream, lot));
        let down = pump(from_server, to_client, OwnToxics::new(toxics, Direction::Downstream, lot));
        both(up, down).await
    };
    if cut == Some(Cut::Reset) {
        for socket in [&client, &server] {
            let _ = socket.set_zero_linger();
        }
    }
}

/// Until both have ended, or one is cut.
async fn both(up: impl Future<Output = Option<Cut>>, down: impl Future<Output = Option<Cut>>) -> Option<Cut> {
    tokio::pin!(up, down);
    let (mut up_ended, mut down_ended) = (false, false);
    loop {
        let (cut, ended) = tokio::select! {
            cut = &mut up, if !up_ended => (cut, &mut up_ended),
            cut = &mut down, if !down_ended => (cut, &mut down_ended),
            else => return None,
        };
        if cut.is_some() {
            return cut;
        }
        *ended = true;
    }
}

/// The toxics of one direction that this connection has.
struct OwnToxics {
    all: Toxics,
    direction: Direction,
    lot: u64,
    now: Vec<Toxic>,
}

impl OwnToxics {
    fn new(all: Toxics, direction: Direction, lot: u64) -> Self {
        let mut toxics = Self { all, direction, lot, now: Vec::new() };
        toxics.look();
        toxics
    }

    fn look(&mut self) {
        let all = self.all.borrow_and_update();
        let own = all.iter().filter(|toxic| toxic.stream == self.direction && toxic.takes(self.lot));
        self.now = own.cloned().collect();
    }

    /// Ready when they have changed.
    async fn change(&mut self) {
        if self.all.changed().await.is_err() {
            // The proxy is gone, and this connection is about to be.
            pending::<()>().await;
        }
        self.look();
    }
}

/// Moves the bytes of one direction to their end; `Some` when a toxic cuts the connection.
async fn pump(from: ReadHalf<'_>, to: WriteHalf<'_>, toxics: OwnToxics) -> Option<Cut> {
    let (pieces, queue) = mpsc::channel(PIECES);
    tokio::select! {
        biased;
        cut = write(queue, to, toxics) => cut,
        // What was read goes on after the source's end.
        never = async { read(from, pieces).await; pending().await } => never,
    }
}

/// The source was reset.
struct Broken;

/// Reads until the source ends, whichever way.
async fn read(mut from: ReadHalf<'_>, pieces: mpsc::Sender<Result<Piece, Broken>>) {
    let mut buffer = vec![0; PIECE];
    loop {
        let piece = match from.read(&mut buffer).await {
            Ok(0) => return,
            Ok(read) => {
                let bytes = Bytes::copy_from_slice(buffer.get(..read).unwrap_or(&buffer));
                Ok(Piece { bytes, at: clock::now() })
            }
            Err(_) => Err(Broken),
        };
        let ends = piece.is_err();
        if pieces.send(piece).await.is_err() || ends {
            return;
        }
    }
}

async fn write(
    mut queue: mpsc::Receiver<Result<Piece, Broken>>,
    mut to: WriteHalf<'_>,
    mut toxics: OwnToxics,
) -> Option<Cut> {
    let mut shape = Shape::new(clock::now(), toxics.lot ^ toxics.direction as u64);
    let mut held: Option<Piece> = None;
    let mut ended = None;
    loop {
        let next = match held.as_ref().map(|piece| shape.next(&toxics.now, piece)) {
            Some(Next::Drop) => {
                held = None;
                None
            }
            Some(Next::Pass { bytes, at }) => Some((bytes, at)),
            None => None,
        };
        let cut = shape.cut(&toxics.now);
        let is_cut = async || match cut {
            Some((at, cut)) => {
                until(at).await;
                cut
            }
            None => pending().await,
        };
        let closes = ended.filter(|_| held.is_none()).map(|ended| ended + Shape::closes_after(&toxics.now));
        // Each of these may be given up without losing anything.
        tokio::select! {
            biased;
            cut = is_cut() => return Some(cut),
            written = pass(&mut to, held.as_ref(), next) => {
                // Nobody reads there any more; what comes from there goes on.
                let Ok(written) = written else { return None };
                shape.passed(&toxics.now, written, clock::now());
                if let Some(piece) = &mut held {
                    piece.bytes.advance(written);
                }
                held = held.filter(|piece| !piece.bytes.is_empty());
            }
            piece = queue.recv(), if held.is_none() && ended.is_none() => match piece {
                Some(Ok(piece)) => {
                    shape.take_up();
                    held = Some(piece);
                }
                // What came before it has gone on.
                Some(Err(Broken)) => return Some(Cut::Reset),
                None => ended = Some(clock::now()),
            },
            () = until(closes.unwrap_or_else(clock::now)), if closes.is_some() => {
                let _ = to.shutdown().await;
                return None;
            }
            () = toxics.change() => {}
        }
    }
}

/// Writes as much as goes on next, at its time.
async fn pass(
    to: &mut WriteHalf<'_>,
    held: Option<&Piece>,
    next: Option<(usize, Instant)>,
) -> std::io::Result<usize> {
    let Some((piece, (bytes, at))) = held.zip(next) else { return pending().await };
    until(at).await;
    to.write(piece.bytes.get(..bytes).unwrap_or(&piece.bytes)).await
}

/// Ready at once when that was long ago: a timer is late by a millisecond, which each piece would
/// pay, and what is to be cut would pass.
async fn until(at: Instant) {
    if at > clock::now() {
        sleep_until(at).await;
    }
}
