//! A connection that takes long to come about, and those who wait for it.

use super::*;

/// Passes connections on. Those begun before `ends` is open end then; each begun later takes 300 ms
/// to come about.
async fn slow_to_reconnect(to: String, ends: Gate, accepted: Watched<usize>) -> (String, JoinHandle<()>) {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", front.local_addr().unwrap());
    let passing = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = front.accept().await {
            accepted.change(|accepted| *accepted += 1);
            let (to, ends) = (to.clone(), ends.clone());
            connections.spawn(async move {
                let slow = ends.is_open();
                if slow {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                let Ok(mut server) = TcpStream::connect(to).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    () = ends.pass(), if !slow => {}
                }
            });
        }
    });
    (url, passing)
}

/// A caller with little time begins the connection that others wait for: the client's first, or the
/// one after a warm connection has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_survive_the_one_who_began_the_connection_that_they_wait_for() {
    use resilient_client_tests::tls::Tls;

    let tls = Tls::new();
    let server = H2Server::start_tls(|_| Act::Answer("done"), tls.acceptor("h2")).await;
    let to = server.url("/").trim_start_matches("https://").trim_end_matches('/').to_owned();
    for (warm, client) in
        [false, true].into_iter().flat_map(|warm| Any::over_tls(&tls).map(|client| (warm, client)))
    {
        let (ends, accepted) = (Gate::new(), Watched::default());
        let (url, passing) = slow_to_reconnect(to.clone(), ends.clone(), accepted.clone()).await;
        if warm {
            let before = Work::of(Method::POST, 4, 5).body("an order").over(&client, &url).await;
            assert_eq!(before.served, 20, "{}", before.said());
        }
        let before = accepted.read(|accepted| *accepted);
        ends.open();
        let (hasty, its, begins) = (client.clone(), url.clone(), accepted.clone());
        let hasty = tokio::spawn(async move {
            // Until the client has seen that the warm one has ended, calls may be lost on that.
            loop {
                let call = hasty.call(Method::GET, &its, 0, "");
                let ended = tokio::time::timeout(Duration::from_millis(100), call).await;
                if begins.read(|accepted| *accepted > before) {
                    break ended;
                }
            }
        });
        within(SOON, accepted.until(|accepted| *accepted > before)).await;
        let begun = clock::now();
        let work = Work::of(Method::POST, 40, 1).body("an order");
        let tally = within(LONG, work.over(&client, &url)).await;
        let took = begun.elapsed();
        let haste = hasty.await.unwrap();
        let after = Work::of(Method::POST, 20, 1).body("an order").over(&client, &url).await;
        println!("{} warm {warm}: {} in {took:?}; afterwards {}", client.name(), tally.said(), after.said());
        let served = (tally.served, after.served, client.transitions());
        assert!(client.is_bare() || haste.is_err(), "it had too little time");
        assert!(client.is_bare() || served == (40, 20, 0), "{}: {}", client.name(), tally.said());
        assert!(client.is_bare() || took < Duration::from_secs(2), "{}: {took:?}", client.name());
        passing.abort();
    }
}
