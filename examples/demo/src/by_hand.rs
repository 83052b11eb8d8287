//! `cargo demo fault` and `cargo demo toxic`: break the demo that another terminal holds.
//!
//! ```text
//! cargo demo fault ──> fault kit's admin route, at each user-service   (by the token in the handle)
//! cargo demo toxic ──> Toxiproxy's API, at the held demo               (proxies between the services)
//! ```
//!
//! Neither knows more than any client of the two: what it sends, curl can send.

mod handle;
mod words;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use self::handle::{Handle, directory};
use self::words::{Fault, Toxic};
use crate::Problem;
use crate::stage::say;

/// How long the held demo may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// What `cargo demo fault` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
user-service is all of them, user-service-2 the second. Kinds and their values:
  delay 500ms, abort 503, hang, reset-before-head, reset-after-head,
  truncate BYTES, trickle BYTES EVERY, garbage, wrong-page 404
A share is of requests. What is set takes the place of what was.
  cargo demo fault user-service delay 500ms 30%
  cargo demo fault clear")]
pub(crate) struct FaultArgs {
    // Not a comment for rustdoc, which would take the brackets for links.
    #[arg(value_name = "WHAT", help = "SERVICE KIND [VALUE] [SHARE], or `list`, or `clear`")]
    what: Vec<String>,
    /// Beside what is in force: the first that takes a request has it
    #[arg(long)]
    also: bool,
    /// Which held demo, by its pid, if there are several
    #[arg(long, value_name = "PID")]
    to: Option<u32>,
}

/// What `cargo demo toxic` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Kinds and their values:
  latency 200ms [JITTER], timeout [500ms], reset-peer [500ms], bandwidth KB/S,
  limit-data BYTES, slow-close 500ms, slicer BYTES [GIVE OR TAKE] [100us]
A share is of connections. Another of the same kind and direction replaces it.
  cargo demo toxic latency 200ms --upstream
  cargo demo toxic clear")]
pub(crate) struct ToxicArgs {
    // Not a comment for rustdoc, which would take the brackets for links.
    #[arg(value_name = "WHAT", help = "KIND [VALUE] [SHARE], or `list`, or `clear`")]
    what: Vec<String>,
    /// What order-service sends, rather than what it is answered
    #[arg(long)]
    upstream: bool,
    /// Which held demo, by its pid, if there are several
    #[arg(long, value_name = "PID")]
    to: Option<u32>,
}

/// Why nothing was broken.
#[derive(Debug)]
pub(crate) enum Unbroken {
    /// No demo is held by this user.
    NoDemo,
    /// None of this pid.
    NoSuchDemo(u32),
    /// Several are, of these pids.
    Several(Vec<u32>),
    /// Somebody doesn't answer.
    Silent(String, reqwest::Error),
    /// Somebody answers something else.
    Unclear(&'static str, serde_json::Error),
    /// Somebody won't; why.
    Refused { who: &'static str, status: StatusCode, why: String },
}

impl fmt::Display for Unbroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDemo => {
                f.write_str("no demo is held here: start one in another terminal with `cargo demo --hold`")
            }
            Self::NoSuchDemo(pid) => write!(f, "no demo with the pid {pid} is held here"),
            Self::Several(pids) => write!(f, "several demos are held: choose one with --to, of {pids:?}"),
            Self::Silent(who, error) if error.is_timeout() => {
                write!(f, "{who} doesn't answer: is it stopped (kill -CONT)?")
            }
            Self::Silent(who, _) => write!(f, "{who} can't be reached: is it dead?"),
            Self::Unclear(who, _) => write!(f, "{who} answers what can't be read"),
            Self::Refused { who, why, .. } => write!(f, "{who} refuses it: {why}"),
        }
    }
}

impl std::error::Error for Unbroken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Silent(_, error) => Some(error),
            Self::Unclear(_, error) => Some(error),
            Self::NoDemo | Self::NoSuchDemo(_) | Self::Several(_) | Self::Refused { .. } => None,
        }
    }
}

/// Changes or lists the faults, and says what is in force then. One that doesn't answer, as it may
/// be broken already, keeps nobody from the others.
pub(crate) async fn fault(args: FaultArgs) -> Result<(), Problem> {
    let hand = Hand::on(args.to)?;
    let asked = words::fault(&args.what, hand.demo.faults.len())?;
    let mut silent = Vec::new();
    for (index, url) in hand.demo.faults.iter().enumerate() {
        if matches!(asked, Fault::Set(Some(only), _) if only != index) {
            continue;
        }
        let name = format!("user-service-{}", index + 1);
        match hand.fault(&asked, args.also, url).await {
            Ok(state) => say(&format!("{name}: {}", state.told()))?,
            Err(Unbroken::Silent(_, error)) => silent.push(Unbroken::Silent(name, error).to_string()),
            Err(refused) => return Err(refused.into()),
        }
    }
    if silent.is_empty() { Ok(()) } else { Err(silent.join("\ndemo: ").into()) }
}

/// Changes or lists the toxics, and says which there are then.
pub(crate) async fn toxic(args: ToxicArgs) -> Result<(), Problem> {
    let hand = Hand::on(args.to)?;
    let asked = words::toxic(&args.what)?;
    match asked {
        Toxic::List => {}
        Toxic::Clear => drop(hand.toxiproxy(Method::POST, "/reset", None).await?),
        Toxic::Add(mut spec) => {
            let stream = if args.upstream { "upstream" } else { "downstream" };
            let name = format!("{}_{stream}", spec["type"].as_str().unwrap_or_default());
            spec["stream"] = stream.into();
            for proxy in hand.proxies().await? {
                hand.poison(&proxy.name, &name, &spec).await?;
            }
        }
    }
    for proxy in hand.proxies().await? {
        say(&format!("{}: {}", proxy.name, list(&proxy.toxics)))?;
    }
    Ok(())
}

/// What a hand reaches.
struct Hand {
    demo: Handle,
    http: reqwest::Client,
}

/// What is in force at a user-service.
#[derive(Deserialize)]
struct Faults {
    rules: Vec<Value>,
    counts: Vec<Counts>,
}

#[derive(Deserialize)]
struct Counts {
    matched: u64,
    injected: u64,
}

#[derive(Deserialize)]
struct Proxy {
    name: String,
    toxics: Vec<Value>,
}

impl Faults {
    fn told(&self) -> String {
        if self.rules.is_empty() {
            return "well".to_owned();
        }
        let mut out = String::new();
        for (rule, Counts { matched, injected }) in self.rules.iter().zip(&self.counts) {
            let _ = write!(out, "\n  {rule}  hit {injected} of {matched}");
        }
        out
    }
}

fn list(toxics: &[Value]) -> String {
    if toxics.is_empty() {
        return "no toxic".to_owned();
    }
    toxics.iter().fold(String::new(), |list, toxic| list + &format!("\n  {toxic}"))
}

impl Hand {
    fn on(pid: Option<u32>) -> Result<Self, Problem> {
        let demo = choose(handle::find(), pid)?;
        let http = reqwest::Client::builder().timeout(LIMIT).no_proxy().build()?;
        Ok(Self { demo, http })
    }

    /// What is asked, of one user-service.
    async fn fault(&self, asked: &Fault, also: bool, url: &str) -> Result<Faults, Unbroken> {
        match asked {
            Fault::List => self.faults(Method::GET, url, None).await,
            Fault::Clear => self.faults(Method::DELETE, url, None).await,
            Fault::Set(_, rule) => {
                // Not put back with those that were read: somebody may add some meanwhile.
                let method = if also { Method::POST } else { Method::PUT };
                self.faults(method, url, Some(rule)).await
            }
        }
    }

    async fn faults(&self, method: Method, url: &str, rule: Option<&Value>) -> Result<Faults, Unbroken> {
        let request = self.http.request(method, url).bearer_auth(&self.demo.token);
        read("user-service", answered("user-service", with(request, rule)).await?).await
    }

    async fn toxiproxy(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, Unbroken> {
        let request = self.http.request(method, format!("{}{path}", self.demo.toxics));
        answered("the proxy", with(request, body)).await
    }

    /// One more toxic, or the one of its name changed. Changed and not taken away before: what is
    /// refused leaves it as it was. Tried and not looked for before: somebody may add it meanwhile.
    async fn poison(&self, proxy: &str, name: &str, spec: &Value) -> Result<(), Unbroken> {
        let toxics = format!("/proxies/{proxy}/toxics");
        match self.toxiproxy(Method::POST, &toxics, Some(spec)).await {
            Err(Unbroken::Refused { status: StatusCode::CONFLICT, .. }) => {
                self.toxiproxy(Method::POST, &format!("{toxics}/{name}"), Some(spec)).await
            }
            tried => tried,
        }
        .map(drop)
    }

    async fn proxies(&self) -> Result<Vec<Proxy>, Unbroken> {
        let answer = self.toxiproxy(Method::GET, "/proxies", None).await?;
        let all: BTreeMap<String, Proxy> = read("the proxy", answer).await?;
        Ok(all.into_values().collect())
    }
}

fn choose(held: Vec<Handle>, pid: Option<u32>) -> Result<Handle, Unbroken> {
    let pids: Vec<_> = held.iter().map(|handle| handle.pid).collect();
    let mut chosen = held.into_iter().filter(|handle| pid.is_none_or(|pid| pid == handle.pid));
    match (chosen.next(), chosen.next(), pid) {
        (Some(only), None, _) => Ok(only),
        (Some(_), Some(_), _) => Err(Unbroken::Several(pids)),
        (None, _, None) => Err(Unbroken::NoDemo),
        (None, _, Some(pid)) => Err(Unbroken::NoSuchDemo(pid)),
    }
}

fn with(request: RequestBuilder, body: Option<&impl serde::Serialize>) -> RequestBuilder {
    match body {
        Some(body) => request.json(body),
        None => request,
    }
}

/// The answer, if it is no refusal.
async fn answered(who: &'static str, request: RequestBuilder) -> Result<Response, Unbroken> {
    let answer = request.send().await.map_err(|error| Unbroken::Silent(who.to_owned(), error))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let said: Value = answer.json().await.unwrap_or_else(|_| json!({}));
    let why = why(&said).unwrap_or_else(|| status.to_string());
    Err(Unbroken::Refused { who, status, why })
}

/// What an answer says. One that breaks off, or takes too long, is of somebody who is silent.
async fn read<T: DeserializeOwned>(who: &'static str, answer: Response) -> Result<T, Unbroken> {
    let text = answer.bytes().await.map_err(|error| Unbroken::Silent(who.to_owned(), error))?;
    serde_json::from_slice(&text).map_err(|error| Unbroken::Unclear(who, error))
}

/// From problem details with the fields at fault, or Toxiproxy's form.
fn why(said: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let fields = said["errors"].as_array().into_iter().flatten();
    let fields: Vec<_> = fields
        .filter_map(|error| Some(format!("{} {}", text(&error["field"])?, text(&error["detail"])?)))
        .collect();
    if !fields.is_empty() {
        return Some(fields.join("; "));
    }
    text(&said["error"]).or_else(|| text(&said["detail"]))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn held(pids: &[u32]) -> Vec<Handle> {
        let handle = |pid: &u32| {
            let (token, faults, toxics) = (String::new(), Vec::new(), String::new());
            Handle { pid: *pid, token, faults, toxics }
        };
        pids.iter().map(handle).collect()
    }

    /// A service whose head comes and whose body doesn't was told of as of a page that can't be
    /// read, and kept the others from what was asked.
    #[tokio::test]
    async fn an_answer_that_breaks_off_is_of_somebody_silent_and_another_is_unclear() {
        for (body, is_silent) in [("[1, 2", true), ("[1, 2]", false), ("<html>", false)] {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let length = if is_silent { 100 } else { body.len() };
            tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 1024]).await.unwrap();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                socket.write_all(answer.as_bytes()).await.unwrap();
            });
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer = answered("user-service", client.get(url)).await.unwrap();
            match read::<Vec<u32>>("user-service", answer).await {
                Ok(read) => assert_eq!(read, [1, 2], "{body}"),
                Err(Unbroken::Silent(..)) => assert!(is_silent, "{body}"),
                Err(Unbroken::Unclear(..)) => assert_eq!(body, "<html>"),
                Err(other) => panic!("{body}: {other}"),
            }
        }
    }

    #[test]
    fn the_only_held_demo_is_meant_and_of_several_the_one_that_is_named() {
        assert_eq!(choose(held(&[7]), None).unwrap().pid, 7);
        assert_eq!(choose(held(&[7, 8]), Some(8)).unwrap().pid, 8);
        assert!(matches!(choose(held(&[]), None), Err(Unbroken::NoDemo)));
        assert!(matches!(choose(held(&[7, 8]), None), Err(Unbroken::Several(pids)) if pids == [7, 8]));
        assert!(matches!(choose(held(&[7]), Some(9)), Err(Unbroken::NoSuchDemo(9))));
    }
}
