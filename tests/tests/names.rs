//! Errors say what happened, and to whom: ports that there can't be, addresses that swallow what is
//! sent to them, certificates, proxies, names without an address.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use reqwest::dns::{Name, Resolve, Resolving};
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Error, ErrorKind, Policy};
use resilient_client_tests::h2_server::{Act, H2Server};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::tls::Tls;
use resilient_client_tests::{Reply, SOON, Server, clock, everything_it_says, within};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const SHORT: Duration = Duration::from_millis(300);

fn over_hyper() -> resilient_client::hyper::Client {
    resilient_client::hyper::Client::builder().build().unwrap()
}

fn attempts(error: &Error) -> usize {
    error.report().expect("a call that began has a report").attempts().len()
}

/// The name that everything resolves to.
struct At(Vec<SocketAddr>);

impl Resolve for At {
    fn resolve(&self, _name: Name) -> Resolving {
        let addresses = self.0.clone();
        Box::pin(async { Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>) })
    }
}

struct NoSuchName;

impl Resolve for NoSuchName {
    fn resolve(&self, _name: Name) -> Resolving {
        Box::pin(async { Err("no such name".into()) })
    }
}

/// An address to which packets vanish: its queue of connections is full and nobody accepts.
struct Blackhole {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Blackhole {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        let connect = || tokio::time::timeout(SHORT, TcpStream::connect(address));
        while let Ok(connected) = within(SOON, connect()).await {
            queued.push(connected.unwrap());
            assert!(queued.len() < 100, "the queue never fills");
        }
        Self { address, _listener: listener, _queued: queued }
    }
}

#[tokio::test]
async fn a_port_that_there_cannot_be_is_refused_and_named_and_nothing_is_sent() {
    let client = over_hyper();
    for (url, said) in [
        ("http://127.0.0.1:65536/", "65536"),
        ("http://127.0.0.1:99999/?token=s3cret", "99999"),
        ("http://127.0.0.1:-1/", "-1"),
        ("http://127.0.0.1:8o80/", "port"),
        ("http://users:hunter2/", "port"),
        ("http://[fe80::1%25eth0]/", "zone"),
    ] {
        let error = within(SOON, client.get(url).send()).await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Request, "{url}");
        let all = everything_it_says(&error);
        assert!(all.contains(said) && !all.contains("s3cret") && !all.contains("hunter2"), "{url}: {all}");
    }
    assert_eq!(client.upstreams(), 0);
}

#[tokio::test]
async fn one_address_over_hyper_is_one_upstream_however_it_is_written() {
    let server = Server::start(|_| Reply::answer(200, "done")).await;
    let (client, port) = (over_hyper(), server.address().port());
    for host in ["127.0.0.1", "127.1", "0x7f000001", "2130706433"] {
        let response = within(SOON, client.get(format!("http://{host}:{port}/")).send()).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "done");
    }
    assert_eq!((client.upstreams(), server.count()), (1, 4));
    assert!(
        server.requests().iter().all(|request| request.header("host") == Some(&format!("127.0.0.1:{port}")))
    );
}

#[tokio::test]
async fn the_second_address_of_a_name_is_tried_when_the_first_swallows_everything() {
    let hole = Blackhole::new().await;
    // Another address of the same port.
    let second = SocketAddr::from(([127, 0, 0, 2], hole.address.port()));
    let listener = TcpListener::bind(second).await.unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let timeout = TimeoutPolicy::standard().connect(Duration::from_secs(2));
    let addresses = vec![hole.address, second];
    let client = Client::builder()
        .policy(Policy::standard().timeout(timeout).retry(None))
        .transport(move |transport| transport.dns_resolver(At(addresses.clone())))
        .build()
        .unwrap();
    let begun = clock::now();
    let error = within(SOON, client.get(format!("http://users:{}/", hole.address.port())).send()).await;
    let error = error.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Connect, "it connected, and nobody answered: {error:?}");
    assert!(begun.elapsed() >= Duration::from_millis(900), "half the time was the first one's");
}

#[tokio::test]
async fn a_connect_timeout_says_so_and_to_whom() {
    let hole = Blackhole::new().await;
    let timeout = TimeoutPolicy::standard().connect(SHORT);
    let policy = Policy::standard().timeout(timeout).retry(None);
    let url = format!("http://{}/", hole.address);
    let hyper = resilient_client::hyper::Client::builder().policy(policy.clone()).build().unwrap();
    let reqwest = Client::builder().policy(policy).build().unwrap();
    let errors = [
        within(SOON, hyper.get(&*url).send()).await.unwrap_err(),
        within(SOON, reqwest.get(&url).send()).await.unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::Connect);
        let said = error.to_string();
        assert!(said.contains("connect timeout") && said.contains(&hole.address.to_string()), "{said}");
    }
    let all = everything_it_says(&errors[0]);
    assert!(!all.contains("deadline has elapsed"), "{all}");
    assert!(all.contains(&format!("no connection to {} within 300ms", hole.address)), "{all}");
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_is_tried_once_and_named() {
    let tls = Tls::new();
    let server = H2Server::start_tls(|_| Act::Answer("done"), tls.acceptor("h2")).await;
    let reqwest = Client::builder().build().unwrap();
    let hyper = over_hyper();
    for method in [Method::GET, Method::POST] {
        let errors = [
            within(SOON, reqwest.request(method.clone(), server.url("/")).send()).await.unwrap_err(),
            within(SOON, hyper.request(method.clone(), server.url("/")).send()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), attempts(&error)), (ErrorKind::Connect, 1), "{error:?}");
            assert!(error.to_string().contains("certificate") && error.is_unsent(), "{error}");
        }
    }
    assert_eq!(server.seen().read(|seen| (seen.connections, seen.begun)), (4, 0));
}

fn through(proxy: &str) -> Client {
    let proxy = reqwest::Proxy::https(proxy).unwrap();
    Client::builder().transport(move |transport| transport.proxy(proxy.clone())).build().unwrap()
}

#[tokio::test]
async fn a_proxy_that_asks_for_authorization_is_asked_once_and_is_not_the_target() {
    let proxy = Server::start(|_| Reply::raw("HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")).await;
    let client = through(&proxy.url(""));
    for n in 1..=10 {
        let error = within(SOON, client.get("https://users.invalid/").send()).await.unwrap_err();
        assert_eq!((error.kind(), attempts(&error)), (ErrorKind::Connect, 1), "call {n}: {error:?}");
        assert!(error.to_string().contains("407"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_opens_no_targets_breaker() {
    let nobody = NobodyHome::new();
    let client = through(&nobody.url());
    for n in 1..=10 {
        let error = within(SOON, client.get("https://users.invalid/").send()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "call {n}: {error:?}");
        assert!(error.to_string().contains("proxy"), "{error}");
    }
}

#[tokio::test]
async fn a_name_that_was_not_found_is_said_to_be_so() {
    let client = Client::builder().transport(|transport| transport.dns_resolver(NoSuchName)).build().unwrap();
    let error = within(SOON, client.get("http://users.invalid/").send()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("DNS") && error.to_string().contains("users.invalid"), "{error}");
}

#[tokio::test]
async fn a_given_clients_own_timeout_in_a_body_is_a_timeout() {
    let server =
        Server::start(|_| Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour").then_hang()).await;
    let given = reqwest::Client::builder().no_proxy().read_timeout(SHORT).build().unwrap();
    let client = Client::from(given);
    let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    let error = within(SOON, response.text()).await.unwrap_err();
    assert!(error.is_timeout() && error.is_body(), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::BodyIdle);
    let error = within(SOON, client.post(server.url("/")).send_buffered()).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn more_headers_than_there_is_room_for_are_an_error_and_no_panic_however_they_are_given() {
    let server = Server::start(|_| Reply::answer(200, "done")).await;
    let many = |n: usize| -> http::HeaderMap {
        let name = |n| http::HeaderName::try_from(format!("x-{n}")).unwrap();
        (0..n).map(|n| (name(n), http::HeaderValue::from_static("1"))).collect()
    };
    let reqwest = Client::builder().build().unwrap();
    let hyper = over_hyper();
    let mut request = reqwest::Request::new(Method::GET, server.url("/").parse().unwrap());
    *request.headers_mut() = many(24_576);
    let mut one_by_one = reqwest.get(server.url("/"));
    for n in 0..24_600 {
        one_by_one = one_by_one.header(format!("x-{n}"), "1");
    }
    let errors = [
        within(SOON, reqwest.execute(request)).await.unwrap_err(),
        within(SOON, one_by_one.json(&1).send()).await.unwrap_err(),
        within(SOON, reqwest.get(server.url("/")).headers(many(24_576)).header("y", "1").send())
            .await
            .unwrap_err(),
        within(SOON, hyper.get(server.url("/")).headers(many(24_576)).header("y", "1").send())
            .await
            .unwrap_err(),
        within(SOON, hyper.get(server.url("/")).headers(many(24_576)).json(&1).send()).await.unwrap_err(),
        within(SOON, hyper.get(server.url("/")).headers(many(24_500)).send()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Request, "{error:?}");
    }
    assert_eq!(server.seen().read(|seen| seen.connections), 0);
}
