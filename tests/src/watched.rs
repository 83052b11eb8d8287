//! A value that can be waited on.

use tokio::sync::watch;

/// A value behind a lock, whose changes wake those who wait for a condition. A clone is the same
/// value.
#[derive(Debug, Default)]
pub struct Watched<T>(watch::Sender<T>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Watched<T> {
    /// Changes the value.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut result = None;
        self.0.send_modify(|value| result = Some(change(value)));
        result.expect("send_modify calls its closure")
    }

    /// Reads the value.
    pub fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.0.borrow())
    }

    /// Waits until the condition holds.
    pub async fn until(&self, condition: impl FnMut(&T) -> bool) {
        self.0.subscribe().wait_for(condition).await.map(drop).expect("the sender is held by self");
    }
}

/// Shut until it is opened, then open for good. A clone is the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Watched<bool>);

impl Gate {
    /// A shut gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.0.change(|open| *open = true);
    }

    /// Whether it has been opened.
    pub fn is_open(&self) -> bool {
        self.0.read(|open| *open)
    }

    /// Waits until the gate is open.
    pub async fn pass(&self) {
        self.0.until(|open| *open).await;
    }
}
