//! The simulator ranks policies as the storm does: peers' defaults written as ours, in the order
//! that `docs/COMPARISON.md` has of the peers themselves, over sockets.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use resilient_client::Policy;
use resilient_client::policy::PolicySet;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::testing::simulate::{Finding, Scenario, simulate, what_if};

/// Files, and whose row of the storm's table they stand beside. resilience4j isn't in it.
const PEERS: [(&str, &str, Told); 4] = [
    ("ours", "ours", Told::Bounds),
    ("reqx", "reqx", Told::All),
    ("polly", "fetch (seatbelt)", Told::All),
    ("reqwest-retry", "reqwest-retry, defaults", Told::Nothing),
];

/// What the storm tells a peer in place of its own defaults, as `benches/README.md` says.
#[derive(Clone, Copy, Debug)]
enum Told {
    Nothing,
    /// 500 ms an attempt, 10 s in all.
    Bounds,
    /// And four attempts 25 to 250 ms apart.
    All,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn policy(name: &str) -> Policy {
    let text = read(&format!("resilient-client/examples/what-if/policies/{name}.toml"));
    let set: PolicySet = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    set.check().unwrap_or_else(|error| panic!("{name}: {error}"));
    set.base().clone()
}

fn told(policy: Policy, told: Told) -> Policy {
    let ms = Duration::from_millis;
    let bounds = TimeoutPolicy::standard().attempt(ms(500)).total(Duration::from_secs(10));
    match told {
        Told::Nothing => policy,
        Told::Bounds => policy.timeout(bounds),
        Told::All => {
            policy.timeout(bounds).retry(RetryPolicy::standard().max_attempts(4).initial(ms(25)).cap(ms(250)))
        }
    }
}

/// Success in percent and requests per call, by stack and column.
fn storm() -> HashMap<(String, String), (f64, f64)> {
    let (text, mut found, mut columns) = (read("docs/COMPARISON.md"), HashMap::new(), Vec::new());
    let (_, under_fault) = text.split_once("## Under fault").expect("the storm's part");
    for line in under_fault.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        if cells[0] == "stack" {
            columns = cells;
            continue;
        }
        for (column, cell) in columns.iter().zip(&cells).skip(1) {
            let numbers: Vec<_> = cell.split(" / ").filter_map(|number| number.parse().ok()).collect();
            if let [success, requests, _] = numbers[..] {
                // The medians come first, and then their spread.
                found.entry((cells[0].clone(), column.clone())).or_insert((success, requests));
            }
        }
    }
    found
}

#[test]
fn policies_rank_as_in_the_storm() {
    let storm = storm();
    let mut compared = 0;
    for (scenario, column, of) in [
        (Scenario::errors(0.3), "503 x 30 %", Of::Success),
        (Scenario::outage(), "503 x 100 %", Of::Requests),
        (Scenario::overload(), "overload, recovery", Of::Success),
    ] {
        let of_each = PEERS.map(|(file, stack, tells)| {
            let finding = simulate(&told(policy(file), tells), &scenario).unwrap();
            let measured = storm[&(stack.to_owned(), column.to_owned())];
            println!("{column}: {stack}: {measured:?}; simulated: {finding}");
            (stack, of.measured(measured), of.simulated(&finding))
        });
        for (stack, measured, simulated) in of_each {
            for (other, theirs, their_simulated) in of_each {
                if of.is_more(measured, theirs) {
                    compared += 1;
                    assert!(simulated > their_simulated, "{column}: {stack} before {other}");
                }
            }
        }
    }
    assert!(compared >= 8, "only {compared} pairs differ: the check sees nothing");
}

#[derive(Clone, Copy, Debug)]
enum Of {
    Success,
    Requests,
}

impl Of {
    fn measured(self, (success, requests): (f64, f64)) -> f64 {
        match self {
            Self::Success => success,
            Self::Requests => requests,
        }
    }

    fn simulated(self, finding: &Finding) -> f64 {
        match self {
            Self::Success => finding.succeeded,
            Self::Requests => finding.amplification,
        }
    }

    /// Whether the storm tells the two apart.
    fn is_more(self, one: f64, other: f64) -> bool {
        match self {
            Self::Success => one > other + 10.0,
            Self::Requests => one > other + 0.5,
        }
    }
}

/// Every file can work, and its table is the same each time.
#[test]
fn the_same_file_and_seed_give_the_same_table() {
    let [one, again] = [3, 3].map(|seed| what_if(&policy("ours"), seed).unwrap());
    println!("ours\n{one}");
    assert_eq!(one.to_string(), again.to_string());
    assert!(one.warnings.is_empty(), "{one}");
    let other = simulate(&policy("resilience4j"), &Scenario::outage().seed(4)).unwrap();
    assert_ne!(other, simulate(&policy("resilience4j"), &Scenario::outage()).unwrap());
    let blamed = what_if(&policy("reqwest-retry"), 1).unwrap();
    println!("reqwest-retry\n{blamed}");
    assert!(blamed.warnings.iter().any(|warning| warning.setting == "retry.max_attempts"), "{blamed}");
}
