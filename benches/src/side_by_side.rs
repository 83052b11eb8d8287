//! Subjects timed in turns, so that whatever else the machine does falls on all of them alike.
//!
//! Criterion measures one subject after the other; on a shared machine a ratio of two such numbers
//! is a ratio of two moods of the machine. Here each round runs every subject for a millisecond or
//! two, each round in another order, and a ratio is the median of the rounds' ratios.

use std::time::Duration;

use crate::args::Effort;
use crate::subject::Subject;

/// Nanoseconds of each subject in each round.
#[derive(Debug)]
pub struct Timings {
    columns: Vec<(&'static str, Vec<f64>)>,
}

/// Times `subjects` in turns.
pub fn side_by_side(subjects: &mut [Subject], effort: Effort) -> Timings {
    let slice = Duration::from_millis(effort.pick(2, 1, 0));
    let rounds = effort.pick(301, 61, 1);
    let batches: Vec<u64> = subjects.iter_mut().map(|subject| batch(subject, slice)).collect();
    let mut columns: Vec<(&'static str, Vec<f64>)> =
        subjects.iter().map(|subject| (subject.name(), Vec::with_capacity(rounds))).collect();
    for round in 0..rounds {
        for turn in 0..subjects.len() {
            let i = (round + turn) % subjects.len();
            let time = subjects[i].run(batches[i]);
            columns[i].1.push(time.as_secs_f64() * 1e9 / batches[i] as f64);
        }
    }
    Timings { columns }
}

/// How many runs fill `slice`.
fn batch(subject: &mut Subject, slice: Duration) -> u64 {
    let mut n = 1;
    while subject.run(n) < slice && n < 1 << 30 {
        n *= 2;
    }
    n
}

impl Timings {
    fn column(&self, name: &str) -> &[f64] {
        self.columns
            .iter()
            .find(|(column, _)| *column == name)
            .map_or_else(|| panic!("no subject {name}"), |(_, times)| times)
    }

    /// The median over the rounds.
    pub fn median(&self, name: &str) -> f64 {
        median(self.column(name).to_vec())
    }

    /// The median of `name` over `peer`, round by round.
    pub fn ratio(&self, name: &str, peer: &str) -> f64 {
        median(self.column(name).iter().zip(self.column(peer)).map(|(ours, peer)| ours / peer).collect())
    }

    /// The median of `name` less `peer`, round by round.
    pub fn difference(&self, name: &str, peer: &str) -> f64 {
        median(self.column(name).iter().zip(self.column(peer)).map(|(ours, peer)| ours - peer).collect())
    }

    /// Prints each subject's median and its quartiles.
    pub fn print(&self, title: &str) {
        println!("\n{title}: median [quartiles], ns, in turns");
        for (name, times) in &self.columns {
            let of = |share| quantile(times.clone(), share);
            println!("  {name:<44} {:>9.1} [{:.1} {:.1}]", of(0.5), of(0.25), of(0.75));
        }
    }
}

/// The middle value.
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value that `share` of the values lie below; NaN when there are none.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
