//! A connection's socket, to be cut.
//!
//! lapin works each connection off in a thread of its own, also one that nobody waits for any more:
//! a broker that accepts and says nothing (stopped, or with a disk that hangs) would keep the
//! thread of every try. Whoever gives a connection up cuts its socket, and the thread ends.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use lapin::{Connection, ConnectionProperties, tcp::AMQPUriTcpExt as _, uri::AMQPUri};
use tokio_util::sync::CancellationToken;

/// Cuts the connection's socket when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Line(Arc<Ends>);

#[derive(Debug, Default)]
struct Ends {
    is_cut: CancellationToken,
    /// lapin's socket by another name.
    #[cfg(unix)]
    socket: Mutex<Option<std::net::TcpStream>>,
}

impl Line {
    /// Connects over this line.
    pub(super) async fn connect(
        &self,
        uri: AMQPUri,
        properties: ConnectionProperties,
    ) -> Result<Connection, lapin::Error> {
        let ends = self.0.clone();
        let runtime = lapin::runtime::default_runtime()?;
        Connection::connector(
            uri,
            runtime,
            // Called by lapin's thread.
            async move |uri, runtime| {
                let connecting = uri.connect_async(&runtime);
                let stream = ends.is_cut.run_until_cancelled(connecting).await.ok_or_else(given_up)??;
                #[cfg(unix)]
                if let lapin::AsyncTcpStream::Plain(plain) = &stream {
                    use std::os::fd::AsFd as _;
                    let socket = plain.get_ref().as_fd().try_clone_to_owned()?;
                    *ends.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.into());
                }
                // It may have been cut before there was anything to cut.
                if ends.is_cut.is_cancelled() { Err(given_up().into()) } else { Ok(stream) }
            },
            properties,
        )
        .await
    }
}

fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "nobody waits for this connection any more")
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.is_cut.cancel();
        #[cfg(unix)]
        if let Some(socket) = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // One that is closed already can't be cut.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}
