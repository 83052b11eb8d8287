//! Whether there is a `RabbitMQ` for the scenario that needs one.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where it is, as for the services.
const VARIABLE: &str = "AMQP_URL";
/// How long it may take to answer.
const LIMIT: Duration = Duration::from_secs(3);
/// How a client of AMQP 0-9-1 begins.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// What a broker's first frame begins with.
const METHOD_FRAME: u8 = 1;

/// What the services are told.
pub(crate) fn url() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|url| !url.is_empty())
}

/// Why the scenario can't be played here, if so.
pub(crate) async fn missing() -> Option<String> {
    if cfg!(not(feature = "amqp")) {
        return Some("this build has no RabbitMQ; `cargo demo-amqp broker` builds one that has".into());
    }
    let Some(url) = url() else {
        return Some(format!("{VARIABLE} isn't set, such as to amqp://127.0.0.1:5672"));
    };
    answers(&url).await.err().map(|why| format!("no RabbitMQ at {VARIABLE}: {why}"))
}

/// Whether a broker speaks there. What is said never repeats the URL, which may hold a password.
async fn answers(url: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(url).map_err(|_| "it is not a URL".to_owned())?;
    let host = url.host_str().ok_or("it names no host")?;
    let spoken = timeout(LIMIT, async {
        let mut stream = TcpStream::connect((host, url.port().unwrap_or(5672))).await?;
        stream.write_all(GREETING).await?;
        stream.read_u8().await
    });
    match spoken.await {
        Ok(Ok(METHOD_FRAME)) => Ok(()),
        Ok(Ok(_)) => Err("what answers is no broker".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_is_told_from_whatever_else_may_listen_there() {
        for (first, is_broker) in [(&b"\x01\x00"[..], true), (b"HTTP/1.1 400", false), (b"", false)] {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let url = format!("amqp://u:secret@127.0.0.1:{}/%2f", listener.local_addr().unwrap().port());
            let answering = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut greeting = [0; 8];
                stream.read_exact(&mut greeting).await.unwrap();
                stream.write_all(first).await.unwrap();
            });
            let answer = answers(&url).await;
            answering.await.unwrap();
            assert_eq!(answer.is_ok(), is_broker, "{answer:?}");
        }
        for url in ["", "nonsense", "amqp://u:secret@127.0.0.1:1"] {
            let why = answers(url).await.unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
