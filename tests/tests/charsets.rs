//! Text in the charset that its server says, as reqwest decodes it, over both transports.

use resilient_client::Client;
use resilient_client_tests::{Reply, SOON, Server, within};

#[tokio::test(flavor = "multi_thread")]
async fn text_is_decoded_as_reqwest_decodes_it() {
    let rows: [(&str, &[u8], &str); 11] = [
        ("text/plain; charset=iso-8859-1", b"caf\xe9", "café"),
        ("text/plain; charset=\"ISO-8859-1\"", b"caf\xe9", "café"),
        ("text/html;charset=windows-1252", b"\x80 5", "€ 5"),
        ("text/plain; charset=shift_jis", b"\x83e\x83X\x83g", "テスト"),
        ("text/plain; charset=utf-8", b"caf\xc3\xa9", "café"),
        ("text/plain", b"caf\xe9", "caf\u{fffd}"),
        ("text/plain; charset=nobody-knows", b"caf\xc3\xa9", "café"),
        ("text/plain; charset=iso-8859-1", b"\xef\xbb\xbfcaf\xc3\xa9", "café"),
        ("text/plain", b"\xff\xfea\x00", "a"),
        ("nonsense", b"caf\xc3\xa9", "café"),
        ("text/plain; charset=utf-16le", b"a\x00", "a"),
    ];
    let client = Client::builder().build().unwrap();
    let lean = resilient_client::hyper::Client::builder().build().unwrap();
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    for (content_type, body, text) in rows {
        let server =
            Server::start(move |_| Reply::answer_with(200, &[("content-type", content_type)], body)).await;
        let url = server.url("/");
        let theirs = within(SOON, bare.get(&url).send()).await.unwrap();
        assert_eq!(within(SOON, theirs.text()).await.unwrap(), text, "{content_type}");
        let ours = within(SOON, client.get(&url).send()).await.unwrap();
        assert_eq!(within(SOON, ours.text()).await.unwrap(), text, "{content_type}");
        assert_eq!(within(SOON, client.get(&url).fetch_text()).await.unwrap(), text, "{content_type}");
        let lean = within(SOON, lean.get(&*url).send()).await.unwrap();
        assert_eq!(within(SOON, lean.text()).await.unwrap(), text, "{content_type}");

        let theirs = within(SOON, bare.get(&url).send()).await.unwrap();
        let theirs = within(SOON, theirs.text_with_charset("iso-8859-15")).await.unwrap();
        let ours = within(SOON, client.get(&url).send()).await.unwrap();
        assert_eq!(within(SOON, ours.text_with_charset("iso-8859-15")).await.unwrap(), theirs);
    }
}
