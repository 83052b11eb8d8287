//! What the other processes say on their standard output: bytes, each of which stands for
//! something.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStdout;

use crate::cli::Client;
use crate::faults::Mark;

/// What a user-service had to do with calls, by caller and kind. Read from a pipe that user-service
/// writes a byte to for every one, so none is missed when it is killed.
#[derive(Default)]
pub(crate) struct Arrivals([[AtomicU64; Mark::ALL.len()]; Client::ALL.len()]);

impl Arrivals {
    pub(crate) fn of(&self, caller: Client, mark: Mark) -> u64 {
        self.0[caller as usize][mark as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, caller: Client, mark: Mark) {
        self.0[caller as usize][mark as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Hears a process's standard output to its end, byte by byte.
pub(super) async fn listen(mut pipe: ChildStdout, mut hear: impl FnMut(u8)) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut bytes).await {
        bytes[..read].iter().copied().for_each(&mut hear);
    }
}
