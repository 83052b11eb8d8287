use super::*;

const MS: Duration = Duration::from_millis(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_comes_and_goes_on_an_open_connection_in_either_direction() {
    let api = Api::start().await;
    let mut open = TcpStream::connect(api.proxy("users").await).await.unwrap();
    round_trip(&mut open, b"hello").await.unwrap();
    for stream in ["upstream", "downstream"] {
        let latency = json!({ "type": "latency", "stream": stream, "attributes": { "latency": 200 } });
        api.add("users", latency).await;
    }
    assert!(round_trip(&mut open, b"hello").await.unwrap() >= 400 * MS);
    let less = json!({ "attributes": { "latency": 0 } });
    api.ask("PATCH", "/proxies/users/toxics/latency_upstream", Some(less)).await;
    let took = round_trip(&mut open, b"hello").await.unwrap();
    assert!(took >= 200 * MS, "{took:?}");
    let path = "/proxies/users/toxics/latency_downstream";
    assert_eq!(api.ask("DELETE", path, None).await.0, 204);
    // What it holds goes on when it is gone, too.
    let latency = json!({ "type": "latency", "attributes": { "latency": 3_000_000 } });
    api.add("users", latency).await;
    open.write_all(b"hello").await.unwrap();
    tokio::time::sleep(50 * MS).await;
    api.ask("DELETE", path, None).await;
    tokio::time::timeout(SOON, open.read_exact(&mut [0; 5])).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_through_unharmed_is_what_came() {
    let api = Api::start().await;
    let listen = api.proxy("users").await;
    let slices = json!({ "average_size": 3_000, "size_variation": 2_999, "delay": 10 });
    api.add("users", json!({ "type": "slicer", "attributes": slices })).await;
    let jitter = json!({ "latency": 5, "jitter": 5 });
    api.add("users", json!({ "type": "latency", "stream": "upstream", "attributes": jitter })).await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(n) / 7) as u8).collect();
    round_trip(&mut TcpStream::connect(listen).await.unwrap(), &bytes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bandwidth_takes_its_time() {
    let api = Api::start().await;
    let listen = api.proxy("users").await;
    api.add("users", json!({ "type": "bandwidth", "attributes": { "rate": 100 } })).await;
    let took = round_trip(&mut TcpStream::connect(listen).await.unwrap(), &vec![7; 50_000]).await.unwrap();
    assert!(took >= 400 * MS, "50 kB at 100 kB/s: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_swallows_everything_and_closes_or_lets_go_when_it_is_taken_away() {
    let api = Api::start().await;
    let listen = api.proxy("users").await;
    api.add("users", json!({ "type": "timeout", "attributes": { "timeout": 0 } })).await;
    let mut open = TcpStream::connect(listen).await.unwrap();
    open.write_all(b"lost").await.unwrap();
    tokio::time::timeout(100 * MS, open.read(&mut [0; 9])).await.unwrap_err();
    api.ask("DELETE", "/proxies/users/toxics/timeout_downstream", None).await;
    round_trip(&mut open, b"hello").await.unwrap();
    api.add("users", json!({ "type": "timeout", "attributes": { "timeout": 100 } })).await;
    assert_eq!(tokio::time::timeout(SOON, open.read(&mut [0; 9])).await.unwrap().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_a_reset() {
    let api = Api::start().await;
    let listen = api.proxy("users").await;
    let mut open = TcpStream::connect(listen).await.unwrap();
    round_trip(&mut open, b"hello").await.unwrap();
    api.add("users", json!({ "type": "reset_peer", "attributes": { "timeout": 0 } })).await;
    let error = tokio::time::timeout(SOON, open.read(&mut [0; 9])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_closes_after_its_bytes() {
    let api = Api::start().await;
    let listen = api.proxy("users").await;
    api.add("users", json!({ "type": "limit_data", "attributes": { "bytes": 3 } })).await;
    let mut open = TcpStream::connect(listen).await.unwrap();
    open.write_all(b"hello").await.unwrap();
    let mut back = Vec::new();
    tokio::time::timeout(SOON, open.read_to_end(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, b"hel");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_closes_and_the_other_hears_of_it_later() {
    let api = Api::start().await;
    let listen = api.proxy("users").await;
    api.add("users", json!({ "type": "slow_close", "attributes": { "delay": 300 } })).await;
    let mut open = TcpStream::connect(listen).await.unwrap();
    round_trip(&mut open, b"hello").await.unwrap();
    let begun = now();
    open.shutdown().await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, open.read(&mut [0; 9])).await.unwrap().unwrap(), 0);
    assert!(begun.elapsed() >= 300 * MS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_sent_before_it_closed_its_side_still_arrives() {
    let api = Api::start().await;
    let listen = api.proxy("users").await;
    api.add("users", json!({ "type": "latency", "attributes": { "latency": 100 } })).await;
    let mut open = TcpStream::connect(listen).await.unwrap();
    open.write_all(b"hello").await.unwrap();
    open.shutdown().await.unwrap();
    let mut back = Vec::new();
    tokio::time::timeout(SOON, open.read_to_end(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_not_there_closes_the_client() {
    let api = Api::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let body = json!({ "name": "gone", "upstream": nobody.to_string() });
    let (_, proxy) = api.ask("POST", "/proxies", Some(body)).await;
    let mut open = TcpStream::connect(proxy["listen"].as_str().unwrap()).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, open.read(&mut [0; 9])).await.unwrap().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toxicity_of_a_half_is_for_about_half_of_the_connections() {
    let api = Api::start().await;
    let listen = api.proxy("users").await;
    api.add("users", json!({ "type": "reset_peer", "toxicity": 0.5 })).await;
    let mut reset = 0;
    for _ in 0..200 {
        // The reset may be here before connecting is over.
        let asked = async { round_trip(&mut TcpStream::connect(listen).await?, b"hello").await };
        reset += usize::from(asked.await.is_err());
    }
    // Seven standard deviations.
    assert!((50..150).contains(&reset), "{reset}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_upstream_answers_before_it_stops_reading_arrives() {
    let api = Api::start().await;
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let body = json!({ "name": "early", "upstream": upstream.local_addr().unwrap().to_string() });
    let (_, proxy) = api.ask("POST", "/proxies", Some(body)).await;
    api.add("early", json!({ "type": "latency", "attributes": { "latency": 300 } })).await;
    let mut open = TcpStream::connect(proxy["listen"].as_str().unwrap()).await.unwrap();
    let (mut served, _) = upstream.accept().await.unwrap();
    served.write_all(b"too large").await.unwrap();
    tokio::time::sleep(50 * MS).await;
    drop(served);
    let mut back = Vec::new();
    let (mut from, mut to) = open.split();
    let upload = async {
        while to.write_all(&vec![7; 65_536]).await.is_ok() {
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    };
    let answered = async {
        let mut nine = [0; 9];
        from.read_exact(&mut nine).await.unwrap();
        back.extend(nine);
    };
    tokio::select! {
        () = upload => {}
        answered = tokio::time::timeout(SOON, answered) => answered.unwrap(),
    }
    assert_eq!(back, b"too large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_passes_on_as_a_reset_behind_what_came_before_it() {
    let api = Api::start().await;
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let body = json!({ "name": "resets", "upstream": upstream.local_addr().unwrap().to_string() });
    let (_, proxy) = api.ask("POST", "/proxies", Some(body)).await;
    let mut open = TcpStream::connect(proxy["listen"].as_str().unwrap()).await.unwrap();
    let (mut served, _) = upstream.accept().await.unwrap();
    served.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    tokio::time::timeout(SOON, open.read_exact(&mut half)).await.unwrap().unwrap();
    served.set_zero_linger().unwrap();
    drop(served);
    let error = tokio::time::timeout(SOON, open.read(&mut half)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
