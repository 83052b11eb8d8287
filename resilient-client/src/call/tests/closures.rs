//! The cancellation matrix once more, with a user's closure that panics at its n-th turn in place
//! of a dropped future: for every closure a policy can hold, every n, every kind of server.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::HeaderMap;

use super::cancel::Before;
use super::script::{Piece, Step, answer, answer_with, asks_to_wait, broken, ms};
use super::*;
use crate::outcome::classify::{Classified, Ended};
use crate::policy::breaker::{BreakerPolicy, Trip};
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::retry::RetryPolicy;
use crate::time::Tick;
use crate::{Attempt, Prepared};

/// Panics at its n-th turn, once.
#[derive(Clone)]
struct Bomb(Arc<AtomicU32>);

impl Bomb {
    fn new(turn: u32) -> Self {
        Self(Arc::new(AtomicU32::new(turn)))
    }

    fn tick(&self) {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left == Ok(1) {
            // Without the message a panic prints.
            std::panic::resume_unwind(Box::new("a bug in the user's closure"));
        }
    }

    /// Whether it went off. It won't any more.
    fn disarm(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) == 0
    }
}

impl Trip for Bomb {
    fn success(&mut self, _now: Tick) {
        self.tick();
    }

    fn failure(&mut self, _now: Tick) -> Option<Duration> {
        self.tick();
        None
    }

    fn recovered(&mut self) {
        self.tick();
    }
}

#[derive(Clone, Copy, Debug)]
enum Closure {
    Classifier,
    Hook,
    HooksFuture,
    Observer,
    TripRule,
    Delays,
}

use Closure::{Classifier, Delays, HooksFuture, Observer as Listener, TripRule};

fn rig(closure: Closure, policy: Policy, bomb: &Bomb, steps: Vec<Step>) -> Rig {
    let (bomb, mut setup, mut policy) = (bomb.clone(), Setup::default(), policy);
    match closure {
        Classifier => {
            policy = policy.classify(move |_: Ended<'_>, standard: Classified| {
                bomb.tick();
                standard
            });
        }
        Closure::Hook => {
            setup.hook = Some(Hook::new(move |_: &Attempt<'_>| {
                bomb.tick();
                Prepared::now(HeaderMap::new())
            }));
        }
        HooksFuture => {
            setup.hook = Some(Hook::new(move |_: &Attempt<'_>| {
                let bomb = bomb.clone();
                Prepared::later(async move {
                    tokio::time::sleep(ms(1)).await;
                    bomb.tick();
                    Ok::<_, std::io::Error>(HeaderMap::new())
                })
            }));
        }
        Listener => setup.observers = vec![Arc::new(move |_: &str, _: &Event| bomb.tick())],
        TripRule => policy = policy.breaker(BreakerPolicy::standard().trip(move || bomb.clone())),
        Delays => {
            let delays = move || {
                bomb.tick();
                let bomb = bomb.clone();
                std::iter::repeat_with(move || {
                    bomb.tick();
                    ms(2)
                })
            };
            policy = policy.retry(RetryPolicy::standard().delays(delays));
        }
    }
    let script = Script::new(steps);
    let core = Arc::new(
        Core::new(Setup { policies: policy.into(), entropy: Entropy::seeded(42), ..setup }).unwrap(),
    );
    let service = ResilienceLayer::of(Arc::clone(&core)).layer(script.clone());
    Rig { script, service, core, events: Arc::default() }
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_at_any_turn_costs_nothing() {
    let scripts: [Vec<Step>; 4] = [
        vec![answer(200)],
        vec![answer(503), broken(), answer(503), answer(200)],
        vec![asks_to_wait(429, "1"), Step::Break { after: ms(9) }, answer(200)],
        vec![answer_with(200, vec![Piece::Data("x".into()), Piece::Pause(ms(9)), Piece::Break]), answer(200)],
    ];
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(ms(3))).max_hedges(2);
    let policies = [Policy::standard(), Policy::standard().hedge(hedge)];
    let (mut runs, mut gone_off) = (0, 0);
    for closure in [Classifier, Closure::Hook, HooksFuture, Listener, TripRule, Delays] {
        let mut of_this = 0;
        for (steps, policy, buffered) in scripts.iter().flat_map(|steps| {
            policies.iter().flat_map(move |policy| [false, true].map(|buffered| (steps, policy, buffered)))
        }) {
            for turn in 1..=10 {
                let bomb = Bomb::new(turn);
                let rig = rig(closure, policy.clone(), &bomb, steps.clone());
                let options = if buffered { CallOptions::new().buffered(1024) } else { CallOptions::new() };
                let before = Before::of(&rig);
                let mut service = rig.service.clone();
                let call = tokio::spawn(async move {
                    if let Ok(response) = service.call(Rig::request(Method::GET, options)).await {
                        let _ = text(response).await;
                    }
                });
                let ended = call.await.is_ok();
                let name = format!(
                    "{closure:?} at turn {turn}, {steps:?}, hedged {}, buffered {buffered}",
                    policy.hedge.is_some()
                );
                before.is_back(&rig, ended).unwrap_or_else(|found| panic!("{name}: {found}"));
                of_this += u32::from(bomb.disarm());
                runs += 1;
                rig.script.then([answer(200)]);
                let next = rig.get().await.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(text(next).await.unwrap(), "body", "{name}");
            }
        }
        println!("{closure:?} blew up in {of_this} calls");
        assert!(of_this > 0, "{closure:?} was never asked");
        gone_off += of_this;
    }
    println!("{runs} calls, {gone_off} with a panic, nothing kept");
}
