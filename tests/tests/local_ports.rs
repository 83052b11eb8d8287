//! A client has only so many local ports for connections to one address. When they have run out,
//! that is this machine's doing and says nothing about the server.

#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use http::Method;
use resilient_client::hyper::Client as OverHyper;
use resilient_client::{Client, Policy};
use resilient_client_tests::crowd::{Any, Work};
use resilient_client_tests::server::Accept;
use resilient_client_tests::{Heard, Reply, Server, clock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

const NAME: &str = "local_ports_that_have_run_out_are_not_the_servers_failure";
/// Set in a process that only holds ports.
const HOLD: &str = "RESILIENT_CLIENT_TEST_HOLD";
const EMFILE: i32 = 24;
const EADDRINUSE: i32 = 98;
const EADDRNOTAVAIL: i32 = 99;

/// Connects as often as this process may, and says why it stopped.
///
/// Linux gives a socket that only connects the ports of one parity first, and one that is bound
/// before those of the other: taking both by turns spares it from looking through all that are
/// taken.
async fn hold(server: SocketAddr) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let (mut held, mut binds) = (Vec::new(), true);
    let error = loop {
        let bound = binds && held.len() % 2 == 1;
        match connect(server, bound).await {
            Ok(mut stream) => {
                // Both ends are gone at once when this process is.
                stream.set_zero_linger().unwrap();
                // No faster than they are accepted: the server closes each.
                if held.len() % 256 == 0 {
                    let _ = stream.read(&mut [0]).await;
                }
                held.push(stream);
            }
            Err(error) if error.raw_os_error() == Some(EADDRINUSE) => binds = false,
            Err(error) => break error,
        }
    };
    println!("\nheld {} {}", held.len(), error.raw_os_error().unwrap_or_default());
    let _ = std::io::stdin().read_line(&mut String::new());
    // Nobody reads what the harness would say.
    std::process::exit(0);
}

async fn connect(server: SocketAddr, bound: bool) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v6()?;
    if bound {
        socket.bind((server.ip(), 0).into())?;
    }
    socket.connect(server).await
}

/// A process that holds as many ports as it may, and whether that were all there were.
fn holder(address: SocketAddr) -> (Child, usize, bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(HOLD, address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let held = said.find_map(|line| line.strip_prefix("held ").map(str::to_owned));
    let held = held.expect("a holder says what it holds");
    let (count, code) = held.split_once(' ').unwrap();
    let code: i32 = code.parse().unwrap();
    assert!([EMFILE, EADDRNOTAVAIL].contains(&code), "os error {code}");
    (child, count.parse().unwrap(), code == EADDRNOTAVAIL)
}

/// Ours, with sockets bound to this address before they connect.
fn bound_to(address: IpAddr) -> [Any; 2] {
    let (one, other) = (Heard::new(), Heard::new());
    let reqwest = Client::builder().observer(one.clone());
    let reqwest = reqwest.transport(move |transport| transport.no_proxy().local_address(address));
    let hyper = OverHyper::builder().observer(other.clone());
    let hyper = hyper.sockets(move |sockets| sockets.set_local_address(Some(address)));
    [Any::Reqwest(reqwest.build().unwrap(), one), Any::Hyper(hyper.build().unwrap(), other)]
}

/// Other processes hold every port from which this machine could connect to the server. They hold
/// them at `::1`, where nobody else misses them: at 127.0.0.1 no other test could listen meanwhile.
#[test]
fn local_ports_that_have_run_out_are_not_the_servers_failure() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(address) = std::env::var(HOLD) {
        return runtime.block_on(hold(address.parse().unwrap()));
    }
    let local = IpAddr::from(Ipv6Addr::LOCALHOST);
    if std::net::TcpListener::bind((local, 0)).is_err() {
        return println!("no IPv6 here, so nothing is shown");
    }
    let server = runtime.block_on(Server::start_at(local, |_| Reply::answer(200, "ok")));
    server.on_accept(Accept::Close);
    let (begun, mut holders) = (clock::now(), Vec::new());
    loop {
        let (child, held, all) = holder(server.address());
        println!("held {held} more after {:?}", begun.elapsed());
        assert!(held > 100, "so few that it would take ever so many processes");
        holders.push(child);
        if all {
            break;
        }
    }
    server.on_accept(Accept::Serve);
    let [one, other] = bound_to(local);
    let clients = Any::all(false, &Policy::standard()).into_iter().chain([one, other]);
    let clients: Vec<_> = clients.zip(["99", "99", "99", "98", "98"]).collect();
    for (client, code) in &clients {
        let tally = runtime.block_on(Work::of(Method::GET, 20, 1).over(client, &server.url("/")));
        println!("{}: {}, {} counted, {:?}", client.name(), tally.said(), client.counted(), begun.elapsed());
        assert_eq!((tally.served, server.count()), (0, 0));
        let code = format!("os error {code}");
        assert!(tally.failed.iter().all(|said| said.contains(&code)), "{}", tally.said());
        assert_eq!((client.counted(), client.transitions()), (0, 0), "{}", client.name());
    }
    for mut holder in holders {
        drop(holder.stdin.take());
        assert!(holder.wait().unwrap().success());
    }
    for (client, _) in &clients {
        let after = runtime.block_on(Work::of(Method::GET, 1, 20).over(client, &server.url("/")));
        assert_eq!((after.served, client.transitions()), (20, 0), "{}: {}", client.name(), after.said());
    }
    println!("done after {:?}", begun.elapsed());
}
