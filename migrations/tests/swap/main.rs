//! A program written for reqwest, and the same with another `use`: what it gets is the same but for
//! what docs/swap.md says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use resilient_client::{Policy, Redirects};
use resilient_client_tests::server::{NobodyHome, Request};
use resilient_client_tests::{Reply, Server, within};

mod with_reqwest {
    use http::Method;
    use reqwest::multipart::{Form, Part};
    use reqwest::{Client, Error, Response};

    use super::*;

    include!("program.rs");

    pub(super) async fn result(client: Client) -> BTreeMap<&'static str, String> {
        let (base, other) = (Server::start(script).await, Server::start(script).await);
        let nobody = NobodyHome::new();
        let told = run(&client, &base.url(""), &other.url(""), &nobody.url()).await;
        told.expect("it ends well").into_iter().collect()
    }
}

mod with_one_use_changed {
    use http::Method;
    use resilient_client::multipart::{Form, Part};
    use resilient_client::{Client, Error, Response};

    use super::*;

    include!("program.rs");

    pub(super) async fn result(client: Client) -> BTreeMap<&'static str, String> {
        let (base, other) = (Server::start(script).await, Server::start(script).await);
        let nobody = NobodyHome::new();
        let told = run(&client, &base.url(""), &other.url(""), &nobody.url()).await;
        told.expect("it ends well").into_iter().collect()
    }
}

/// More than the 16 MiB that are read whole.
const LARGE: usize = 17 << 20;

fn text(kind: &str, body: &[u8]) -> Reply {
    Reply::answer_with(200, &[("content-type", kind)], body)
}

/// A form as it came, but for its boundary, which is made up each time.
fn form(request: &Request) -> Reply {
    let kind = request.header("content-type").unwrap_or("none");
    let boundary = kind.split_once("boundary=").map_or("none", |(_, boundary)| boundary);
    let body = String::from_utf8_lossy(&request.body).replace(boundary, "BOUNDARY");
    let length = request.header("content-length").is_some();
    let echo = format!("{} {length}\n{body}", kind.replace(boundary, "BOUNDARY"));
    Reply::answer(200, echo)
}

/// A jar has no order.
fn sorted(cookies: Option<&str>) -> String {
    let mut cookies: Vec<_> = cookies.unwrap_or("none").split("; ").collect();
    cookies.sort_unstable();
    cookies.join("; ")
}

/// Whatever the program does; the same for both.
fn script(request: &Request) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let tried = request.header("x-envoy-attempt-count").is_some();
    match parts[..] {
        ["echo" | "elsewhere"] => {
            let named = ["authorization", "content-type", "x-mine"];
            let headers = named.map(|name| request.header(name).unwrap_or("-"));
            let body = String::from_utf8_lossy(&request.body);
            let echo = format!("{} {path} {query} {} {body}", request.method, headers.join(","));
            Reply::answer_with(200, &[("x-server", "1")], if request.method == "HEAD" { "" } else { &echo })
        }
        ["headers"] => {
            let names: BTreeSet<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
            Reply::answer(200, names.into_iter().collect::<Vec<_>>().join(" "))
        }
        ["form"] => form(request),
        ["cookies"] | ["below", "cookies"] => Reply::answer(200, sorted(request.header("cookie"))),
        ["login"] => Reply::answer_with(
            200,
            &[
                ("set-cookie", "session=7; Path=/; HttpOnly"),
                ("set-cookie", "theme=dark; Max-Age=3600"),
                ("set-cookie", "deep=1; Path=/below"),
                ("set-cookie", "elsewhere=1; Domain=example.com"),
                ("set-cookie", "gone=1; Max-Age=0"),
            ],
            "welcome",
        ),
        ["renew"] => Reply::answer_with(
            302,
            &[
                ("set-cookie", "session=8; Path=/"),
                ("set-cookie", "theme=; Max-Age=0"),
                ("location", "/cookies"),
            ],
            "",
        ),
        ["order"] => text("application/json", br#"{"user":7,"item":"tea"}"#),
        ["status", status] => {
            let status = status.parse().expect("a number");
            let body = if matches!(status, 204 | 304) { "" } else { "a body" };
            if body.is_empty() {
                Reply::raw(format!("HTTP/1.1 {status} Told\r\n\r\n"))
            } else {
                Reply::answer(status, body)
            }
        }
        ["text", "latin1"] => text("text/plain; charset=iso-8859-1", b"caf\xe9"),
        ["text", "sjis"] => text("text/plain; charset=shift_jis", b"\x83e\x83X\x83g"),
        ["text", "utf8"] => text("text/plain; charset=utf-8", "café".as_bytes()),
        ["text", "bytes"] => text("text/plain", b"caf\xe9"),
        ["pieces"] => Reply::raw(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
        ),
        ["moved", status] => {
            Reply::answer_with(status.parse().expect("a number"), &[("location", "/echo")], "")
        }
        ["circle"] => Reply::answer_with(302, &[("location", "/circle")], ""),
        ["nowhere"] => Reply::answer(302, "no location"),
        ["to"] => Reply::answer_with(302, &[("location", query)], ""),
        ["flaky"] => Reply::answer(if tried { 200 } else { 503 }, "as it comes"),
        ["hang"] => Reply::nothing().then_hang(),
        ["stall"] => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhal").then_hang(),
        ["cut"] => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhal").then_close(),
        ["slow"] => Reply::answer(200, "at last").delayed(Duration::from_millis(3_300)),
        ["large"] => Reply::answer(200, vec![b'a'; LARGE]),
        _ => Reply::answer(404, "what?"),
    }
}

/// The names in the first column of the page's table, each with what the last says: how to have it
/// as before, if it can be had.
fn documented() -> BTreeMap<String, &'static str> {
    let page = include_str!("../../../docs/swap.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let named = rows.filter_map(|row| {
        let as_before = row.trim_end_matches('|').rsplit_once('|')?.1.trim();
        Some((row.split_once('`')?.0.to_owned(), as_before))
    });
    named.collect()
}

fn differ<'a>(
    theirs: &'a BTreeMap<&str, String>,
    ours: &'a BTreeMap<&str, String>,
) -> BTreeMap<&'a str, (&'a str, &'a str)> {
    assert!(theirs.len() > 55 && theirs.keys().eq(ours.keys()), "{}", theirs.len());
    let both = theirs.iter().map(|(name, told)| (*name, (told.as_str(), ours[name].as_str())));
    both.filter(|(_, (theirs, ours))| theirs != ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_gets_after_the_swap_differs_in_what_the_page_says_and_in_nothing_else() {
    let bare = reqwest::Client::builder().cookie_store(true).build().unwrap();
    let standard = resilient_client::Client::builder().cookie_store(true).build().unwrap();
    // The page's, word for word.
    let as_before = resilient_client::Client::builder()
        .policy(Policy::none())
        .redirects(Redirects::any())
        .max_body(usize::MAX)
        .deadline_header(None)
        .cookie_store(true)
        .build()
        .unwrap();
    let all = async {
        tokio::join!(
            with_reqwest::result(bare),
            with_one_use_changed::result(standard),
            with_one_use_changed::result(as_before),
        )
    };
    let (theirs, ours, as_before) = Box::pin(within(Duration::from_mins(1), all)).await;
    let standard = differ(&theirs, &ours);
    let documented = documented();
    assert!(standard.keys().copied().eq(documented.keys()), "{standard:#?}");
    // What is left is what the page knows no way back for.
    let as_before = differ(&theirs, &as_before);
    let for_good = documented.iter().filter(|(_, as_before)| as_before.is_empty()).map(|(name, _)| name);
    assert!(as_before.keys().copied().eq(for_good), "{as_before:#?}");
}
