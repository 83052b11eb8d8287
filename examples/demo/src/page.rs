//! A page to watch a run on: the last hundred orders of both twins, side by side. Served by the
//! demo itself, on loopback, for as long as it runs.
//!
//! | | |
//! |---|---|
//! | `GET /` | the page, with a script and a style of its own and nothing from elsewhere |
//! | `GET /orders` | what it shows, as JSON; it asks twice a second |
//!
//! It shows nothing secret and changes nothing, so whoever is on this host may look. Whether an
//! order that was kept is verified meanwhile is asked only while somebody looks.

mod recent;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::interval;

pub(crate) use self::recent::Recent;

use self::recent::Shown;
use crate::Problem;
use crate::cli::Client;
use crate::load::Target;

/// No script and no style but the page's own files, no request to anywhere else, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const NO_SNIFFING: HeaderName = HeaderName::from_static("x-content-type-options");
/// How often it is asked what of the kept orders is verified.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Nobody looks who hasn't asked for so long.
const LOOKS_AWAY: Duration = Duration::from_secs(3);

/// What the page knows besides the orders.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Scene {
    pub(crate) scenario: &'static str,
    /// Which naive client.
    pub(crate) naive: &'static str,
    pub(crate) phase: &'static str,
    /// What is done now.
    pub(crate) says: &'static str,
    /// The resilient twin's circuit breaker, where there is one.
    pub(crate) breaker: Option<&'static str>,
    /// The admin page of the resilient twin's client.
    pub(crate) admin: String,
}

/// The page of a run. A clone is the same page.
#[derive(Clone)]
pub(crate) struct Page(Arc<Shared>);

struct Shared {
    /// A lock, because the run writes what requests read.
    scene: Mutex<Scene>,
    /// In the order of [`Client::TWINS`].
    twins: Vec<Arc<Target>>,
    began: Instant,
    /// When somebody looked last, in milliseconds since the beginning; 0 for never.
    looked_ms: AtomicU64,
}

/// What is shown.
#[derive(Serialize)]
struct View {
    #[serde(flatten)]
    scene: Scene,
    seconds: u64,
    twins: Vec<TwinView>,
}

#[derive(Serialize)]
struct TwinView {
    name: &'static str,
    orders: Vec<Shown>,
}

impl Page {
    /// Serves it from now on; returns its URL, too.
    pub(crate) async fn serve(
        scene: Scene,
        targets: &[Arc<Target>],
        began: Instant,
    ) -> Result<(Self, String), Problem> {
        let twins = Client::TWINS.iter().filter_map(|client| targets.get(*client as usize).cloned());
        let (scene, looked_ms) = (Mutex::new(scene), AtomicU64::new(0));
        let page = Self(Arc::new(Shared { scene, twins: twins.collect(), began, looked_ms }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = page.clone().router();
        // It ends with the demo.
        tokio::spawn(async move { axum::serve(listener, router).await });
        tokio::spawn(page.clone().ask());
        Ok((page, url))
    }

    fn router(self) -> Router {
        let file = |media: &'static str, text: &'static str| {
            get(async move || ([(CONTENT_TYPE, media)], with_headers(text)))
        };
        Router::new()
            .route("/", file("text/html; charset=utf-8", include_str!("page/index.html")))
            .route("/page.js", file("text/javascript; charset=utf-8", include_str!("page/page.js")))
            .route("/page.css", file("text/css; charset=utf-8", include_str!("page/page.css")))
            .route("/orders", get(orders).with_state(self))
    }

    /// Changes what is known besides the orders.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Scene)) {
        change(&mut self.0.scene.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.began.elapsed().as_millis() as u64
    }

    fn view(&self) -> View {
        self.0.looked_ms.store(self.elapsed_ms().max(1), Ordering::Relaxed);
        let twin = |(client, target): (Client, &Arc<Target>)| TwinView {
            name: client.name(),
            orders: target.recent().list(),
        };
        View {
            scene: self.0.scene.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            seconds: self.0.began.elapsed().as_secs(),
            twins: Client::TWINS.into_iter().zip(&self.0.twins).map(twin).collect(),
        }
    }

    /// Asks the order-services what of the orders they keep is still pending, while somebody looks.
    async fn ask(self) {
        let mut ticks = interval(ASK_EVERY);
        loop {
            ticks.tick().await;
            let looked = self.0.looked_ms.load(Ordering::Relaxed);
            let away = Duration::from_millis(self.elapsed_ms().saturating_sub(looked));
            if looked == 0 || away > LOOKS_AWAY {
                continue;
            }
            for target in &self.0.twins {
                let kept = target.recent().kept();
                // One that doesn't answer now is asked again.
                if let Ok(pending) = target.pending_of(&kept).await {
                    target.recent().verified(&kept, &pending);
                }
            }
        }
    }
}

async fn orders(State(page): State<Page>) -> Response {
    with_headers(Json(page.view()))
}

fn with_headers(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (NO_SNIFFING, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
