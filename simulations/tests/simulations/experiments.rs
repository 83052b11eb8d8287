//! What the policies are worth, measured whole on a virtual clock. Each experiment prints its
//! figures (`--nocapture`), names its seed, and has a control that fails.

use std::time::Duration;

use super::script::{Step, answer, ms};
use super::*;
use resilient_client::policy::budget::BudgetPolicy;
use resilient_client::policy::hedge::{Delay, HedgePolicy};
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::rng::Rng;
use resilient_client::testkit::rig::text;
use resilient_client::time::now;

/// A server that fails a share of its requests at random.
fn failing(share: f64, seed: u64) -> impl FnMut() -> Step + Send + 'static {
    let mut rng = Rng::seeded(seed);
    move || if rng.unit() < share { answer(503) } else { answer(200) }
}

/// Calls at a fixed rate, whatever becomes of them; how many succeeded, with their bodies, and
/// every latency, sorted.
async fn open_loop(rig: &Rig, calls: u32, every: Duration, options: &CallOptions) -> (u32, Vec<Duration>) {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..calls {
        let (begun, call) = (now(), rig.start(Method::GET, options.clone()));
        running.spawn(async move {
            let good = match call.await {
                Ok(response) => response.status() == 200 && text(response).await.is_ok(),
                Err(_) => false,
            };
            (good, now().since(begun))
        });
        tokio::time::sleep(every).await;
    }
    let ended = running.join_all().await;
    let good = ended.iter().filter(|(good, _)| *good).count();
    let mut latencies: Vec<_> = ended.into_iter().map(|(_, latency)| latency).collect();
    latencies.sort();
    (u32::try_from(good).unwrap(), latencies)
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

fn amplification(rig: &Rig, calls: u32) -> f64 {
    f64::from(u32::try_from(rig.script.count()).unwrap()) / f64::from(calls)
}

/// E2: 200 calls a second for a minute, every one failing, the breaker off.
#[tokio::test(start_paused = true)]
async fn e2_a_total_outage_is_not_amplified() {
    const CALLS: u32 = 12_000;
    let off = Policy::standard().breaker(None);
    let rig = Rig::new(&off, [answer(503)]);
    open_loop(&rig, CALLS, ms(5), &CallOptions::new()).await;
    let ours = amplification(&rig, CALLS);
    assert_eq!(
        rig.script.count(),
        12_000 + 10,
        "attempts are calls and the budget's first ten tokens, exactly"
    );

    let naive = Rig::new(&off.budget(None), [answer(503)]);
    open_loop(&naive, CALLS, ms(5), &CallOptions::new()).await;
    println!("E2: amplification {ours:.4}, without a budget {:.2}", amplification(&naive, CALLS));
    assert!(ours <= 1.01);
    assert!((amplification(&naive, CALLS) - 4.0).abs() < 1e-9, "the control multiplies by four");
}

/// E2b: random failures are worth retrying.
#[tokio::test(start_paused = true)]
async fn e2b_random_failures_are_hidden() {
    const CALLS: u32 = 10_000;
    for (share, least) in [(0.05, 0.999), (0.20, 0.99)] {
        for seed in [1, 2, 3] {
            let rig = Rig::new(&Policy::standard(), [answer(200)]);
            rig.script.follow(failing(share, seed));
            let (good, _) = open_loop(&rig, CALLS, ms(3), &CallOptions::new()).await;
            let control = Rig::new(&Policy::standard().retry(None), [answer(200)]);
            control.script.follow(failing(share, seed));
            let (bare, _) = open_loop(&control, CALLS, ms(3), &CallOptions::new()).await;
            let rate = |good: u32| f64::from(good) / f64::from(CALLS);
            println!(
                "E2b seed {seed}: {:.0} % failing, success {:.2} % at amplification {:.2}, without retries {:.2} %",
                share * 100.0,
                rate(good) * 100.0,
                amplification(&rig, CALLS),
                rate(bare) * 100.0
            );
            assert!(rate(good) >= least, "{} < {least}", rate(good));
            assert!(rate(bare) < least, "the control fails");
        }
    }
}

/// Issue 3: a stalled and a truncated body in twenty each cost nothing but time, when bodies are
/// part of the attempt.
#[tokio::test(start_paused = true)]
async fn stalled_and_truncated_bodies_are_rescued_within_one_attempt_timeout() {
    use super::script::{Piece, answer_with};
    const CALLS: u32 = 5_000;
    let spoilt = |seed| {
        let mut rng = Rng::seeded(seed);
        move || match rng.unit() {
            unit if unit < 0.05 => {
                answer_with(200, vec![Piece::Data("bo".into()), Piece::Pause(Duration::from_mins(1))])
            }
            unit if unit < 0.10 => answer_with(200, vec![Piece::Data("bo".into()), Piece::Break]),
            _ => answer(200),
        }
    };
    let policy = Policy::standard().timeout(TimeoutPolicy::standard().attempt(ms(500)));
    for seed in [1, 2, 3] {
        let run = async |options: CallOptions| {
            let rig = Rig::new(&policy, [answer(200)]);
            rig.script.follow(spoilt(seed));
            let (good, latencies) = open_loop(&rig, CALLS, ms(5), &options).await;
            (f64::from(good) / f64::from(CALLS), p99(&latencies))
        };
        let (ours, slowest) = run(CallOptions::new().buffered(1024)).await;
        let (unread, _) = run(CallOptions::new()).await;
        println!(
            "bodies seed {seed}: success {:.2} %, p99 {slowest:?}; unread {:.2} %",
            ours * 100.0,
            unread * 100.0
        );
        assert!(ours >= 0.999, "{ours}");
        assert!(slowest <= ms(550), "{slowest:?}");
        assert!(unread < 0.95, "the control loses them");
    }
}

/// E6 on the engine: a tail of slow answers is cut, and the extra load keeps to the cap.
#[tokio::test(start_paused = true)]
async fn e6_hedging_cuts_the_tail_within_its_cap() {
    const CALLS: u32 = 12_000;
    let lognormal = |seed| {
        let mut rng = Rng::seeded(seed);
        move || {
            // Box and Muller's normal from two uniforms.
            let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
            let normal = radius * (std::f64::consts::TAU * rng.unit()).cos();
            let late = if rng.unit() < 0.05 { 0.2 } else { 0.0 };
            let after = Duration::from_secs_f64(0.010 * (0.5 * normal).exp() + late);
            Step::Answer { after, status: 200, retry_after: None, body: Vec::new() }
        }
    };
    let (mut all_bare, mut all_ours) = (Duration::ZERO, Duration::ZERO);
    for seed in [1, 2, 3] {
        let run = async |policy: Policy| {
            let rig = Rig::new(&policy, [answer(200)]);
            rig.script.follow(lognormal(seed));
            // Until a second's worth of answers is known, there is nothing to call late.
            open_loop(&rig, 500, ms(2), &CallOptions::new()).await;
            let before = rig.script.count();
            let (_, latencies) = open_loop(&rig, CALLS, ms(2), &CallOptions::new()).await;
            let sent = u32::try_from(rig.script.count() - before).unwrap();
            (p99(&latencies), f64::from(sent) / f64::from(CALLS) - 1.0)
        };
        let (bare, _) = run(Policy::standard()).await;
        let (ours, extra) = run(Policy::standard().hedge(HedgePolicy::standard())).await;
        let eager = HedgePolicy::standard().delay(Delay::Fixed(ms(10))).max_share(1.0);
        let loose = BudgetPolicy::standard().deposit_per_success(1.0);
        let (_, eager) = run(Policy::standard().hedge(eager).budget(loose)).await;
        println!(
            "E6 seed {seed}: p99 {ours:.1?} from {bare:.1?}, {:.2} % extra; without a cap {:.1} % extra",
            extra * 100.0,
            eager * 100.0
        );
        (all_bare, all_ours) = (all_bare + bare, all_ours + ours);
        assert!(extra <= 0.07 + 0.002, "{extra}");
        assert!(eager > 0.2, "the control floods the server");
    }
    assert!(all_ours <= all_bare.mul_f64(0.3), "mean p99 {:?} of {:?}", all_ours / 3, all_bare / 3);
}
