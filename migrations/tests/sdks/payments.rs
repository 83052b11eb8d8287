// A payments SDK with middleware of its own: each may change a request before it goes, and sees
// what came of it. Written for reqwest; included twice.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use reqwest::Request;

pub(crate) type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send + 'a>>;

/// What stands between a call and the client.
pub(crate) trait Middleware: Send + Sync {
    fn handle<'a>(&'a self, request: Request, next: Next<'a>) -> Sent<'a>;
}

/// The rest of the way.
pub(crate) struct Next<'a> {
    client: &'a Client,
    rest: &'a [Arc<dyn Middleware>],
}

impl<'a> Next<'a> {
    pub(crate) fn run(self, request: Request) -> Sent<'a> {
        match self.rest {
            [first, rest @ ..] => first.handle(request, Self { client: self.client, rest }),
            [] => Box::pin(async { self.client.execute(request).await }),
        }
    }
}

/// Signs the body.
pub(crate) struct Sign(pub(crate) u64);

impl Middleware for Sign {
    fn handle<'a>(&'a self, mut request: Request, next: Next<'a>) -> Sent<'a> {
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let signature = body.iter().fold(self.0, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        request.headers_mut().insert("x-signature", signature.into());
        next.run(request)
    }
}

/// Notes what was asked and answered.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<String>>);

impl Middleware for Log {
    fn handle<'a>(&'a self, request: Request, next: Next<'a>) -> Sent<'a> {
        Box::pin(async move {
            let asked = format!("{} {}", request.method(), request.url().path());
            let ended = next.run(request).await;
            let status = ended.as_ref().map_or(0, |response| response.status().as_u16());
            self.0.lock().unwrap().push(format!("{asked} {status}"));
            ended
        })
    }
}

pub(crate) struct Payments {
    client: Client,
    base: String,
    middleware: Vec<Arc<dyn Middleware>>,
}

impl Payments {
    pub(crate) fn new(client: Client, base: String, middleware: Vec<Arc<dyn Middleware>>) -> Self {
        Self { client, base, middleware }
    }

    /// Takes money, once. With a key it is known when it comes again.
    pub(crate) async fn charge(&self, cents: u64, key: Option<&str>) -> Result<u16, Error> {
        let body = serde_json::json!({ "cents": cents });
        let call = self.client.post(format!("{}/charges", self.base)).json(&body);
        let call = if let Some(key) = key { call.header("idempotency-key", key) } else { call };
        let next = Next { client: &self.client, rest: &self.middleware };
        Ok(next.run(call.build()?).await?.status().as_u16())
    }
}
