//! reqwest's answers, as faults take them apart.

use http::response::Parts;
use hyper::body::Incoming;
use reqwest::{Body, Url};

use crate::client::response::assemble;
use crate::faulted::{Answer, Broke};
use crate::outcome::classify::evidence::Fault;

impl Answer for reqwest::Response {
    type About = Url;
    type Body = Body;

    fn take_apart(self) -> (Url, Parts, Body) {
        let url = self.url().clone();
        let (parts, body) = http::Response::<Body>::from(self).into_parts();
        (url, parts, body)
    }

    fn put_together(url: Url, parts: Parts, body: Incoming) -> Self {
        assemble(url, parts, Body::wrap(body))
    }
}

impl From<Broke> for Fault {
    fn from(broke: Broke) -> Self {
        Self { error: broke.0, stream: false, hopped: false }
    }
}
