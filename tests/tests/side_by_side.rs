//! One thing goes wrong with a connection, or here: what that costs us, beside what it costs
//! reqwest as it comes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use resilient_client::policy::breaker::State;
use resilient_client::policy::throttle::ThrottlePolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Policy};
use resilient_client_tests::crowd::{Any, Work};
use resilient_client_tests::h2_server::{Act, H2Server};
use resilient_client_tests::tls::Tls;
use resilient_client_tests::{Gate, Heard, Reply, SOON, Server, clock, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A warm connection takes requests and says nothing more. Nobody knows before an attempt's time is
/// up; then all go elsewhere. What comes later does so at once over hyper, which has left the
/// connection. reqwest keeps it until its pings find it, and so does bare reqwest told to send the
/// same: the POSTs are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_gets_on_a_connection_gone_mute_are_served_over_another() {
    let patient =
        reqwest::Client::builder().no_proxy().http2_prior_knowledge().timeout(Duration::from_millis(3500));
    let [_, reqwest, hyper] = Any::all(true, &Policy::standard());
    let row = async |client: Any| {
        let mute = Arc::new(AtomicBool::new(false));
        let falls_silent = Arc::clone(&mute);
        let server = H2Server::start(move |request| match request.connection {
            1 if falls_silent.load(Ordering::SeqCst) => Act::Nothing,
            _ => Act::Answer("done"),
        })
        .await;
        // Each success earns a quarter of a token.
        let warm = Work::of(Method::GET, 4, 50).over(&client, &server.url("/")).await;
        assert_eq!(warm.served, 200);
        mute.store(true, Ordering::SeqCst);
        let tally = Work::of(Method::GET, 50, 1).over(&client, &server.url("/")).await;
        let after = Work::of(Method::GET, 20, 1).over(&client, &server.url("/")).await;
        println!("{}: {}; afterwards {}", client.name(), tally.said(), after.said());
        if !client.is_bare() {
            let served = (tally.served, after.served, client.transitions());
            assert_eq!(served, (50, 20, 0), "{}: {}; {}", client.name(), tally.said(), after.said());
        }
        if client.name() == "hyper" {
            let work = Work::of(Method::POST, 20, 1).body("an order");
            assert_eq!(work.over(&client, &server.url("/")).await.served, 20);
        }
        let connections = server.seen().read(|seen| seen.connections);
        assert!(connections <= 71, "{}: {connections} connections", client.name());
    };
    tokio::join!(row(Any::Bare(patient.build().unwrap())), row(reqwest), row(hyper));
}

/// Passes connections on. From its first, nothing comes any more once the gate is open, nor does it
/// end.
async fn mutes_the_first(to: String, gate: Gate) -> (String, JoinHandle<()>) {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", front.local_addr().unwrap());
    let passing = tokio::spawn(async move {
        let (mut connections, mut first) = (JoinSet::new(), true);
        while let Ok((mut client, _)) = front.accept().await {
            let (to, gate, falls_silent) = (to.clone(), gate.clone(), std::mem::take(&mut first));
            connections.spawn(async move {
                let Ok(mut server) = TcpStream::connect(to).await else { return };
                let passed = tokio::io::copy_bidirectional(&mut client, &mut server);
                tokio::select! {
                    _ = passed => {}
                    () = gate.pass(), if falls_silent => std::future::pending().await,
                }
            });
        }
    });
    (url, passing)
}

/// The same, and not even a ping is answered: as when a router in between has forgotten the
/// connection. Callers that post one order after the other are served again once the client has
/// left it. Over hyper that is when the first attempt has timed out; over reqwest when its pings
/// have, 7 s after the last word, as for bare reqwest told to send the same. As it comes it waits
/// for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_post_served_after_a_connection_has_gone_mute() {
    let server = H2Server::start(|_| Act::Answer("done")).await;
    let to = server.url("/").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let first_served = async |client: Any| {
        let gate = Gate::new();
        let (url, passing) = mutes_the_first(to.clone(), gate.clone()).await;
        assert_eq!(Work::of(Method::POST, 4, 5).body("an order").over(&client, &url).await.served, 20);
        gate.open();
        let (begun, mut lost) = (clock::now(), 0);
        let served = tokio::time::timeout(Duration::from_secs(8), async {
            while client.call(Method::POST, &url, 0, "an order").await.is_err() {
                lost += 1;
            }
        });
        let after = served.await.is_ok().then(|| begun.elapsed());
        passing.abort();
        println!("{}: served after {after:?}, {lost} lost", client.name());
        assert_eq!(client.transitions(), 0, "{}", client.name());
        after
    };
    let [bare, reqwest, hyper] = Any::all(true, &Policy::standard());
    let pings = reqwest::Client::builder().no_proxy().http2_prior_knowledge();
    let pings = pings.http2_keep_alive_interval(Duration::from_secs(5)).http2_keep_alive_while_idle(true);
    let pinging = Any::Bare(pings.http2_keep_alive_timeout(Duration::from_secs(2)).build().unwrap());
    let (bare, pinging, reqwest, hyper) =
        tokio::join!(first_served(bare), first_served(pinging), first_served(reqwest), first_served(hyper));
    let (pinging, reqwest, hyper) = (pinging.unwrap(), reqwest.unwrap(), hyper.unwrap());
    let slack = Duration::from_millis(500);
    assert!(reqwest <= pinging + slack && bare.is_none_or(|bare| reqwest <= bare + slack), "{reqwest:?}");
    assert!(hyper + Duration::from_secs(2) < pinging, "{hyper:?}, bare {pinging:?}");
}

/// Resets its first connection, once all are waiting for that, and passes the others on.
async fn resets_the_first(to: String) -> (String, JoinHandle<()>) {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", front.local_addr().unwrap());
    let passing = tokio::spawn(async move {
        let (first, _) = front.accept().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.set_zero_linger().unwrap();
        drop(first);
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = front.accept().await {
            let to = to.clone();
            connections.spawn(async move {
                let Ok(mut server) = TcpStream::connect(to).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (url, passing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_thirty_wait_for_and_that_is_reset_counts_once() {
    let tls = Tls::new();
    let server = H2Server::start_tls(|_| Act::Answer("done"), tls.acceptor("h2")).await;
    let to = server.url("/").trim_start_matches("https://").trim_end_matches('/').to_owned();
    for client in Any::over_tls(&tls) {
        let (url, passing) = resets_the_first(to.clone()).await;
        let tally = Work::of(Method::POST, 30, 1).body("an order").over(&client, &url).await;
        println!("{}: {}, {} counted", client.name(), tally.said(), client.counted());
        if !client.is_bare() {
            assert_eq!((tally.served, client.transitions()), (30, 0), "{}: {}", client.name(), tally.said());
            assert!(client.counted() <= 1, "{}: {} failures", client.name(), client.counted());
        }
        passing.abort();
    }
}

/// HTTP/1.1, each answer after 20 ms. Connections accepted before `dead` is set then leave the next
/// request unanswered, and end, or are `mute` from then on.
async fn dies_in_the_pool(dead: Arc<AtomicBool>, mute: bool) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (dead, new) = (Arc::clone(&dead), dead.load(Ordering::SeqCst));
            connections.spawn(async move {
                let mut piece = [0; 4096];
                while let Ok(1..) = stream.read(&mut piece).await {
                    if dead.load(Ordering::SeqCst) && !new {
                        if mute {
                            std::future::pending::<()>().await;
                        }
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, accepting)
}

/// A GET that finds one of them has no time to find the others. (Bare reqwest waits for ever.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_survives_six_mute_connections_in_the_pool() {
    let served = async |client: Any| {
        let dead = Arc::new(AtomicBool::new(false));
        let (url, accepting) = dies_in_the_pool(Arc::clone(&dead), true).await;
        assert_eq!(Work::of(Method::GET, 6, 2).over(&client, &url).await.served, 12);
        dead.store(true, Ordering::SeqCst);
        let begun = clock::now();
        let one = Work::of(Method::GET, 1, 1).over(&client, &url).await;
        println!("{}: {} after {:?}", client.name(), one.said(), begun.elapsed());
        assert_eq!((one.served, client.transitions()), (1, 0), "{}: {}", client.name(), one.said());
        // One attempt's time, and not two.
        assert!(begun.elapsed() < Duration::from_secs(5), "{}", client.name());
        accepting.abort();
    };
    let [_, reqwest, hyper] = Any::all(false, &Policy::standard());
    tokio::join!(served(reqwest), served(hyper));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_survives_six_dead_connections_in_the_pool() {
    let mut served = Vec::new();
    for client in Any::all(false, &Policy::standard()) {
        let (mut tally, mut said) = (0, Vec::new());
        for _ in 0..4 {
            let dead = Arc::new(AtomicBool::new(false));
            let (url, accepting) = dies_in_the_pool(Arc::clone(&dead), false).await;
            assert_eq!(Work::of(Method::GET, 6, 2).over(&client, &url).await.served, 12);
            dead.store(true, Ordering::SeqCst);
            let one = Work::of(Method::GET, 1, 1).over(&client, &url).await;
            tally += one.served;
            said.push(one.said());
            accepting.abort();
        }
        println!("{}: {tally} of 4", client.name());
        served.push((client.name(), tally, client.transitions(), said));
    }
    for (name, served, transitions, said) in served {
        // Bare reqwest's one attempt finds one of them.
        let expected = if name == "bare" { 0 } else { 4 };
        assert!(served >= expected && transitions == 0, "{name}: {served} served, {said:?}");
    }
}

/// The server has closed the connection meanwhile, and nobody has used it since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_post_after_an_idle_time_finds_its_way() {
    for client in Any::all(false, &Policy::standard()) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (closed, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                while let Ok(Ok(1..)) =
                    tokio::time::timeout(Duration::from_millis(30), stream.read(&mut request)).await
                {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
                drop(stream);
                let _ = closed.send(());
            }
        });
        let mut served = 0;
        for n in 0..20 {
            served += usize::from(client.call(Method::POST, &url, n, "an order").await.is_ok());
            within(SOON, hears.recv()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("{}: {served} of 20", client.name());
        assert_eq!((served, client.transitions()), (20, 0), "{}", client.name());
        serving.abort();
    }
}

/// No socket can be bound to an address that isn't this machine's: the same error as that of ports
/// that have run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_want_of_local_addresses_opens_no_breaker() {
    let server = Server::start(|_| Reply::answer(200, "ok")).await;
    let nowhere = IpAddr::from([192, 0, 2, 1]);
    let (one, other) = (Heard::new(), Heard::new());
    let reqwest = resilient_client::Client::builder().observer(one.clone());
    let reqwest = reqwest.transport(move |transport| transport.no_proxy().local_address(nowhere));
    let hyper = resilient_client::hyper::Client::builder().observer(other.clone());
    let hyper = hyper.sockets(move |sockets| sockets.set_local_address(Some(nowhere)));
    for client in [Any::Reqwest(reqwest.build().unwrap(), one), Any::Hyper(hyper.build().unwrap(), other)] {
        let tally = Work::of(Method::GET, 40, 1).over(&client, &server.url("/")).await;
        println!("{}: {}, {} counted", client.name(), tally.said(), client.counted());
        assert_eq!((tally.served, server.count()), (0, 0));
        assert!(tally.failed.iter().all(|said| said.contains("os error 99")), "{}", tally.said());
        assert_eq!((client.counted(), client.transitions()), (0, 0), "{}", client.name());
    }
}

/// Google's rule counts what the server was asked and accepted. It hasn't seen a request that was
/// never sent, and has answered each hop of a redirect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_redirect_loops_nor_requests_never_sent_count_in_the_client_throttle() {
    let policy = Policy::standard().breaker(None).budget(None).throttle(ThrottlePolicy::standard());
    let server = Server::start(|request| match request.target.as_str() {
        "/well" => Reply::answer(200, "well"),
        _ => Reply::answer_with(307, &[("location", "/round?and=round")], ""),
    })
    .await;
    let client = Any::reqwest(false, &policy);
    let round = Work::of(Method::GET, 10, 4).over(&client, &server.url("/round")).await;
    assert_eq!(round.served, 0, "{}", round.said());
    let well = Work::of(Method::GET, 10, 4).over(&client, &server.url("/well")).await;
    assert_eq!(well.served, 40, "{}", well.said());

    // From an address that isn't ours nothing can be sent.
    let nowhere = IpAddr::from([192, 0, 2, 1]);
    let (one, other) = (Heard::new(), Heard::new());
    let reqwest = resilient_client::Client::builder().policy(policy.clone()).observer(one.clone());
    let reqwest = reqwest.transport(move |transport| transport.no_proxy().local_address(nowhere));
    let hyper = resilient_client::hyper::Client::builder().policy(policy).observer(other.clone());
    let hyper = hyper.sockets(move |sockets| sockets.set_local_address(Some(nowhere)));
    for client in [Any::Reqwest(reqwest.build().unwrap(), one), Any::Hyper(hyper.build().unwrap(), other)] {
        let never = Work::of(Method::POST, 20, 3).over(&client, &server.url("/well")).await;
        let all = never.failed.iter().all(|said| said.contains("os error 99"));
        assert!(all && never.failed.len() == 60, "{}: {}", client.name(), never.said());
    }
}

/// Over HTTP/1.1 each attempt has a connection to itself, so that each that times out speaks for
/// itself, whatever other hosts speak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_host_speaks_says_nothing_about_the_timeouts_of_another() {
    let timeout = TimeoutPolicy::standard().attempt(Duration::from_millis(300));
    let client = Client::builder().policy(Policy::standard().timeout(timeout));
    let client = client.transport(|transport| transport.no_proxy().tls_danger_accept_invalid_certs(true));
    let client = client.build().unwrap();
    let over_h2 = H2Server::start_tls(|_| Act::Answer("done"), Tls::new().acceptor("h2")).await;
    let version = client.get(over_h2.url("/")).send().await.unwrap().version();
    assert_eq!(version, http::Version::HTTP_2);
    let over_h1 = Server::start(|request| match request.header("x-hangs") {
        Some(_) => Reply::nothing().then_hang(),
        None => Reply::answer(200, "done"),
    })
    .await;
    client.get(over_h1.url("/")).fetch_text().await.unwrap();
    let hung = (0..20).map(|_| client.post(over_h1.url("/")).header("x-hangs", "1").body("an order").send());
    let ended = futures_util::future::join_all(hung).await;
    assert!(ended.iter().all(Result::is_err));
    let snapshot = client.snapshot();
    let its = snapshot.iter().find(|upstream| over_h1.url("/").starts_with(&*upstream.name)).unwrap();
    assert_eq!(its.breaker.state, State::Open, "{:?}", its.breaker);
}
