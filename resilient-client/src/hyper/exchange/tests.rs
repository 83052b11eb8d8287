//! Whom a request says it is for, over real HTTP/2.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::endpoints::{Endpoints, Resolve, Resolving};

/// A server that answers with the `:authority` and the `Host` it was sent.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let said = format!("{:?} {:?}", request.uri().authority(), request.headers().get("host"));
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(said.into(), true).unwrap();
                }
            });
        }
    });
    address
}

struct At(SocketAddr);

impl Resolve for At {
    fn resolve(&self, _host: &str, _port: u16) -> Resolving {
        let address = self.0;
        Box::pin(async move { Ok(vec![address]) })
    }
}

async fn said(endpoints: Endpoints) -> String {
    let client = crate::hyper::Client::builder().http2_prior_knowledge();
    let client = client.endpoints("http://users.internal:3000", endpoints).build().unwrap();
    let response = client.get("http://users.internal:3000/users/7").send().await.unwrap();
    assert_eq!(response.uri().to_string(), "http://users.internal:3000/users/7");
    response.text().await.unwrap()
}

/// The address was sent as `:authority`, and the name as `Host`, which RFC 9113 forbids.
#[tokio::test]
async fn over_http2_the_authority_is_the_name_that_was_called() {
    let address = echo().await;
    let dns = Endpoints::dns("http://users.internal:3000").resolver(At(address));
    assert_eq!(said(dns).await, "Some(users.internal:3000) None");
}

#[tokio::test]
async fn over_http2_a_listed_endpoint_goes_by_its_own_name() {
    let address = echo().await;
    assert_eq!(said(Endpoints::fixed([format!("http://{address}")])).await, format!("Some({address}) None"));
}
