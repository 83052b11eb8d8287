//! PROOF E10: exactly k probes at any concurrency, the first of them alone, none of them can wedge
//! it, and old news moves nothing. The checks know nothing of [`CircuitBreaker`], so that they can
//! be pointed at a gate with a bug, which they must find.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};

use tokio::runtime::Handle;

use super::super::*;
use super::ms;

/// A breaker, ours or one with a bug.
trait Gate: Sync {
    type Pass: Send;
    /// How many probes it lets out.
    fn probes(&self) -> usize;
    /// How many of them before one has succeeded.
    fn first(&self) -> usize {
        1
    }
    fn ask(&self) -> Option<Self::Pass>;
    fn tell(&self, pass: Self::Pass, success: bool);
    /// Whatever can be seen of it.
    fn look(&self) -> String;
    /// Lets more time pass than any lease or open time here.
    async fn later(&self) {
        tokio::time::advance(Duration::from_secs(60)).await;
    }
}

const CALLERS: usize = 1_000;

fn fail_until_shut(gate: &impl Gate) {
    for _ in 0..100 {
        match gate.ask() {
            Some(pass) => gate.tell(pass, false),
            None => return,
        }
    }
    panic!("a hundred failures didn't shut it");
}

/// All at once on real threads, on this runtime's clock; they hold what they got until everyone has
/// asked.
fn crowd<G: Gate>(gate: &G) -> Vec<G::Pass> {
    let (start, clock) = (Barrier::new(CALLERS), Handle::current());
    let ask = || {
        let _clock = clock.enter();
        start.wait();
        gate.ask()
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(ask)).collect();
        callers.into_iter().filter_map(|caller| caller.join().unwrap()).collect()
    })
}

/// At the moment of reopening, exactly one of a thousand callers gets through, and at the moment
/// that succeeds the others do. k successes close it.
async fn admits_exactly_its_probes(gate: &impl Gate) -> Result<(), String> {
    fail_until_shut(gate);
    gate.later().await;
    for expected in [gate.first(), gate.probes() - gate.first()] {
        if expected == 0 {
            continue;
        }
        let passes = crowd(gate);
        if passes.len() != expected {
            return Err(format!("{} of {CALLERS} admitted, not {expected}", passes.len()));
        }
        for pass in passes {
            gate.tell(pass, true);
        }
    }
    let admitted = crowd(gate).len();
    if admitted == CALLERS { Ok(()) } else { Err(format!("closed, and {admitted} of {CALLERS} admitted")) }
}

/// How a probe can decide nothing.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Dropped,
    /// Its holder panics.
    Panicking,
    /// Nobody ever hears of it again.
    Hung,
}

/// Round after round of probes meet this fate, and then one that succeeds finds its place, and
/// closes it.
async fn survives(gate: &impl Gate, fate: Fate) -> Result<(), String> {
    const ROUNDS: usize = 100;
    fail_until_shut(gate);
    for round in 0..ROUNDS {
        gate.later().await;
        for n in 0..gate.first() {
            let Some(pass) = gate.ask() else {
                return Err(format!("wedged in round {round}, at probe {n}"));
            };
            match fate {
                Fate::Dropped => drop(pass),
                Fate::Hung => std::mem::forget(pass),
                Fate::Panicking => {
                    let holder = AssertUnwindSafe(move || {
                        let _held = pass;
                        resume_unwind(Box::new("a caller's bug"));
                    });
                    assert!(catch_unwind(holder).is_err());
                }
            }
        }
    }
    gate.later().await;
    for n in 0..gate.probes() {
        let Some(pass) = gate.ask() else { return Err(format!("wedged at good probe {n}")) };
        gate.tell(pass, true);
    }
    let passes: Vec<_> = (0..CALLERS).map_while(|_| gate.ask()).collect();
    if passes.len() == CALLERS { Ok(()) } else { Err(format!("only {} admitted afterwards", passes.len())) }
}

/// What was admitted before the trip, or as a probe of an earlier half-open time, moves nothing,
/// whatever it came to.
async fn ignores_old_news(gate: &impl Gate) -> Result<(), String> {
    let mut old: Vec<_> = (0..120).map(|_| gate.ask().expect("closed")).collect();
    let mut news = |when: &str| {
        let before = gate.look();
        for (n, pass) in old.drain(..40).enumerate() {
            gate.tell(pass, n % 2 == 0);
            let after = gate.look();
            if after != before {
                return Err(format!("{when}: {before} became {after}"));
            }
        }
        Ok(())
    };
    fail_until_shut(gate);
    news("open")?;
    gate.later().await;
    let lost: Vec<_> = (0..gate.probes()).map_while(|_| gate.ask()).collect();
    news("half open")?;
    // The probes' lease ends, and others go in their place.
    gate.later().await;
    let mut probes: Vec<_> = (0..gate.probes()).map_while(|_| gate.ask()).collect();
    let before = gate.look();
    for (n, pass) in lost.into_iter().enumerate() {
        gate.tell(pass, n % 2 == 0);
        let after = gate.look();
        if after != before {
            return Err(format!("a lost probe: {before} became {after}"));
        }
    }
    probes.drain(..).for_each(|pass| gate.tell(pass, true));
    for _ in gate.first()..gate.probes() {
        gate.tell(gate.ask().expect("one has succeeded"), true);
    }
    news("closed")
}

// ---- ours ----

struct Ours {
    breaker: CircuitBreaker,
    probes: usize,
}

impl Ours {
    fn new(probes: u32) -> Self {
        let policy = BreakerPolicy::standard().probes(probes);
        Self { breaker: CircuitBreaker::new(&policy).unwrap(), probes: probes as usize }
    }
}

impl Gate for Ours {
    type Pass = CircuitPermit;

    fn probes(&self) -> usize {
        self.probes
    }

    fn ask(&self) -> Option<CircuitPermit> {
        self.breaker.try_acquire().ok()
    }

    fn tell(&self, pass: CircuitPermit, success: bool) {
        if success { pass.success() } else { pass.failure() }
    }

    fn look(&self) -> String {
        format!("{:?}", self.breaker.snapshot())
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_on_real_threads_get_exactly_k_probes() {
    for k in [1, 3, 10] {
        admits_exactly_its_probes(&Ours::new(k)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn no_fate_of_its_probes_wedges_it() {
    for fate in [Fate::Dropped, Fate::Panicking, Fate::Hung] {
        for k in [1, 3] {
            survives(&Ours::new(k), fate).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn results_of_another_generation_move_nothing() {
    for k in [1, 3] {
        ignores_old_news(&Ours::new(k)).await.unwrap();
    }
}

// ---- the controls: gates with one bug each ----

/// A breaker as it is often written: closed, open or half-open with so many free places, behind a
/// lock.
struct Planted {
    bug: Bug,
    state: Mutex<Now>,
    looked: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// Stamps nothing: every result counts, whenever its call began.
    Unstamped,
    /// Half open, it's open to all.
    AdmitsAll,
    /// Looks for a free place, and takes it a moment later.
    LooksThenTakes,
    /// A probe that says nothing keeps its place for ever.
    KeepsPlaces,
}

#[derive(Clone, Copy, Debug)]
enum Now {
    Closed { failures: u32 },
    Open { until: Tick },
    HalfOpen { out: usize, good: usize, since: Tick },
}

const PLACES: usize = 3;

impl Planted {
    fn new(bug: Bug) -> Self {
        Self { bug, state: Mutex::new(Now::Closed { failures: 0 }), looked: AtomicUsize::new(0) }
    }
}

/// Gives its place back when dropped, if the gate knows how.
struct Pass<'a>(&'a Planted);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.0.bug != Bug::KeepsPlaces
            && let Now::HalfOpen { out, .. } = &mut *self.0.state.lock().unwrap()
        {
            *out = out.saturating_sub(1);
        }
    }
}

/// A gate's pass borrows from it, so the gate is leaked: there are a handful.
struct Leaked(&'static Planted);

impl Leaked {
    fn new(bug: Bug) -> Self {
        Self(Box::leak(Box::new(Planted::new(bug))))
    }
}

impl Gate for Leaked {
    type Pass = Pass<'static>;

    fn probes(&self) -> usize {
        PLACES
    }

    fn first(&self) -> usize {
        PLACES
    }

    fn ask(&self) -> Option<Pass<'static>> {
        let (gate, now) = (self.0, time::now());
        let mut state = gate.state.lock().unwrap();
        if let Now::Open { until } = *state
            && now >= until
        {
            *state = Now::HalfOpen { out: 0, good: 0, since: now };
        }
        if let Now::HalfOpen { out, since, .. } = &mut *state
            && gate.bug != Bug::KeepsPlaces
            && now.since(*since) >= ms(10_000)
        {
            (*out, *since) = (0, now);
        }
        let free = match *state {
            Now::Closed { .. } => return Some(Pass(gate)),
            Now::Open { .. } => return None,
            Now::HalfOpen { out, .. } => gate.bug == Bug::AdmitsAll || out < PLACES,
        };
        if gate.bug == Bug::LooksThenTakes && free {
            drop(state);
            // One too many look before the first takes: chance alone would arrange it nearly
            // always.
            gate.looked.fetch_add(1, Ordering::SeqCst);
            while gate.looked.load(Ordering::SeqCst) <= PLACES {
                std::thread::yield_now();
            }
            state = gate.state.lock().unwrap();
        }
        if free && let Now::HalfOpen { out, .. } = &mut *state {
            *out += 1;
        }
        // Not `then_some`: a pass made and dropped takes the lock that is held here.
        free.then(|| Pass(gate))
    }

    fn tell(&self, pass: Pass<'static>, success: bool) {
        let now = time::now();
        {
            let mut state = pass.0.state.lock().unwrap();
            *state = match (*state, success) {
                (Now::HalfOpen { good, .. }, true) if good + 1 >= PLACES => Now::Closed { failures: 0 },
                (Now::HalfOpen { out, good, since }, true) => {
                    Now::HalfOpen { out: out + 1, good: good + 1, since }
                }
                (Now::Closed { .. }, true) => Now::Closed { failures: 0 },
                (Now::Closed { failures }, false) if failures < 4 => Now::Closed { failures: failures + 1 },
                (_, false) => Now::Open { until: now.after(ms(1_000)) },
                (Now::Open { until }, true) => Now::Open { until },
            };
        }
        drop(pass);
    }

    fn look(&self) -> String {
        format!("{:?}", self.0.state.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn control_each_planted_bug_is_found() {
    for bug in [Bug::AdmitsAll, Bug::LooksThenTakes] {
        let found = admits_exactly_its_probes(&Leaked::new(bug)).await;
        println!("E10: {bug:?} found: {}", found.expect_err("the check must find it"));
    }
    let found = ignores_old_news(&Leaked::new(Bug::Unstamped)).await;
    println!("E10: {:?} found: {}", Bug::Unstamped, found.expect_err("the check must find it"));
    for fate in [Fate::Dropped, Fate::Panicking, Fate::Hung] {
        let found = survives(&Leaked::new(Bug::KeepsPlaces), fate).await;
        println!(
            "E10: {:?}, {fate:?} found: {}",
            Bug::KeepsPlaces,
            found.expect_err("the check must find it")
        );
        // What isn't its bug isn't blamed on it.
        survives(&Leaked::new(Bug::Unstamped), fate).await.unwrap();
    }
    admits_exactly_its_probes(&Leaked::new(Bug::Unstamped)).await.unwrap();
}

/// That crate's own breaker, as it is.
#[cfg(feature = "failsafe")]
mod peer {
    use ::failsafe::clock::{self, MockClock};
    use ::failsafe::failure_policy::{self, ConsecutiveFailures};
    use ::failsafe::{Config, StateMachine, backoff};

    use super::*;

    /// Its clock stands still on this thread, and is the system's on all others.
    struct Peer<'a> {
        breaker: StateMachine<ConsecutiveFailures<backoff::Constant>, ()>,
        clock: Mutex<&'a mut MockClock>,
    }

    impl<'a> Peer<'a> {
        fn new(clock: &'a mut MockClock) -> Self {
            let policy = failure_policy::consecutive_failures(3, backoff::constant(Duration::ZERO));
            Self { breaker: Config::new().failure_policy(policy).build(), clock: Mutex::new(clock) }
        }
    }

    impl Gate for Peer<'_> {
        type Pass = ();

        /// It promises no number.
        fn probes(&self) -> usize {
            1
        }

        fn ask(&self) -> Option<()> {
            self.breaker.is_call_permitted().then_some(())
        }

        fn tell(&self, (): (), success: bool) {
            if success { self.breaker.on_success() } else { self.breaker.on_error() }
        }

        fn look(&self) -> String {
            format!("{:?}", self.breaker)
        }

        async fn later(&self) {
            self.clock.lock().unwrap().advance(Duration::from_secs(60));
        }
    }

    #[test]
    fn control_the_peers_faults_are_found() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        clock::freeze(|clock| {
            let found = runtime.block_on(admits_exactly_its_probes(&Peer::new(clock)));
            println!("E10: failsafe: {}", found.expect_err("the check must find it"));
            let found = runtime.block_on(ignores_old_news(&Peer::new(clock)));
            println!("E10: failsafe: {}", found.expect_err("the check must find it"));
        });
    }
}
