// A search SDK as a generator writes it from an OpenAPI document: each call builds a request and
// executes it. Written for reqwest; included twice.

use std::time::Duration;

pub(crate) struct Configuration {
    pub(crate) base_path: String,
    pub(crate) client: Client,
    pub(crate) api_key: Option<String>,
    pub(crate) timeout: Duration,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
pub(crate) struct Results {
    pub(crate) hits: Vec<String>,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
pub(crate) struct Problem {
    pub(crate) title: String,
}

#[derive(Debug)]
pub(crate) enum Failed<T> {
    Transport(Error),
    Serde,
    Response(u16, Option<T>),
}

impl<T> From<Error> for Failed<T> {
    fn from(error: Error) -> Self {
        Self::Transport(error)
    }
}

pub(crate) async fn search_documents(
    configuration: &Configuration,
    index: &str,
    q: &str,
    limit: Option<u32>,
) -> Result<Results, Failed<Problem>> {
    let uri = format!("{}/indexes/{index}/search", configuration.base_path);
    let mut builder = configuration.client.request(http::Method::GET, &uri);
    builder = builder.query(&[("q", q)]);
    if let Some(limit) = limit {
        builder = builder.query(&[("limit", limit.to_string())]);
    }
    if let Some(key) = &configuration.api_key {
        builder = builder.header("x-api-key", key);
    }
    let request = builder.timeout(configuration.timeout).build()?;
    let response = configuration.client.execute(request).await?;
    let status = response.status();
    let content = response.text().await?;
    if status.is_client_error() || status.is_server_error() {
        return Err(Failed::Response(status.as_u16(), serde_json::from_str(&content).ok()));
    }
    serde_json::from_str(&content).map_err(|_| Failed::Serde)
}
