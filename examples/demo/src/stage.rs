//! The one engine of all scenarios: goes through the phases under load, does what they say, prints
//! a line a second, and asks the order-services at the end what they hold.

mod second;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, sleep_until};

use self::second::{Counts, difference, figures};
use crate::Problem;
use crate::audit::audit;
use crate::breaker_log::Breaker;
use crate::cli::{Client, Options};
use crate::clock::now;
use crate::colour::Colours;
use crate::live::{Live, Standing};
use crate::load::{self, CurrentPhase, Target};
use crate::page::{Page, Scene};
use crate::processes::Fleet;
use crate::report::{self, Line, Second};
use crate::results::{Machine, Observed, Other, Results, Return, SecondFigures, Seen, Streams, Twin, Work};
use crate::scenario::{Act, Mood, More, Phase, Scenario};
use crate::tally::Books;

/// How many customers there are.
const USERS: usize = 20;
/// How often the demo looks whether an order is still pending, once all is well again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long orders may stay pending after the load has ended.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Plays the scenario with the processes of `fleet` and returns what was found out.
pub(crate) async fn run(
    fleet: &mut Fleet,
    options: &Options,
    scenario: &'static Scenario,
    colours: Colours,
) -> Result<Results, Problem> {
    let targets = targets(fleet, options, scenario).await?;
    let phase = CurrentPhase::first_of(scenario);
    let start = now();
    let page = watch(fleet, &targets, options, scenario, start).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let under_load = load::run(&targets, &phase, options.rates(scenario), start, async {
        let _ = stopped.await;
    });
    let stage = Stage::new(fleet, &targets, page, scenario, options, start, colours);
    let story = async {
        let seen = stage.play(&phase).await?;
        drop(stop);
        Ok(seen)
    };
    let (seen, late) = tokio::try_join!(story, under_load)?;

    let mut twins = VecDeque::new();
    for (client, target) in Client::ALL.into_iter().zip(&targets) {
        settle(target).await;
        let stored = target.stored_orders().await?;
        let books = target.books();
        let audit = audit(books.sent(), &stored);
        let breaker = fleet.breaker(client);
        twins.push_back(Twin::new(scenario, options.quick, client, &books, &seen, &late, &breaker, audit));
    }
    let mut next = || twins.pop_front().ok_or("each order-service has its results");
    let (naive, resilient, alone) = (next()?, next()?, next()?);
    let kinds = options.cast(scenario).naive.into_iter().skip(1);
    let others = kinds.zip(twins).map(|(client, twin)| Other { client, twin }).collect();
    let counted = fleet.count().await?;
    Ok(Results {
        scenario: scenario.name,
        seed: options.seed,
        quick: options.quick,
        naive_client: options.naive(scenario),
        without: options.without(scenario),
        machine: Machine::new(&late, &alone),
        naive,
        others,
        resilient,
        alone,
        counted,
    })
}

/// Keeps everything running, under load and with a line a second, until it is dropped.
pub(crate) async fn hold(
    fleet: &mut Fleet,
    options: &Options,
    scenario: &'static Scenario,
    colours: Colours,
) -> Result<(), Problem> {
    let targets = targets(fleet, options, scenario).await?;
    let phase = CurrentPhase::first_of(scenario);
    let start = now();
    let user = targets[0].a_user().to_owned();
    say(&report::held(scenario, &fleet.held(), &user))?;
    let page = watch(fleet, &targets, options, scenario, start).await?;
    page.tell(|scene| scene.phase = "yours to break");
    let under_load = load::run(&targets, &phase, options.rates(scenario), start, std::future::pending());
    let mut stage = Stage::new(fleet, &targets, page, scenario, options, start, colours);
    stage.standing.phase = HELD.name;
    let lines = async {
        say(&report::header(colours, scenario.columns))?;
        loop {
            stage.seconds.tick().await;
            stage.line(&HELD, 0)?;
            // Nobody will ask what they were.
            stage.history = Default::default();
            stage.standing.forget();
        }
    };
    // Neither ends by itself.
    tokio::select! {
        ended = lines => ended,
        ended = under_load => ended.map(drop),
    }
}

/// What is written in front of a line while everything is held.
const HELD: Phase =
    Phase { name: "yours", says: "", mood: Mood::Well, full: 0, quick: 0, more: More::Nothing, steps: &[] };

/// The page to watch it on, and where that is said.
async fn watch(
    fleet: &Fleet,
    targets: &[Arc<Target>],
    options: &Options,
    scenario: &Scenario,
    start: Instant,
) -> Result<Page, Problem> {
    let (admin, token) = fleet.admin();
    let naive = options.naive(scenario).name();
    let scene = Scene { scenario: scenario.name, naive, admin: admin.clone(), ..Scene::default() };
    let (page, url) = Page::serve(scene, targets, start).await?;
    say(&report::to_watch(&url, &admin, token))?;
    Ok(page)
}

async fn targets(fleet: &Fleet, options: &Options, scenario: &Scenario) -> Result<Vec<Arc<Target>>, Problem> {
    let users = load::create_users(&fleet.user_control(0), USERS).await?;
    let mut targets = Vec::new();
    for client in options.cast(scenario).clients() {
        let phases = scenario.phases.len();
        let books = if options.hold { Books::without_end(phases) } else { Books::new(phases) };
        let (entrance, order_service) = (fleet.entrance(client), fleet.order_service(client));
        targets.push(Arc::new(Target::prepare(entrance, order_service, users.clone(), books).await?));
    }
    Ok(targets)
}

/// Waits until nothing is pending; not for ever, for then the audit says how much is.
async fn settle(target: &Target) {
    let since = now();
    while target.has_pending().await.unwrap_or(true) && since.elapsed() < SETTLE_LIMIT {
        sleep(LOOK_EVERY).await;
    }
}

struct Stage<'a> {
    fleet: &'a mut Fleet,
    targets: &'a [Arc<Target>],
    page: Page,
    scenario: &'static Scenario,
    quick: bool,
    start: Instant,
    colours: Colours,
    seconds: Interval,
    /// Before the last line.
    counted: Counts,
    worked: [Work; Client::ALL.len()],
    /// In this phase.
    most_waiting: [usize; Client::ALL.len()],
    history: [Vec<SecondFigures>; Client::ALL.len()],
    standing: Standing,
    live: Live,
}

impl<'a> Stage<'a> {
    fn new(
        fleet: &'a mut Fleet,
        targets: &'a [Arc<Target>],
        page: Page,
        scenario: &'static Scenario,
        options: &Options,
        start: Instant,
        colours: Colours,
    ) -> Self {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once.
        seconds.reset();
        let counted = Client::ALL.map(|client| fleet.arrivals(client));
        let worked = Client::ALL.map(|client| fleet.work(client));
        let (most_waiting, history) = Default::default();
        let limit = if options.hold { Duration::ZERO } else { scenario.limit(options.quick) };
        Self {
            fleet,
            targets,
            page,
            scenario,
            quick: options.quick,
            start,
            colours,
            seconds,
            counted,
            worked,
            most_waiting,
            history,
            standing: Standing {
                limit,
                naive: options.naive(scenario).name(),
                streams: scenario.streams,
                ..Standing::default()
            },
            live: Live::for_stdout(colours),
        }
    }

    async fn play(mut self, current: &CurrentPhase) -> Result<Seen, Problem> {
        say(&report::header(self.colours, self.scenario.columns))?;
        let (mut phases, mut back) = (Vec::new(), Return::default());
        for (index, phase) in self.scenario.phases.iter().enumerate() {
            let opened = self.start.elapsed();
            current.set(index);
            (self.standing.phase, self.standing.says) = (phase.name, phase.says);
            self.page.tell(|scene| (scene.phase, scene.says) = (phase.name, phase.says));
            self.live.say(&report::event(self.colours, phase.says), &self.standing)?;
            self.most_waiting = Default::default();
            let before = Client::ALL.map(|client| self.fleet.arrivals(client));
            let worked = Client::ALL.map(|client| self.fleet.work(client));
            let ended = Client::ALL.map(|client| self.fleet.streams(client).ended());
            self.act_out(phase, index, &mut back).await?;
            self.wait_for_more(phase, index, &before, &mut back).await?;
            let after = Client::ALL.map(|client| self.fleet.arrivals(client));
            phases.push(Observed {
                opened,
                closed: self.start.elapsed(),
                calls: difference(&before, &after),
                work: Client::ALL.map(|client| self.fleet.work(client).since(worked[client as usize])),
                streams: Client::ALL.map(|client| {
                    let streams = self.fleet.streams(client);
                    Streams {
                        ended: streams.ended() - ended[client as usize],
                        alive: streams.alive(),
                        whole_ms: streams.whole_for(now()).as_millis() as u64,
                    }
                }),
                most_waiting: self.most_waiting,
            });
        }
        Ok(Seen { start: self.start, phases, back, seconds: self.history })
    }

    /// A phase for as long as it takes: what is due is done, and a line a second printed.
    async fn act_out(&mut self, phase: &Phase, index: usize, back: &mut Return) -> Result<(), Problem> {
        let opened = now();
        let mut steps = phase.schedule(self.quick).into_iter().peekable();
        while let Some((_, act)) = steps.next_if(|(at, _)| at.is_zero()) {
            self.act(act).await?;
        }
        back.ready = self.start.elapsed();
        let mut left = phase.length(self.quick).as_secs();
        let mut looks = looks();
        while left > 0 {
            let due = steps.peek().map_or(Duration::MAX, |(at, _)| *at);
            tokio::select! {
                biased;
                () = sleep_until((opened + due.min(Duration::from_hours(1))).into()), if due != Duration::MAX => {
                    if let Some((_, act)) = steps.next() {
                        self.act(act).await?;
                    }
                }
                _ = self.seconds.tick() => {
                    self.line(phase, index)?;
                    left -= 1;
                }
                _ = looks.tick(), if phase.mood == Mood::Back => self.look(back).await,
            }
        }
        for (_, act) in steps {
            self.act(act).await?;
        }
        Ok(())
    }

    /// What a phase waits for beyond its time.
    async fn wait_for_more(
        &mut self,
        phase: &Phase,
        index: usize,
        before: &Counts,
        back: &mut Return,
    ) -> Result<(), Problem> {
        let mut left = phase.more.limit(self.quick).as_secs();
        let mut looks = looks();
        loop {
            let done = match phase.more {
                More::Nothing => true,
                More::UntilResolved { .. } => {
                    back.resolved.iter().take(self.targets.len()).all(Option::is_some)
                }
                More::UntilCalled { user_service, .. } => {
                    let resilient = Client::Resilient as usize;
                    self.counted[resilient][user_service] > before[resilient][user_service]
                }
            };
            if done || left == 0 {
                return Ok(());
            }
            tokio::select! {
                biased;
                _ = self.seconds.tick() => {
                    self.line(phase, index)?;
                    left -= 1;
                }
                _ = looks.tick(), if phase.mood == Mood::Back => self.look(back).await,
            }
        }
    }

    /// Notes which order-service has nothing pending any more.
    async fn look(&self, back: &mut Return) {
        for (target, resolved) in self.targets.iter().zip(&mut back.resolved) {
            if resolved.is_none() && !target.has_pending().await.unwrap_or(true) {
                *resolved = Some(self.start.elapsed());
            }
        }
    }

    async fn act(&mut self, act: Act) -> Result<(), Problem> {
        match act {
            Act::Faults(which, faults) => self.fleet.set_faults(which, faults).await?,
            Act::Stop(which) => self.fleet.hang_user_service(which)?,
            Act::Continue(which) => self.fleet.resume_user_service(which)?,
            Act::Kill(which) => self.fleet.kill_user_service(which).await?,
            Act::Terminate(which) => self.fleet.terminate_user_service(which).await?,
            Act::Start(which) => {
                self.fleet.start_user_service(which).await?;
                self.fleet.set_faults(which, self.scenario.always).await?;
            }
        }
        Ok(())
    }

    /// The line of the second that has just ended.
    fn line(&mut self, phase: &Phase, index: usize) -> Result<(), Problem> {
        if let Some(casualty) = self.fleet.casualty() {
            return Err(casualty.into());
        }
        let all = Client::ALL.map(|client| self.fleet.arrivals(client));
        let mut calls = difference(&self.counted, &all);
        self.counted = all;
        let worked = Client::ALL.map(|client| self.fleet.work(client));
        let at = self.start.elapsed().as_secs_f64().round() as u64;
        let mut seconds = Vec::new();
        for (client, target) in Client::ALL.into_iter().zip(self.targets) {
            let (twin, waiting) = (client as usize, target.waiting());
            self.most_waiting[twin] = self.most_waiting[twin].max(waiting);
            let tally = target.books().take_second();
            let streams = self.scenario.streams.then(|| self.fleet.streams(client).alive());
            let calls = std::mem::take(&mut calls[twin]);
            let in_vain = worked[twin].since(self.worked[twin]).in_vain;
            let second = Second { tally, calls, in_vain, streams, waiting };
            self.history[twin].push(figures(at, index, &second));
            seconds.push(second);
        }
        self.worked = worked;
        // Those of several user-services would all be heard here; no table shows it then.
        let breaker = self.fleet.breaker(Client::Resilient).state();
        let standing = &mut self.standing;
        standing.elapsed = self.start.elapsed();
        standing.breaker = (self.counted[0].len() == 1).then_some(breaker);
        standing.budget = self.fleet.budget();
        let told = standing.breaker.map(Breaker::name);
        self.page.tell(|scene| scene.breaker = told);
        for (twin, second) in standing.twins.iter_mut().zip(&seconds) {
            twin.note(second);
        }
        let line = Line { at, phase, seconds: &seconds, breaker };
        let line = report::second(self.colours, self.scenario.columns, &line);
        self.live.say(&line, &self.standing)
    }
}

fn looks() -> Interval {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Prints a line at once; not `println!`, which panics when nobody reads any more.
pub(crate) fn say(line: &str) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
