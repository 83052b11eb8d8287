//! The wire as a test wants it.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::route::Route;
use crate::fault::wire::{Asked, Fault, Scripted};
use crate::sync::Mutex;
use crate::time::{self, Tick};

/// What comes of a client's requests in place of what the wire would bring, and what has come.
///
/// The engine is the real one with all its policies: attempts time out, are repeated, hedged,
/// counted and refused as ever. Only what would go to a socket is answered here, from the
/// [routes](Route) in their order: the first that fits and has an answer left. A request without an
/// answer panics where it is sent, so that no fallback hides it, and [`verify`](Self::verify) tells
/// of it, too.
///
/// A clone is a handle on the same script. It is taken by `ClientBuilder::script` of the client
/// over reqwest, the one over hyper and the blocking one, and it is a tower service, for a
/// [`ResilienceLayer`](crate::ResilienceLayer) or anything else.
///
/// ```
/// use resilient_client::Client;
/// use resilient_client::testing::{Script, assert_attempts, get};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), resilient_client::Error> {
/// let script = Script::new().on(get("/users/1").fails(1).then_json(&["Ada"]));
/// let client = Client::builder().script(&script).build()?;
///
/// let response = client.get("http://users/users/1").send().await?;
/// assert_attempts(&response, ["first 503", "retry 200"]);
/// assert_eq!(response.json::<Vec<String>>().await?, ["Ada"]);
/// script.verify();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Script(Arc<Mutex<Board>>);

#[derive(Debug, Default)]
struct Board {
    routes: Vec<Route>,
    requests: Vec<Recorded>,
    /// Requests for which there was no answer.
    strays: Vec<String>,
}

/// A request that has come to a [`Script`](super::Script).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recorded {
    /// When it came.
    pub at: Tick,
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// What follows the `?`, if there is one.
    pub query: Option<String>,
    /// Whom it is for, by its URL; where a name stands for endpoints, the endpoint.
    pub host: String,
    /// Its headers, as far as they are known before the transport adds its own.
    pub headers: HeaderMap,
    /// Its content; empty where a client sends a stream, which is never read.
    pub body: Bytes,
}

impl Recorded {
    fn of(asked: &Asked<'_>) -> Self {
        let host = asked.host.unwrap_or_default();
        Self {
            at: time::now(),
            method: asked.method.clone(),
            path: asked.path.to_owned(),
            query: asked.query.map(str::to_owned),
            host: asked.port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            headers: asked.headers.clone(),
            body: asked.body.map(Bytes::copy_from_slice).unwrap_or_default(),
        }
    }

    /// The first value of a header, if there is one and it is a text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Display for Recorded {
    /// As in `GET /users?page=2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

impl Script {
    /// A script without an answer.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Board::default())))
    }

    /// The same with one more route.
    #[must_use = "it is the script itself; to add to one that is in use, see `add`"]
    pub fn on(self, route: Route) -> Self {
        self.add(route);
        self
    }

    /// One more route, after those there are.
    pub fn add(&self, route: Route) {
        self.0.lock().routes.push(route);
    }

    /// All that has come, in its order: each attempt is one.
    pub fn requests(&self) -> Vec<Recorded> {
        self.0.lock().requests.clone()
    }

    /// Whether that has come and nothing else, in this order: `["GET /users?page=2"]`.
    ///
    /// # Panics
    /// When it hasn't, with all that came and the routes.
    #[track_caller]
    pub fn assert_came<S: AsRef<str>>(&self, expected: impl IntoIterator<Item = S>) {
        let expected: Vec<_> = expected.into_iter().map(|line| line.as_ref().to_owned()).collect();
        let board = self.0.lock();
        let came: Vec<_> = board.requests.iter().map(Recorded::to_string).collect();
        if came != expected {
            let told = format!("expected: {expected:?}\n{board}");
            drop(board);
            panic!("other requests came\n{told}");
        }
    }

    /// Whether every request had an answer and every answer a request. Those for
    /// [always](Route::always) needn't have any.
    ///
    /// # Panics
    /// When not, with all that came and the routes.
    #[track_caller]
    pub fn verify(&self) {
        let board = self.0.lock();
        let left: usize = board.routes.iter().map(Route::left).sum();
        if left == 0 && board.strays.is_empty() {
            return;
        }
        let strays = board.strays.join(", ");
        let told = format!("{left} answers were left; no answer was there for: [{strays}]\n{board}");
        drop(board);
        panic!("{told}");
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("requests that came:")?;
        self.requests.iter().try_for_each(|request| write!(f, "\n  {request} to {}", request.host))?;
        f.write_str("\nroutes:")?;
        self.routes.iter().try_for_each(|route| write!(f, "\n  {route}"))
    }
}

impl Scripted for Script {
    fn decide(&self, asked: &Asked<'_>) -> Fault {
        let mut board = self.0.lock();
        let request = Recorded::of(asked);
        let mut told = request.to_string();
        board.requests.push(request);
        let mut fitting = board.routes.iter_mut().filter(|route| route.fits(asked));
        if let Some(fault) = fitting.find_map(|route| route.next(asked.method)) {
            return fault;
        }
        board.strays.push(told.clone());
        let _ = write!(told, "\n{board}");
        // Others may still look.
        drop(board);
        panic!("the script has no answer for {told}");
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.0.lock())
    }
}
