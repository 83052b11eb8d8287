//! Features that are passed through to reqwest.

use std::path::Path;

use resilient_client::{Client, Proxy};
use resilient_client_tests::{Reply, SOON, Server, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[test]
fn each_is_passed_on_under_its_name() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resilient-client/Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
    for feature in [
        "brotli",
        "cookies",
        "deflate",
        "form",
        "gzip",
        "hickory-dns",
        "http2",
        "json",
        "native-tls",
        "query",
        "rustls",
        "rustls-no-provider",
        "socks",
        "system-proxy",
        "zstd",
    ] {
        let passed = manifest["features"][feature].as_array().unwrap();
        // With a question mark where both clients have it, and it brings no reqwest.
        let names = [format!("reqwest/{feature}"), format!("reqwest?/{feature}")];
        assert!(
            passed.iter().filter_map(toml::Value::as_str).any(|it| names.iter().any(|name| name == it)),
            "{feature}"
        );
    }
}

/// zlib's format (RFC 1950), in one stored block.
fn deflated(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in text.bytes() {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&((b << 16) | a).to_be_bytes());
    out
}

#[tokio::test]
async fn deflate_is_asked_for_and_undone() {
    let server =
        Server::start(|_| Reply::answer_with(200, &[("content-encoding", "deflate")], deflated("tea"))).await;
    let response = within(SOON, Client::new().get(server.url("/")).send_buffered()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "tea");
    assert!(server.requests()[0].header("accept-encoding").unwrap().contains("deflate"));
}

/// SOCKS 5 (RFC 1928) without a password: one connection to wherever it is asked to.
async fn socks(listener: TcpListener) -> std::io::Result<()> {
    let (mut from, _) = listener.accept().await?;
    let mut hello = [0; 2];
    from.read_exact(&mut hello).await?;
    from.read_exact(&mut vec![0; hello[1].into()]).await?;
    from.write_all(&[5, 0]).await?;
    let mut asked = [0; 10];
    from.read_exact(&mut asked).await?;
    assert_eq!(asked[..4], [5, 1, 0, 1], "a connection to an address of IPv4");
    let address = ([asked[4], asked[5], asked[6], asked[7]], u16::from_be_bytes([asked[8], asked[9]]));
    let mut to = TcpStream::connect(std::net::SocketAddr::from(address)).await?;
    from.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    tokio::io::copy_bidirectional(&mut from, &mut to).await.map(drop)
}

#[tokio::test]
async fn a_socks_proxy_is_gone_through() {
    let server = Server::start(|_| Reply::answer(200, "tea")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("socks5://{}", listener.local_addr().unwrap());
    let through = tokio::spawn(socks(listener));
    let client =
        Client::builder().transport(move |it| it.proxy(Proxy::all(&proxy).unwrap())).build().unwrap();
    let text = within(SOON, client.get(server.url("/")).fetch_text()).await.unwrap();
    assert_eq!(text, "tea");
    drop(client);
    within(SOON, through).await.unwrap().unwrap();
}
