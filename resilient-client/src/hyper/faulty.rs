//! hyper's answers, as faults take them apart.

use http::Response;
use http::response::Parts;
use hyper::body::Incoming;

use crate::faulted::Answer;

impl Answer for Response<Incoming> {
    type About = ();
    type Body = Incoming;

    fn take_apart(self) -> ((), Parts, Incoming) {
        let (parts, body) = self.into_parts();
        ((), parts, body)
    }

    fn put_together((): (), parts: Parts, body: Incoming) -> Self {
        Self::from_parts(parts, body)
    }
}
