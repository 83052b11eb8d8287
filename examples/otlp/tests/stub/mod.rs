//! A collector that decodes what it gets and keeps it.
#![allow(unreachable_pub, reason = "a part of its test")]

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    trace::v1::Span,
};
use prost::Message as _;
use tokio::net::TcpListener;

pub struct Collector {
    url: String,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

const PROTOBUF: &str = "application/x-protobuf";

type Answer = Result<([(axum::http::HeaderName, &'static str); 1], Vec<u8>), StatusCode>;

async fn take(
    State(got): State<Arc<Mutex<Vec<ExportTraceServiceRequest>>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    if headers.get(CONTENT_TYPE).is_none_or(|it| it != PROTOBUF) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    got.lock().unwrap().push(request);
    Ok(([(CONTENT_TYPE, PROTOBUF)], ExportTraceServiceResponse::default().encode_to_vec()))
}

impl Collector {
    pub async fn start() -> Self {
        let got = Arc::default();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&got));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, got }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let scopes = got.iter().flat_map(|it| &it.resource_spans).flat_map(|it| &it.scope_spans);
        scopes.flat_map(|it| it.spans.iter().cloned()).collect()
    }

    /// Whose they are.
    pub fn services(&self) -> Vec<String> {
        let got = self.got.lock().unwrap();
        let resources = got.iter().flat_map(|it| &it.resource_spans).filter_map(|it| it.resource.as_ref());
        let mut services: Vec<_> =
            resources.filter_map(|it| otlp::story::attribute(&it.attributes, "service.name")).collect();
        services.dedup();
        services
    }
}
