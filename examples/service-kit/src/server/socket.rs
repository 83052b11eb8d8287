//! The socket of a connection: one that a fault can break, where there may be faults.

#[cfg(not(feature = "faults"))]
pub(super) use off::{into_stream, socket};
#[cfg(feature = "faults")]
pub(super) use on::{into_stream, socket};

#[cfg(feature = "faults")]
mod on {
    use axum::extract::Request;
    use hyper::body::Incoming;
    use resilient_client::fault::{BreakableStream, Connection};
    use tokio::net::TcpStream;

    pub(in crate::server) type Socket = BreakableStream<TcpStream>;

    /// What requests are given, so that their answer can break the connection.
    #[derive(Clone)]
    pub(in crate::server) struct Hand(Connection);

    /// `None` when it is gone already.
    pub(in crate::server) fn socket(stream: TcpStream) -> Option<(Socket, Hand)> {
        let peer = stream.peer_addr().ok()?;
        let socket = BreakableStream::new(stream, peer);
        let hand = Hand(socket.connection().clone());
        Some((socket, hand))
    }

    impl Hand {
        pub(in crate::server) fn give(&self, request: &mut Request<Incoming>) {
            request.extensions_mut().insert(self.0.clone());
        }
    }

    pub(in crate::server) fn into_stream(socket: Socket) -> TcpStream {
        socket.into_inner()
    }
}

#[cfg(not(feature = "faults"))]
mod off {
    use axum::extract::Request;
    use hyper::body::Incoming;
    use tokio::net::TcpStream;

    pub(in crate::server) type Socket = TcpStream;

    #[derive(Clone)]
    pub(in crate::server) struct Hand;

    #[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(in crate::server) fn socket(stream: TcpStream) -> Option<(Socket, Hand)> {
        Some((stream, Hand))
    }

    impl Hand {
        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::server) fn give(&self, _request: &mut Request<Incoming>) {}
    }

    pub(in crate::server) fn into_stream(socket: Socket) -> TcpStream {
        socket
    }
}
