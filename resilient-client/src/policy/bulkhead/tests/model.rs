//! The bulkhead beside a reference that any reader believes: one list in order of arrival, searched
//! from the front.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire(Priority),
    Enqueue(Priority, u64),
    Release,
    Leave(prop::sample::Index),
    Limit(u32),
    Rules(u32, u32),
    Pass(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    id: usize,
    class: Priority,
    until: u64,
}

#[derive(Default)]
struct Model {
    now: u64,
    in_use: u32,
    limit: u32,
    max_queued: usize,
    queue: VecDeque<Place>,
    /// What became of each waiter; `None` while it waits.
    fates: Vec<Option<Result<(), WaitOver>>>,
}

impl Model {
    fn share(&self, class: Priority) -> u32 {
        if class == Sheddable { (self.limit * 3).div_ceil(4) } else { self.limit }
    }

    fn free(&self, class: Priority) -> bool {
        self.in_use < self.share(class) && self.queue.iter().all(|place| place.class < class)
    }

    fn take(&mut self, class: Priority) -> bool {
        let free = self.free(class);
        self.in_use += u32::from(free);
        free
    }

    fn end(&mut self, id: usize, fate: Result<(), WaitOver>) {
        self.queue.retain(|place| place.id != id);
        self.fates[id] = Some(fate);
    }

    /// Whoever is late goes; then the best of the queue, while there is room for it.
    fn settle(&mut self) {
        for late in self.queue.clone() {
            if late.until <= self.now {
                self.end(late.id, Err(WaitOver::Expired));
            }
        }
        while let Some(best) = self.queue.iter().rev().max_by_key(|place| place.class).copied() {
            if self.in_use >= self.share(best.class) {
                break;
            }
            self.in_use += 1;
            self.end(best.id, Ok(()));
        }
    }

    fn enqueue(&mut self, class: Priority, until: u64) -> bool {
        let until = until.min(self.now + 1000);
        if self.max_queued == 0 || until <= self.now {
            return false;
        }
        self.settle();
        let id = self.fates.len();
        if self.take(class) {
            self.fates.push(Some(Ok(())));
            return true;
        }
        if self.queue.len() >= self.max_queued {
            let lower = self.queue.iter().rev().filter(|place| place.class < class);
            let Some(victim) = lower.min_by_key(|place| place.class).copied() else { return false };
            self.end(victim.id, Err(WaitOver::Displaced));
        }
        self.fates.push(None);
        self.queue.push_back(Place { id, class, until });
        true
    }
}

fn class() -> impl Strategy<Value = Priority> {
    prop_oneof![Just(Sheddable), Just(Normal), Just(Critical)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => class().prop_map(Step::Acquire),
        6 => (class(), 0_u64..1500).prop_map(|(class, wait)| Step::Enqueue(class, wait)),
        5 => Just(Step::Release),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => (1_u32..9).prop_map(Step::Limit),
        1 => (1_u32..9, 0_u32..6).prop_map(|(limit, queued)| Step::Rules(limit, queued)),
        2 => (1_u64..400).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn does_as_a_plain_list_would(steps in prop::collection::vec(step(), 0..200)) {
        let bulkhead = Bulkhead::new(queued(4, 4));
        let mut model = Model { limit: 4, max_queued: 4, ..Model::default() };
        let mut waiters: Vec<Arc<Waiter>> = Vec::new();
        for step in steps {
            let now = at(model.now);
            match step {
                Step::Acquire(class) => {
                    prop_assert_eq!(bulkhead.try_acquire(class).is_ok(), model.take(class));
                }
                Step::Enqueue(class, wait) => {
                    let until = model.now + wait;
                    let place = bulkhead.enqueue(class, now, at(until));
                    prop_assert_eq!(place.is_ok(), model.enqueue(class, until));
                    waiters.extend(place);
                }
                Step::Release => {
                    bulkhead.release(|| now);
                    model.in_use = model.in_use.saturating_sub(1);
                    model.settle();
                }
                Step::Leave(which) if !waiters.is_empty() => {
                    let id = which.index(waiters.len());
                    bulkhead.leave(&waiters[id], || now);
                    model.settle();
                    if model.fates[id].is_none() {
                        model.end(id, Err(WaitOver::Expired));
                    }
                }
                Step::Leave(_) => {}
                Step::Limit(limit) => {
                    bulkhead.set_limit(limit, || now);
                    model.limit = limit;
                    model.settle();
                }
                Step::Rules(limit, max_queued) => {
                    bulkhead.set_rules(Some(queued(limit, max_queued)), || now);
                    (model.limit, model.max_queued) = (limit, max_queued as usize);
                    model.settle();
                }
                Step::Pass(ms) => {
                    model.now += ms;
                    model.settle();
                    // Nobody is polled yet: the next step meets waiters whose timers haven't rung.
                    continue;
                }
            }
            for (waiter, fate) in waiters.iter().zip(&model.fates) {
                let expected = fate.map_or(Poll::Pending, Poll::Ready);
                prop_assert_eq!(poll(&bulkhead, waiter, at(model.now)), expected, "{:?}", waiter);
            }
            prop_assert_eq!((bulkhead.in_use(), bulkhead.queued()), (model.in_use, model.queue.len()));
        }
    }
}
