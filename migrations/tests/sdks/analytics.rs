// An analytics SDK: events are queued, and sent in batches that must neither be lost nor counted
// twice. Written for reqwest; included twice.

use std::sync::Mutex;
use std::time::Duration;

#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Happened {
    pub(crate) name: &'static str,
    pub(crate) user: u64,
}

pub(crate) struct Analytics {
    client: Client,
    endpoint: String,
    queue: Mutex<Vec<Happened>>,
    batches: Mutex<u64>,
}

impl Analytics {
    pub(crate) fn new(client: Client, endpoint: String) -> Self {
        Self { client, endpoint, queue: Mutex::default(), batches: Mutex::default() }
    }

    pub(crate) fn track(&self, name: &'static str, user: u64) {
        self.queue.lock().unwrap().push(Happened { name, user });
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.lock().unwrap().len()
    }

    /// Sends what is queued. What couldn't be sent stays, and goes with the next.
    pub(crate) async fn flush(&self) -> Result<usize, Error> {
        let batch = std::mem::take(&mut *self.queue.lock().unwrap());
        let sent = self.send(&batch).await;
        match sent {
            Ok(_) => Ok(batch.len()),
            Err(error) => {
                let mut queue = self.queue.lock().unwrap();
                let later = std::mem::replace(&mut *queue, batch);
                queue.extend(later);
                Err(error)
            }
        }
    }

    async fn send(&self, batch: &[Happened]) -> Result<Response, Error> {
        let id = {
            let mut batches = self.batches.lock().unwrap();
            *batches += 1;
            format!("batch-{batches}")
        };
        let call = self.client.post(format!("{}/batch", self.endpoint)).timeout(Duration::from_secs(2));
        call.header("idempotency-key", id).json(batch).send().await?.error_for_status()
    }
}
