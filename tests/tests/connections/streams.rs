//! A server in good order: it leaves connections after so many streams, and allows fewer streams
//! than are asked of it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leaves_each_connection_after_200_streams_loses_no_call() {
    let manners = Manners { leaves_after: Some(200), ..Manners::default() };
    everyone_is_served(manners, Work::of(Method::GET, 64, 50)).await;
    everyone_is_served(manners, Work::of(Method::POST, 64, 50).body("an order")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leaves_each_connection_after_1000_streams_loses_no_call() {
    let manners = Manners { leaves_after: Some(1000), ..Manners::default() };
    everyone_is_served(manners, Work::of(Method::GET, 64, 60)).await;
}

/// The server allows ten streams and says so 30 ms late; by then forty have been opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_burst_beyond_the_streams_allowed_is_served_whole() {
    let manners = Manners {
        streams: Some(10),
        late: Duration::from_millis(30),
        takes: Duration::from_millis(20),
        ..Manners::default()
    };
    everyone_is_served(manners, Work::of(Method::GET, 40, 2)).await;
    everyone_is_served(manners, Work::of(Method::POST, 40, 2).body("an order")).await;
}

/// Each waits 4 s at most for its stream, longer than an attempt may take; the server needs 20 ms
/// for each. (Of a request with content nobody can see over reqwest whether it waits: it is given
/// its time twice.) They come before the server has said what it allows, so that nobody knows for
/// sure who waits: over reqwest a GET of which that isn't known goes over a connection of its own
/// in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_wait_for_the_one_stream_allowed_are_all_served() {
    let served = async |client: Any, method: Method, body| {
        let server = H2Peer::start(Manners {
            streams: Some(1),
            takes: Duration::from_millis(20),
            ..Manners::default()
        })
        .await;
        let begun = clock::now();
        let tally = Work::of(method.clone(), 200, 1).body(body).over(&client, &server.url("/")).await;
        let connections = server.seen().read(|seen| seen.connections);
        let took = begun.elapsed();
        println!("{} {method}: {}, {connections} connections, {took:?}", client.name(), tally.said());
        if matches!(client, Any::Reqwest(..)) && !body.is_empty() && took > Duration::from_secs(6) {
            println!("a machine this slow shows nothing of who is given twice the time");
            return;
        }
        let all = (tally.served, client.transitions());
        assert_eq!(all, (200, 0), "{} {method}: {}", client.name(), tally.said());
        // The breaker hasn't heard of the wait at all.
        assert_eq!(client.counted(), 0, "{} {method}", client.name());
    };
    let hyper = || Any::hyper(true, &Policy::standard());
    let reqwest = || Any::reqwest(true, &Policy::standard());
    tokio::join!(
        served(hyper(), Method::GET, ""),
        served(hyper(), Method::POST, "an order"),
        served(reqwest(), Method::GET, ""),
        served(reqwest(), Method::POST, ""),
        served(reqwest(), Method::POST, "an order"),
    );
}

/// Its report blamed the server for the wait, which no machine and no event did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_runs_out_of_time_waiting_for_a_stream_reports_what_its_events_say() {
    let reported = async |client: Any, heard: Heard| {
        let server =
            H2Peer::start(Manners { streams: Some(1), takes: Duration::from_secs(2), ..Manners::default() })
                .await;
        // The server's settings are known from here on.
        client.call(Method::GET, &server.url("/"), 0, "").await.unwrap();
        let (busy, url) = (client.clone(), server.url("/"));
        let busy = tokio::spawn(async move { busy.call(Method::GET, &url, 0, "").await });
        server.seen().until(|seen| seen.taken.values().sum::<usize>() == 2).await;
        let (url, time) = (server.url("/"), Duration::from_millis(600));
        let error = match &client {
            Any::Reqwest(client, _) => client.get(url).timeout(time).send().await.unwrap_err(),
            Any::Hyper(client, _) => client.get(url).timeout(time).send().await.unwrap_err(),
            Any::Bare(_) => unreachable!("it has no report"),
        };
        let reported = error.report().unwrap().attempts()[0].outcome().unwrap();
        let told = heard.outcomes().last().copied();
        assert_eq!((reported, told), (Outcome::Abandoned, Some(Outcome::Abandoned)), "{}", client.name());
        drop(busy);
    };
    within(SOON, async {
        for client in Any::all(true, &Policy::standard()) {
            if let Any::Reqwest(_, heard) | Any::Hyper(_, heard) = &client {
                reported(client.clone(), heard.clone()).await;
            }
        }
    })
    .await;
}

/// The server takes one more request on its only connection, and leaves: thirty calls were on their
/// way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_calls_on_a_warm_connection_survive_its_goaway() {
    for client in Any::all(true, &Policy::standard()) {
        for _ in 0..5 {
            let server = H2Server::start(|request| match (request.connection, request.stream) {
                (1, 3) => Act::GoAway { last: 1, code: NO_ERROR },
                (1, 5..) => Act::Nothing,
                _ => Act::Answer("done"),
            })
            .await;
            client.call(Method::GET, &server.url("/"), 0, "").await.unwrap();
            let tally = Work::of(Method::POST, 30, 1).body("an order").over(&client, &server.url("/")).await;
            let settled = tally.served + tally.beyond_help(&client);
            assert_eq!((settled, client.transitions()), (30, 0), "{}: {}", client.name(), tally.said());
        }
    }
}

/// As nginx does by default, though after 1000: the last answer of a connection, one GOAWAY, and
/// nothing above is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_at_a_server_that_ends_connections_after_so_many_requests_are_served_whole() {
    for client in Any::all(true, &Policy::standard()) {
        let server = H2Server::start(|request| match request.stream {
            ..199 => Act::Answer("done"),
            _ => Act::AnswerLast("done"),
        })
        .await;
        let mut all = Tally::default();
        for _ in 0..30 {
            all.add(Work::of(Method::POST, 30, 1).body("an order").over(&client, &server.url("/")).await);
        }
        let (served, said) = (all.served, all.said());
        println!("{}: {served} served, {} excluded", client.name(), server.seen().read(|seen| seen.excluded));
        let settled = served + all.beyond_help(&client);
        assert_eq!((settled, client.transitions()), (900, 0), "{}: {said}", client.name());
        let taken = server.seen().read(|seen| seen.requests.len());
        assert_eq!(taken, served, "{}: nothing was taken twice", client.name());
    }
}
