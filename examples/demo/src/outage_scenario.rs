//! The run from start to audit: walks through the phases under load, prints a line a second, and asks both
//! order-services at the end what they hold.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::Problem;
use crate::audit::audit;
use crate::cli::{Client, Options};
use crate::clock::now;
use crate::colour::Colours;
use crate::fault_phases::{CurrentPhase, Phase, Plan, SLOW, SLOW_ENDS};
use crate::faults::Faults;
use crate::load::{self, Rates, Target};
use crate::processes::Fleet;
use crate::report::{self, Second};
use crate::results::{Outside, Results, Return, Twin};

/// The user-service this scenario is about: here it has no other replica.
const THE_ONE: usize = 0;
/// How many customers there are.
pub(crate) const USERS: usize = 20;
/// How often the demo looks whether an order is still pending, once user-service is back.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long orders may stay pending after the load has ended.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Runs the scenario with the processes of `fleet` and returns what was found out.
pub(crate) async fn run(
    fleet: &mut Fleet,
    options: &Options,
    plan: &Plan,
    colours: Colours,
) -> Result<Results, Problem> {
    let users = load::create_users(&fleet.user_control(THE_ONE), USERS).await?;
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
        let observed = stage.play(plan).await?;
        drop(stop);
        Ok(observed)
    };
    let (Observed { outside, back }, ()) = tokio::try_join!(scenario, under_load)?;

    let mut twins = Vec::new();
    for (client, target) in Client::ALL.into_iter().zip(&targets) {
        settle(target).await;
        let stored = target.stored_orders().await?;
        let books = target.books();
        let audit = audit(books.sent(), &stored);
        twins.push(Twin::new(
            client,
            &books,
            outside[client as usize],
            &fleet.breaker(client),
            back,
            start,
            audit,
        ));
    }
    let [naive, resilient, alone] =
        <[Twin; 3]>::try_from(twins).map_err(|_| "each order-service has its results")?;
    Ok(Results { seed: options.seed, quick: options.quick, naive, resilient, alone })
}

/// Waits until nothing is pending; not for ever, for then the audit says how much is.
pub(crate) async fn settle(target: &Target) {
    let since = now();
    while target.has_pending().await.unwrap_or(true) && since.elapsed() < SETTLE_LIMIT {
        sleep(LOOK_EVERY).await;
    }
}

/// What only the scenario itself sees: not the load, nor the services.
struct Observed {
    /// By order-service and phase.
    outside: [[Outside; Phase::ALL.len()]; Client::ALL.len()],
    back: Return,
}

struct Stage<'a> {
    fleet: &'a mut Fleet,
    targets: &'a [Arc<Target>],
    phase: &'a CurrentPhase,
    start: Instant,
    colours: Colours,
    seconds: Interval,
    outside: [[Outside; Phase::ALL.len()]; Client::ALL.len()],
    /// Calls that reached user-service before the last line.
    counted: [u64; Client::ALL.len()],
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
        let counted = Client::ALL.map(|client| fleet.arrivals(client).iter().sum());
        Self { fleet, targets, phase, start, colours, seconds, outside: Default::default(), counted }
    }

    async fn play(mut self, plan: &Plan) -> Result<Observed, Problem> {
        say(&report::header(self.colours))?;

        self.open(Phase::Healthy)?;
        self.watch(Phase::Healthy, plan.healthy).await?;

        self.open(Phase::Slow)?;
        self.fleet.set_faults(THE_ONE, SLOW).await?;
        self.watch(Phase::Slow, plan.slow.saturating_sub(SLOW_ENDS)).await?;
        self.fleet.set_faults(THE_ONE, Faults::default()).await?;
        self.watch(Phase::Slow, SLOW_ENDS).await?;

        self.open(Phase::Hang)?;
        self.fleet.hang_user_service(THE_ONE)?;
        self.watch(Phase::Hang, plan.hang).await?;

        self.open(Phase::Killed)?;
        self.fleet.kill_user_service(THE_ONE).await?;
        self.watch(Phase::Killed, plan.killed).await?;

        self.open(Phase::Recovery)?;
        self.fleet.start_user_service(THE_ONE).await?;
        let ready = self.start.elapsed();
        let resolved = self.watch_recovery(plan).await?;
        Ok(Observed { outside: self.outside, back: Return { ready, resolved } })
    }

    /// Starts a phase: from now on requests belong to it.
    fn open(&self, phase: Phase) -> Result<(), Problem> {
        self.phase.set(phase);
        say(&report::event(self.colours, &report::opening(phase)))
    }

    /// Prints a line a second for as long as a phase takes.
    async fn watch(&mut self, phase: Phase, span: Duration) -> Result<(), Problem> {
        for _ in 0..span.as_secs() {
            self.seconds.tick().await;
            self.line(phase)?;
        }
        Ok(())
    }

    /// Prints a line a second until nothing is pending any more. Returns when that was, for each order-service.
    async fn watch_recovery(
        &mut self,
        plan: &Plan,
    ) -> Result<[Option<Duration>; Client::ALL.len()], Problem> {
        let mut resolved = [None; Client::ALL.len()];
        let since = now();
        let (least, most) = (plan.recovery, plan.recovery_limit);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = resolved.iter().all(Option::is_some);
            tokio::select! {
                biased;
                _ = self.seconds.tick() => {
                    self.line(Phase::Recovery)?;
                    if since.elapsed() >= if done { least } else { most } {
                        return Ok(resolved);
                    }
                }
                _ = looks.tick(), if !done => {
                    for (target, resolved) in self.targets.iter().zip(&mut resolved) {
                        if resolved.is_none() && !target.has_pending().await.unwrap_or(true) {
                            *resolved = Some(self.start.elapsed());
                        }
                    }
                }
            }
        }
    }

    /// The line of the second that has just ended.
    fn line(&mut self, phase: Phase) -> Result<(), Problem> {
        if let Some(casualty) = self.fleet.casualty() {
            return Err(casualty.into());
        }
        let [naive, resilient, _] = Client::ALL.map(|client| {
            let twin = client as usize;
            let all = self.fleet.arrivals(client).iter().sum();
            let calls = all - std::mem::replace(&mut self.counted[twin], all);
            let waiting = self.targets[twin].waiting();
            let outside = &mut self.outside[twin][phase as usize];
            outside.calls += calls;
            outside.most_waiting = outside.most_waiting.max(waiting);
            Second { tally: self.targets[twin].books().take_second(), calls, waiting }
        });
        let breaker = self.fleet.breaker(Client::Resilient).state();
        let at = self.start.elapsed().as_secs_f64().round() as u64;
        say(&report::second(self.colours, at, phase, &naive, &resilient, breaker))
    }
}

/// Prints a line at once; not `println!`, which panics when nobody reads any more.
pub(crate) fn say(line: &str) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
