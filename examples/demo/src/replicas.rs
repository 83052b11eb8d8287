//! `cargo demo --replicas 3`: what single replicas of user-service do to two order-services when they refuse, slow
//! down, hang and die.
//!
//! ```text
//!              same orders,            naive order-service ─────── in turn ──┐   ┌─> user-service 1
//!   load.rs ── same reads, ──┬──> (sqlite)                                   ├───┼─> user-service 2
//!              same time     │                                               │   └─> user-service 3
//!                            └──> resilient order-service ── by what is known┘       (one sqlite)
//!                                 (sqlite)
//! ```
//!
//! In each phase another replica is the bad one, so each is met while it is trusted. The rest is as in the scenario about
//! one user-service: the same load, order-services and control.

mod report;
mod results;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};

pub(crate) use self::report::{introduction, summary};
pub(crate) use self::results::Results;
pub(crate) use self::verdict::Verdict;

use self::report::Second;
use self::results::{Act, Twin};
use crate::Problem;
use crate::audit::audit;
use crate::cli::{Client, Options};
use crate::clock::now;
use crate::colour::Colours;
use crate::fault_phases::{CurrentPhase, Phase};
use crate::faults::Faults;
use crate::load::{self, Rates, Target};
use crate::outage_scenario::{USERS, say, settle};
use crate::processes::Fleet;
use crate::report::event;

/// What [`Phase::OneSlow`] switches on.
const SLOW: Faults = Faults { slow_share: 1.0, delay_ms: 1500, refuse: false };
/// What [`Phase::OneRefuses`] switches on.
const REFUSING: Faults = Faults { slow_share: 0.0, delay_ms: 0, refuse: true };

/// How long each phase takes, in the order of [`Phase::REPLICAS`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    seconds: [u64; Phase::REPLICAS.len()],
    /// Recovery goes on for up to so many more, until the replica that came back has been called: a client that has
    /// learnt that it is dead doesn't ask at once, and sends little at first.
    more: u64,
}

impl Plan {
    const FULL: Self = Self { seconds: [15, 15, 15, 15, 15, 15], more: 10 };
    const QUICK: Self = Self { seconds: [3, 4, 4, 5, 4, 2], more: 4 };

    pub(crate) const fn of(quick: bool) -> &'static Self {
        if quick { &Self::QUICK } else { &Self::FULL }
    }

    /// The longest the scenario can take.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds.iter().sum::<u64>() + self.more)
    }
}

/// Which replica is the bad one, counted from zero; in recovery, the one that comes back.
pub(crate) fn bad_one(phase: Phase) -> Option<usize> {
    match phase {
        Phase::OneRefuses => Some(0),
        Phase::OneSlow | Phase::OneKilled | Phase::Recovery => Some(1),
        Phase::OneHangs => Some(2),
        _ => None,
    }
}

/// Runs the scenario with the processes of `fleet` and returns what was found out.
pub(crate) async fn run(
    fleet: &mut Fleet,
    options: &Options,
    plan: &Plan,
    colours: Colours,
) -> Result<Results, Problem> {
    let users = load::create_users(&fleet.user_control(0), USERS).await?;
    let mut targets = Vec::new();
    for client in Client::ALL {
        targets.push(Arc::new(Target::prepare(fleet.order_service(client), users.clone()).await?));
    }

    let start = now();
    let phase = Arc::new(CurrentPhase::default());
    let rates = Rates { orders: options.orders, reads: options.reads, seed: options.seed };
    let (stop, stopped) = oneshot::channel::<()>();
    let under_load = load::run(&targets, &phase, rates, start, async {
        let _ = stopped.await;
    });
    let stage = Stage::new(fleet, &targets, &phase, start, colours);
    let scenario = async {
        let acts = stage.play(plan).await?;
        drop(stop);
        Ok(acts)
    };
    let (acts, ()) = tokio::try_join!(scenario, under_load)?;

    let mut twins = Vec::new();
    for (client, target) in Client::ALL.into_iter().zip(&targets) {
        settle(target).await;
        let stored = target.stored_orders().await?;
        let books = target.books();
        twins.push(Twin::new(client, &books, &acts, audit(books.sent(), &stored)));
    }
    let [naive, resilient, alone] =
        <[Twin; 3]>::try_from(twins).map_err(|_| "each order-service has its results")?;
    Ok(Results { seed: options.seed, quick: options.quick, naive, resilient, alone })
}

/// Calls of each twin that reached each replica.
type Counts = [Vec<u64>; Client::TWINS.len()];

struct Stage<'a> {
    fleet: &'a mut Fleet,
    targets: &'a [Arc<Target>],
    phase: &'a CurrentPhase,
    start: Instant,
    colours: Colours,
    seconds: Interval,
    /// Before the last line.
    counted: Counts,
}

impl<'a> Stage<'a> {
    fn new(
        fleet: &'a mut Fleet,
        targets: &'a [Arc<Target>],
        phase: &'a CurrentPhase,
        start: Instant,
        colours: Colours,
    ) -> Self {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once.
        seconds.reset();
        let counted = Client::TWINS.map(|client| fleet.arrivals(client));
        Self { fleet, targets, phase, start, colours, seconds, counted }
    }

    async fn play(mut self, plan: &Plan) -> Result<Vec<Act>, Problem> {
        say(&report::header(self.colours))?;
        let mut acts = Vec::new();
        for (phase, seconds) in Phase::REPLICAS.into_iter().zip(plan.seconds) {
            let opened = self.start.elapsed();
            self.phase.set(phase);
            say(&event(self.colours, &report::opening(phase)))?;
            self.strike(phase).await?;
            let before = Client::TWINS.map(|client| self.fleet.arrivals(client));
            let mut most_waiting = self.watch(phase, seconds).await?;
            if let (Phase::Recovery, Some(back)) = (phase, bad_one(phase)) {
                let resilient = Client::Resilient as usize;
                let uncalled = before[resilient][back];
                let mut more = plan.more;
                while more > 0 && self.counted[resilient][back] == uncalled {
                    let waiting = self.watch(phase, 1).await?;
                    most_waiting = [0, 1].map(|twin: usize| most_waiting[twin].max(waiting[twin]));
                    more -= 1;
                }
            }
            let after = Client::TWINS.map(|client| self.fleet.arrivals(client));
            self.relieve(phase).await?;
            acts.push(Act { phase, opened, calls: difference(&before, &after), most_waiting });
        }
        Ok(acts)
    }

    /// What a phase begins with.
    async fn strike(&mut self, phase: Phase) -> Result<(), Problem> {
        let Some(bad) = bad_one(phase) else { return Ok(()) };
        match phase {
            Phase::OneRefuses => self.fleet.set_faults(bad, REFUSING).await?,
            Phase::OneSlow => self.fleet.set_faults(bad, SLOW).await?,
            Phase::OneHangs => self.fleet.hang_user_service(bad)?,
            Phase::OneKilled => self.fleet.kill_user_service(bad).await?,
            _ => self.fleet.start_user_service(bad).await?,
        }
        Ok(())
    }

    /// What a phase ends with.
    async fn relieve(&self, phase: Phase) -> Result<(), Problem> {
        let Some(bad) = bad_one(phase) else { return Ok(()) };
        match phase {
            Phase::OneRefuses | Phase::OneSlow => self.fleet.set_faults(bad, Faults::default()).await?,
            Phase::OneHangs => self.fleet.resume_user_service(bad)?,
            _ => {}
        }
        Ok(())
    }

    /// Prints a line a second. Returns, by twin, the most requests that waited at the end of one.
    async fn watch(&mut self, phase: Phase, seconds: u64) -> Result<[usize; Client::TWINS.len()], Problem> {
        let mut most_waiting = [0; Client::TWINS.len()];
        for _ in 0..seconds {
            self.seconds.tick().await;
            if let Some(casualty) = self.fleet.casualty() {
                return Err(casualty.into());
            }
            let all = Client::TWINS.map(|client| self.fleet.arrivals(client));
            let mut calls = difference(&self.counted, &all);
            self.counted = all;
            let seconds = Client::TWINS.map(|client| {
                let twin = client as usize;
                let waiting = self.targets[twin].waiting();
                most_waiting[twin] = most_waiting[twin].max(waiting);
                let tally = self.targets[twin].books().take_second();
                Second { tally, calls: std::mem::take(&mut calls[twin]), waiting }
            });
            let at = self.start.elapsed().as_secs_f64().round() as u64;
            say(&report::second(self.colours, at, phase, &seconds))?;
        }
        Ok(most_waiting)
    }
}

fn difference(before: &Counts, after: &Counts) -> Counts {
    let [naive, resilient] = [0, 1].map(|twin: usize| {
        after[twin].iter().zip(&before[twin]).map(|(after, before)| after - before).collect()
    });
    [naive, resilient]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plans_keep_their_promises() {
        assert!(Plan::FULL.limit() < Duration::from_secs(110), "under two minutes, start and audit included");
        assert!(Plan::QUICK.limit() < Duration::from_secs(27), "under half a minute, likewise");
    }

    #[test]
    fn in_each_phase_the_bad_one_was_good_before() {
        for pair in Phase::REPLICAS[1..5].windows(2) {
            assert_ne!(bad_one(pair[0]), bad_one(pair[1]), "{pair:?}");
        }
    }
}
