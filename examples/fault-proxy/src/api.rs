//! Toxiproxy's API over HTTP.
//!
//! | | |
//! |---|---|
//! | `GET /proxies` | all by name |
//! | `POST /proxies` | another one; 201 |
//! | `POST /populate` | several at once; 201 |
//! | `GET`, `PATCH` (or `POST`), `DELETE /proxies/{proxy}` | one |
//! | `GET`, `POST /proxies/{proxy}/toxics` | its toxics; another one |
//! | `GET`, `PATCH` (or `POST`), `DELETE /proxies/{proxy}/toxics/{toxic}` | one of them |
//! | `POST /reset` | all enabled, no toxics; 204 |
//! | `GET /version` | |
//!
//! Bodies are JSON whatever their media type says: some clients say none. So that no web page can
//! send any, what comes from a browser, or is addressed to a name that isn't this host's, is
//! refused with 403.

use std::io;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::{Router, serve as serve_router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::error::Error;
use crate::proxies::Proxies;

/// The version of the API that this is like.
const LIKE: &str = "2.12.0";

/// Serves the API until the listener fails.
///
/// # Errors
/// That of the listener.
pub async fn serve(listener: TcpListener, proxies: Proxies) -> io::Result<()> {
    serve_router(listener, router(proxies)).await
}

fn router(proxies: Proxies) -> Router {
    Router::new()
        .route("/proxies", get(list).post(create))
        .route("/populate", post(populate))
        .route("/reset", post(reset))
        .route("/version", get(async || Json(json!({ "version": LIKE }))))
        .route("/proxies/{proxy}", get(show).post(update).patch(update).delete(remove))
        .route("/proxies/{proxy}/toxics", get(toxics).post(add_toxic))
        .route(
            "/proxies/{proxy}/toxics/{toxic}",
            get(toxic).post(update_toxic).patch(update_toxic).delete(remove_toxic),
        )
        .layer(middleware::from_fn(no_browsers))
        .with_state(proxies)
}

type Answer<T> = Result<T, Error>;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "error": self.to_string(), "status": self.status() }))).into_response()
    }
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::BadRequestBody(error.to_string()))
}

async fn list(State(proxies): State<Proxies>) -> impl IntoResponse {
    Json(proxies.list().await)
}

async fn create(State(proxies): State<Proxies>, body: Bytes) -> Answer<impl IntoResponse> {
    Ok((StatusCode::CREATED, Json(proxies.create(read(&body)?).await?)))
}

async fn populate(State(proxies): State<Proxies>, body: Bytes) -> Answer<impl IntoResponse> {
    let (status, body) = match proxies.populate(read(&body)?).await {
        Ok(made) => (StatusCode::CREATED, json!({ "proxies": made })),
        Err((made, error)) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, json!({ "error": error.to_string(), "status": error.status(), "proxies": made }))
        }
    };
    Ok((status, Json::<Value>(body)))
}

async fn show(State(proxies): State<Proxies>, Path(name): Path<String>) -> Answer<impl IntoResponse> {
    Ok(Json(proxies.show(&name).await?))
}

async fn update(
    State(proxies): State<Proxies>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<impl IntoResponse> {
    Ok(Json(proxies.update(&name, &read(&body)?).await?))
}

async fn remove(State(proxies): State<Proxies>, Path(name): Path<String>) -> Answer<impl IntoResponse> {
    proxies.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reset(State(proxies): State<Proxies>) -> Answer<impl IntoResponse> {
    proxies.reset().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn toxics(State(proxies): State<Proxies>, Path(name): Path<String>) -> Answer<impl IntoResponse> {
    Ok(Json(proxies.show(&name).await?.toxics))
}

async fn add_toxic(
    State(proxies): State<Proxies>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<impl IntoResponse> {
    Ok(Json(proxies.add_toxic(&name, read(&body)?).await?))
}

async fn toxic(
    State(proxies): State<Proxies>,
    Path((proxy, toxic)): Path<(String, String)>,
) -> Answer<impl IntoResponse> {
    Ok(Json(proxies.toxic(&proxy, &toxic).await?))
}

async fn update_toxic(
    State(proxies): State<Proxies>,
    Path((proxy, toxic)): Path<(String, String)>,
    body: Bytes,
) -> Answer<impl IntoResponse> {
    Ok(Json(proxies.update_toxic(&proxy, &toxic, read(&body)?).await?))
}

async fn remove_toxic(
    State(proxies): State<Proxies>,
    Path((proxy, toxic)): Path<(String, String)>,
) -> Answer<impl IntoResponse> {
    proxies.remove_toxic(&proxy, &toxic).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn no_browsers(request: Request, next: Next) -> Response {
    if is_of_browser(request.headers()) || !names_this_host(request.headers()) {
        let says = json!({ "error": "neither browsers nor other hosts' names are served", "status": 403 });
        return (StatusCode::FORBIDDEN, Json(says)).into_response();
    }
    next.run(request).await
}

fn is_of_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    agent.starts_with("Mozilla/")
        || headers.contains_key(header::ORIGIN)
        || headers.contains_key("sec-fetch-site")
}

/// A page can make a name of its own mean this host, but not a name that means it anyway.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let host = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(host, _)| host);
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}
