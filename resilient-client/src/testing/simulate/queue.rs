//! Workers before whom requests queue.

use std::time::Duration;

use crate::time::Tick;

/// So many workers take what comes, first come, first served, and finish what they have begun,
/// wanted or not. So when an answer comes is known as soon as its request has. Some of them may be
/// away for a while: what they have begun by then is finished.
#[derive(Clone, Debug)]
pub struct Queue {
    /// When each worker is free.
    free: Vec<Tick>,
    /// How many of them stay while the others are away, and when that is.
    left: usize,
    away: (Tick, Tick),
}

impl Queue {
    /// `all` workers (at least one), free now, of whom `left` stay from the first of the two
    /// moments to the second.
    pub fn new(all: usize, left: usize, away: (Tick, Tick), now: Tick) -> Self {
        Self { free: vec![now; all.max(1)], left, away }
    }

    /// When a request will be answered that comes now and needs a worker for so long.
    pub fn ends(&mut self, now: Tick, needs: Duration) -> Tick {
        let starts = |worker: usize, free: Tick| {
            let start = free.max(now);
            let away = worker >= self.left && start >= self.away.0 && start < self.away.1;
            if away { self.away.1 } else { start }
        };
        let all = self.free.iter().enumerate();
        let first = all.map(|(worker, free)| (starts(worker, *free), worker)).min();
        let (start, worker) = first.unwrap_or((now, 0));
        let end = start.after(needs);
        if let Some(free) = self.free.get_mut(worker) {
            *free = end;
        }
        end
    }
}
