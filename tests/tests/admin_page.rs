//! The admin page in a real browser: `browser/page.mjs` looks at it, and tells this server what
//! should happen.
//!
//! It needs Node.js, Chromium, and `npm ci` in `tests/browser`; where they aren't there it is
//! skipped, and says so. `PAGE_LOAD_SECONDS` is how long the page is watched under load (10),
//! `PAGE_SCREENSHOTS` a folder for pictures.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path as Segment, State};
use axum::routing::post;
use http::{Request, Response, StatusCode};
use resilient_client::access::Access;
use resilient_client::admin::Admin;
use resilient_client::{CallOptions, Event, ResilienceLayer};
use resilient_client_tests::clock;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::runtime::Runtime;
use tower::{Layer as _, ServiceExt as _, service_fn};

const TOKEN: &str = "open sesame";
const BROWSER: &str = "/usr/bin/chromium";
/// What no host is called, and a key may be.
const UGLY: &str = "<img src=x onerror=window.harmed=true>";

/// What happens behind the page.
struct Stage {
    layer: ResilienceLayer,
    failing: AtomicBool,
    crowded: AtomicBool,
    events: Arc<AtomicU64>,
    /// How many events there had been, and when.
    counted: Mutex<(u64, Instant)>,
    admin: SocketAddr,
    /// What serves the admin router: a runtime of its own, which takes its connections along when
    /// it ends.
    server: Mutex<Option<Runtime>>,
    /// Whether that does nothing any more.
    hung: Arc<(Mutex<bool>, Condvar)>,
}

/// As many threads as serve the admin router.
const WORKERS: usize = 2;

impl Stage {
    fn new(admin: SocketAddr) -> Self {
        let events = Arc::<AtomicU64>::default();
        let count = Arc::clone(&events);
        let observer = move |_: &str, _: &Event| _ = count.fetch_add(1, Ordering::Relaxed);
        Self {
            layer: ResilienceLayer::builder()
                .observer(observer)
                .max_upstreams(1100)
                .build()
                .expect("it can work"),
            failing: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            events,
            counted: Mutex::new((0, clock::now())),
            admin,
            server: Mutex::new(None),
            hung: Arc::default(),
        }
    }

    async fn call(&self, host: &str, status: u16, key: Option<&str>) {
        let answer = service_fn(move |_: Request<String>| async move {
            Ok::<_, Infallible>(Response::builder().status(status).body(String::new()).expect("a status"))
        });
        let mut request =
            Request::get(format!("http://{host}:3000/")).body(String::new()).expect("a request");
        if let Some(key) = key {
            request.extensions_mut().insert(CallOptions::new().key(key));
        }
        // What comes of it is what the page shows.
        drop(self.layer.layer(answer).oneshot(request).await);
    }

    /// Calls for as long as it is polled: a few, or with a crowd ten thousand events a second on a
    /// thousand upstreams.
    async fn live(&self) {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for round in 0_usize.. {
            tick.tick().await;
            let status = if self.failing.load(Ordering::Relaxed) { 503 } else { 200 };
            self.call("users", status, None).await;
            if round.is_multiple_of(10) {
                self.call("orders", 200, None).await;
                self.call("tenants", 200, Some(UGLY)).await;
            }
            if self.crowded.load(Ordering::Relaxed) {
                // A call is five events: it starts and ends, so does its attempt, and its head
                // comes.
                for number in 0..40 {
                    self.call(&format!("crowd-{}", (round * 40 + number) % 1000), 200, None).await;
                }
            }
        }
    }

    fn start(&self) {
        let admin = Admin::new(Access::token(TOKEN)).client("page", &self.layer);
        let app: Router = Router::new().nest("/admin", admin.router().expect("it can work"));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(WORKERS).enable_all().build().expect("a runtime");
        let at = self.admin;
        runtime.spawn(async move {
            let listener = TcpListener::bind(at).await.expect("its port is free again");
            let service = app.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.expect("it serves");
        });
        *self.server.lock().expect("nobody panics") = Some(runtime);
    }

    /// Whoever connects waits from now on, and so does whoever is connected.
    fn hang(&self) {
        *self.hung.0.lock().expect("nobody panics") = true;
        let server = self.server.lock().expect("nobody panics");
        let runtime = server.as_ref().expect("it has been started");
        for _ in 0..WORKERS {
            let hung = Arc::clone(&self.hung);
            runtime.spawn(async move {
                let (is_hung, goes_on) = &*hung;
                let held = is_hung.lock().expect("nobody panics");
                drop(goes_on.wait_while(held, |hung| *hung));
            });
        }
    }

    fn go_on(&self) {
        *self.hung.0.lock().expect("nobody panics") = false;
        self.hung.1.notify_all();
    }

    fn stop(&self) {
        if let Some(runtime) = self.server.lock().expect("nobody panics").take() {
            runtime.shutdown_background();
        }
    }

    /// Events a second since this was asked last.
    fn rate(&self) -> f64 {
        let (now, events) = (clock::now(), self.events.load(Ordering::Relaxed));
        let mut counted = self.counted.lock().expect("nobody panics");
        let rate = (events - counted.0) as f64 / now.duration_since(counted.1).as_secs_f64();
        *counted = (events, now);
        rate
    }
}

async fn tell(State(stage): State<Arc<Stage>>, Segment(what): Segment<String>) -> (StatusCode, String) {
    let mut said = String::new();
    match what.as_str() {
        "fail" => stage.failing.store(true, Ordering::Relaxed),
        "heal" => stage.failing.store(false, Ordering::Relaxed),
        "crowd" => stage.crowded.store(true, Ordering::Relaxed),
        "quiet" => stage.crowded.store(false, Ordering::Relaxed),
        "start" => stage.start(),
        "hang" => stage.hang(),
        "go" => stage.go_on(),
        "stop" => stage.stop(),
        "events" => said = format!("{:.0}", stage.rate()),
        _ => return (StatusCode::NOT_FOUND, said),
    }
    (StatusCode::OK, said)
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("browser")
}

/// What is missing for a browser to look at the page.
fn missing() -> Option<&'static str> {
    if !Path::new(BROWSER).exists() {
        return Some("no Chromium");
    }
    if !scripts().join("node_modules/playwright-core").exists() {
        return Some("no `npm ci` in tests/browser");
    }
    let node = std::process::Command::new("node").arg("--version").output();
    node.is_err().then_some("no Node.js")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_happens_in_a_real_browser() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stage = Arc::new(Stage::new(admin));
    stage.start();
    let app = Router::new().route("/tell/{what}", post(tell).with_state(Arc::clone(&stage)));
    let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = control.local_addr().unwrap();
    let control = tokio::spawn(async move { axum::serve(control, app).await });
    let live = tokio::spawn({
        let stage = Arc::clone(&stage);
        async move { stage.live().await }
    });
    let script = Command::new("node")
        .arg("page.mjs")
        .args([format!("http://{admin}"), format!("http://{at}"), TOKEN.to_owned()])
        .arg(std::env::var("PAGE_LOAD_SECONDS").unwrap_or_else(|_| "10".to_owned()))
        .current_dir(scripts())
        .kill_on_drop(true)
        .status();
    let status = tokio::time::timeout(Duration::from_mins(8), script).await.expect("it ends").unwrap();
    live.abort();
    control.abort();
    stage.stop();
    assert!(status.success(), "see above");
}
