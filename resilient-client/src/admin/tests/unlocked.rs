//! While JSON is written, however slowly, nothing that calls need is locked.

use std::io;
use std::sync::mpsc;

use super::*;
use crate::admin::snapshot_route;

/// Takes a little, then waits until it is let go on.
struct Slow {
    written: usize,
    stuck: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl io::Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.written;
        self.written += bytes.len();
        if before < 500 && self.written >= 500 {
            let _ = self.stuck.send(());
            let _ = self.go_on.recv();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const fn borrows_nothing<T: 'static + Send>(_: &T) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_while_a_snapshot_is_being_written() {
    let layer = layer();
    let desk = Admin::new(Access::token(TOKEN)).client("users", &layer).desk().unwrap();
    for host in 0..20 {
        let _ = call(&layer, &format!("http://h{host}:3000/"), 503).await;
    }
    let (stuck, is_stuck) = mpsc::channel();
    let (let_go, go_on) = mpsc::channel();
    let writer = std::thread::spawn({
        let desk = Arc::clone(&desk);
        move || {
            let snapshot = snapshot_route::read(&desk, &snapshot_route::Asked::default()).unwrap();
            borrows_nothing(&snapshot);
            let mut to = Slow { written: 0, stuck, go_on };
            serde_json::to_writer(&mut to, &snapshot).unwrap();
            to.written
        }
    });
    is_stuck.recv_timeout(Duration::from_secs(10)).expect("it writes");
    // On a thread of its own: who waits for a lock of std's blocks what would time it out.
    let (works, has_worked) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(&layer, &desk));
        let _ = works.send(());
    });
    let worked = has_worked.recv_timeout(Duration::from_secs(10));
    let was_writing = !writer.is_finished();
    // The writer goes on before anything is said: whoever waits for it would wait for ever.
    let _ = let_go.send(());
    let written = writer.join().unwrap();
    worker.join().unwrap();
    assert_eq!(worked, Ok(()), "nothing waits for the writer");
    assert!(was_writing && written > 10_000, "{written}");
}

/// Known hosts and new ones, breakers that open, an operator, a reload and another snapshot.
async fn work(layer: &ResilienceLayer, desk: &Desk) {
    for host in 0..40 {
        for status in [200, 503, 503, 503, 503, 503] {
            let _ = call(layer, &format!("http://h{host}:3000/"), status).await;
        }
    }
    layer.breaker("http://h1:3000").unwrap().force_open().unwrap();
    layer.reload(Policy::standard().bulkhead(None)).unwrap();
    assert_eq!(layer.snapshot().len(), 40);
    drop(snapshot_route::read(desk, &snapshot_route::Asked::default()).unwrap());
}
