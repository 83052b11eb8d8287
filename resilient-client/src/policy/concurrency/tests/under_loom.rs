use loom::sync::Arc;
use loom::thread;

use super::*;

/// Everything two switches of threads away, and each takes part in a decision: all interleavings
/// take hours.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

fn tiny() -> Arc<Concurrency> {
    Arc::new(machine(&ConcurrencyPolicy::aimd().initial(1).min(1).max(9).min_samples(1)))
}

fn beside<T: 'static>(
    machine: &Arc<Concurrency>,
    act: impl FnOnce(&Concurrency) -> T + 'static,
) -> thread::JoinHandle<T> {
    let machine = Arc::clone(machine);
    thread::spawn(move || act(&machine))
}

#[test]
fn loom_a_sample_beside_the_closing_of_a_window_is_counted_once() {
    model(|| {
        let machine = tiny();
        let start = Tick::from_nanos(START);
        // Nothing is known yet, so every sample finds a window to close.
        let other = beside(&machine, move |machine| machine.record(completed(MS, 1), start));
        machine.record(dropped(MS, 1), start);
        other.join().unwrap();
        let snapshot = machine.snapshot();
        assert_eq!((snapshot.completed, snapshot.dropped), (1, 1));
    });
}

#[test]
fn loom_a_window_is_decided_on_once() {
    model(|| {
        let machine = tiny();
        machine.record(completed(MS, 1), Tick::from_nanos(START));
        let over = Tick::from_nanos(START + 1_000 * MS);
        let other = beside(&machine, move |machine| machine.record(completed(MS, 1), over));
        let changes = [machine.record(completed(MS, 1), over), other.join().unwrap()];
        assert_eq!(changes.iter().flatten().copied().collect::<Vec<_>>(), [2], "one more, once");
        assert_eq!((machine.limit(), machine.snapshot().completed), (2, 3));
    });
}

#[test]
fn loom_new_rules_beside_a_decision_bind() {
    model(|| {
        let machine = tiny();
        machine.record(completed(MS, 1), Tick::from_nanos(START));
        let over = Tick::from_nanos(START + 1_000 * MS);
        let other = beside(&machine, move |machine| machine.record(completed(MS, 1), over));
        let bound = machine.set_rules(ConcurrencyPolicy::aimd().initial(5).min(5).compile().unwrap());
        other.join().unwrap();
        assert!(bound >= 5 && machine.limit() >= 5, "{bound}, {}", machine.limit());
        assert_eq!(machine.snapshot().completed, 2);
    });
}
