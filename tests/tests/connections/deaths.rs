//! Connections that expire while idle, are restarted under their callers, or die.

use super::*;

/// HTTP/1.1, answering everything, closing what has been idle for `idle`.
struct Plain {
    address: std::net::SocketAddr,
    accepting: JoinHandle<()>,
}

impl Plain {
    async fn start(address: &str, idle: Duration, lives: Option<Duration>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                connections.spawn(async move {
                    let served = serve_plain(stream, idle);
                    match lives {
                        Some(lives) => drop(tokio::time::timeout(lives, served).await),
                        None => served.await,
                    }
                });
            }
        });
        Self { address, accepting }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve_plain(mut stream: TcpStream, idle: Duration) {
    let mut unread = Vec::new();
    loop {
        let mut piece = [0; 1024];
        match tokio::time::timeout(idle, stream.read(&mut piece)).await {
            Ok(Ok(read @ 1..)) => unread.extend_from_slice(&piece[..read]),
            _ => return,
        }
        let Some(end) = unread.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&unread[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let whole = end + 4 + length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
        if unread.len() < whole {
            continue;
        }
        unread.drain(..whole);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// No call is lost but those that were on a connection when that broke. How many POSTs that are is
/// chance, for bare reqwest too, so that counts of two runs can't be compared.
fn only_what_was_in_doubt_is_lost(client: &Any, work: &Work, tally: &Tally) {
    println!("{} {}: {}", client.name(), work.method, tally.said());
    if client.is_bare() {
        return;
    }
    let lost = tally.in_doubt + tally.beyond_help(client);
    assert_eq!(tally.failed.len(), lost, "{}: {}", client.name(), tally.said());
    assert_eq!(client.transitions(), 0, "{}: {}", client.name(), tally.said());
}

/// Bursts come just when the connections of the one before have been idle for as long as the server
/// keeps them.
async fn bursts_at_expiring_connections(work: Work) {
    let mut served = Vec::new();
    for client in Any::all(false, &Policy::standard()) {
        let server = Plain::start("127.0.0.1:0", Duration::from_millis(50), None).await;
        let mut all = Tally::default();
        for _ in 0..14 {
            all.add(work.over(&client, &server.url()).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        only_what_was_in_doubt_is_lost(&client, &work, &all);
        served.push(all.served);
    }
    let [bare, ours @ ..] = &*served else { panic!("three clients") };
    // On a busy machine a GET may meet more dead connections than it has attempts, or than there
    // are tokens: reqwest doesn't say that they were old ones. Bare has lost ten times as many by
    // then.
    assert!(work.method == Method::POST || ours.iter().all(|ours| ours + 10 >= *bare), "{served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_in_bursts_survive_idle_connections_that_expire() {
    bursts_at_expiring_connections(Work::of(Method::GET, 40, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_in_bursts_lose_to_idle_connections_that_expire_only_what_is_in_doubt() {
    bursts_at_expiring_connections(Work::of(Method::POST, 40, 1).body("an order")).await;
}

/// All connections end at once, and for 20 ms nobody listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_costs_no_more_calls_than_it_interrupts() {
    let mut served = Vec::new();
    for client in Any::all(false, &Policy::standard()) {
        let server = Plain::start("127.0.0.1:0", LONG, None).await;
        let (url, address) = (server.url(), server.address.to_string());
        let restarted = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(server);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let again = Plain::start(&address, LONG, None).await;
            tokio::time::sleep(LONG).await;
            drop(again);
        });
        let work = Work::of(Method::GET, 48, 60).pause(Duration::from_millis(20));
        let tally = work.over(&client, &url).await;
        restarted.abort();
        println!("{}: {}", client.name(), tally.said());
        assert_eq!(client.transitions(), 0, "{}: {}", client.name(), tally.said());
        served.push(tally.served);
    }
    let [bare, ours @ ..] = &*served else { panic!("three clients") };
    assert!(ours.iter().all(|ours| ours >= bare), "{served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_die_now_and_then_cost_the_calls_on_them() {
    for (http2, method, body) in
        [(true, Method::GET, ""), (true, Method::POST, "an order"), (false, Method::POST, "an order")]
    {
        let lives = Duration::from_millis(500);
        let work = Work::of(method, 60, 40).body(body).pause(Duration::from_millis(40));
        for client in Any::all(http2, &Policy::standard()) {
            let manners = Manners { dies_after: Some(lives), ..Manners::default() };
            let tally = if http2 {
                let server = H2Peer::start(manners).await;
                work.over(&client, &server.url("/")).await
            } else {
                let server = Plain::start("127.0.0.1:0", LONG, Some(lives)).await;
                work.over(&client, &server.url()).await
            };
            only_what_was_in_doubt_is_lost(&client, &work, &tally);
            let lost = client.is_bare() || work.method == Method::POST;
            let settled = tally.served + tally.beyond_help(&client);
            assert!(lost || settled == work.calls(), "{}: {}", client.name(), tally.said());
        }
    }
}

/// Counts those who wait, and says when they are all there.
#[derive(Clone, Default)]
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn for_so_many(&self, requests: usize) {
        self.0.store(requests, Ordering::SeqCst);
    }

    /// Nobody is waited for, this is not the last, or it is.
    fn one_more(&self) -> Option<bool> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.ok().map(|left| left == 1)
    }
}

/// Here nothing is left to chance: in each tenth burst the server reads every request, answers
/// none, and is gone. Bare reqwest loses exactly those; ours no more of the POSTs, and no GET.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_of_all_connections_costs_the_posts_on_them_as_it_costs_bare_reqwest_and_no_get() {
    const CALLERS: usize = 50;
    const DEATHS: usize = 4;
    for (http2, method, body) in [
        (true, Method::GET, ""),
        (true, Method::POST, "an order"),
        (false, Method::GET, ""),
        (false, Method::POST, "an order"),
    ] {
        let work = Work::of(method.clone(), CALLERS, 1).body(body);
        for client in Any::all(http2, &Policy::standard()) {
            let (waiting, gate) = (Waiting::default(), Arc::new(Mutex::new(Gate::new())));
            let (wait, shut) = (waiting.clone(), Arc::clone(&gate));
            let over_2 = H2Server::start(move |_| match wait.one_more() {
                None => Act::Answer("done"),
                Some(false) => Act::Nothing,
                Some(true) => Act::Close,
            });
            let wait = waiting.clone();
            let over_1 = Server::start(move |_| {
                let shut = shut.lock().unwrap();
                match wait.one_more() {
                    None => return Reply::answer(200, "done"),
                    Some(false) => {}
                    Some(true) => shut.open(),
                }
                Reply::nothing().then_wait(&shut).then_close()
            });
            let (over_1, over_2) = (over_1.await, over_2.await);
            let url = if http2 { over_2.url("/") } else { over_1.url("/") };
            let mut all = Tally::default();
            for nth in 1..=10 * DEATHS {
                if nth % 10 == 0 {
                    *gate.lock().unwrap() = Gate::new();
                    waiting.for_so_many(CALLERS);
                }
                all.add(work.over(&client, &url).await);
            }
            only_what_was_in_doubt_is_lost(&client, &work, &all);
            let lost = if client.is_bare() || method == Method::POST { DEATHS * CALLERS } else { 0 };
            assert_eq!(all.failed.len(), lost, "{} {method}: {}", client.name(), all.said());
        }
    }
}
