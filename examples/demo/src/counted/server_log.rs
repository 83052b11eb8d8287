//! The server's log: what came to the resilient order-service's door of a user-service, and what it
//! was answered.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};

use super::compare::Arrival;
use super::{ATTEMPT, Problem};

/// Where it is written; a clone writes to the same.
#[derive(Clone)]
pub(crate) struct ServerLog(Arc<File>);

impl ServerLog {
    /// Goes on with what a process before this one has written.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        Ok(Self(Arc::new(File::options().create(true).append(true).open(path)?)))
    }

    /// A request has come. What is returned is told what it was answered.
    pub(crate) fn came(&self, headers: &HeaderMap) -> Came {
        let attempt = headers.get(ATTEMPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let came = Came { log: self.clone(), attempt: attempt.to_owned() };
        came.write(None);
        came
    }
}

/// A request that has come.
pub(crate) struct Came {
    log: ServerLog,
    attempt: String,
}

impl Came {
    /// It is being answered.
    pub(crate) fn answered(self, status: StatusCode) {
        self.write(Some(status.as_u16()));
    }

    fn write(&self, answered: Option<u16>) {
        let arrival = Arrival { attempt: self.attempt.clone(), answered };
        let Ok(mut line) = serde_json::to_string(&arrival) else { return };
        line.push('\n');
        // One write for a line. A disk that is full shows as a count that differs.
        let _ = (&*self.log.0).write_all(line.as_bytes());
    }
}
