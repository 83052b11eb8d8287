//! A connection that is refused, for whoever needs one without a port that nobody listens at.

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Empty;
use tower::service_fn;

type Io = hyper_util::rt::TokioIo<tokio::net::TcpStream>;

/// The error of a connection refused, as hyper has it.
pub(crate) async fn refused() -> Box<dyn std::error::Error + Send + Sync> {
    let refuse = service_fn(|_: Uri| {
        std::future::ready(Err::<Io, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)))
    });
    let pool =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build(refuse);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from_static("http://nobody/");
    match pool.request(request).await {
        Err(error) => error.into(),
        Ok(_) => "nobody has answered".into(),
    }
}
