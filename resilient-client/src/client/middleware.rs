//! The engine as the last of reqwest-middleware's, for SDKs that are given a
//! `ClientWithMiddleware`.

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use super::Client;
use crate::call::options::CallOptions;

/// Makes the call, over this client's own transport: nothing is handed on, so it stands last.
/// Middlewares before it see one request and one response for each call, however many attempts
/// there were. [`CallOptions`] in the extensions hold for the call; a [`CallReport`] of how it went
/// is put there, if there is one.
///
/// An error is `reqwest_middleware::Error::Middleware` with an [`Error`](crate::Error) in it. Its
/// own `is_timeout` and `is_connect` know reqwest's errors alone, and say no: downcast it.
///
/// [`CallReport`]: crate::CallReport
///
/// ```
/// use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
///
/// fn for_an_sdk(client: resilient_client::Client) -> ClientWithMiddleware {
///     // This one's transport is never used.
///     ClientBuilder::new(reqwest::Client::new()).with(client).build()
/// }
/// ```
#[async_trait::async_trait]
impl Middleware for Client {
    async fn handle(&self, request: Request, extensions: &mut Extensions, _: Next<'_>) -> Result<Response> {
        let options = extensions.get::<CallOptions>().cloned().unwrap_or_default();
        match self.execute_with(request, options).await {
            Ok(response) => {
                extensions.insert(response.report().clone());
                Ok(response.into())
            }
            Err(error) => {
                if let Some(report) = error.report() {
                    extensions.insert(report.clone());
                }
                Err(Error::middleware(error))
            }
        }
    }
}
