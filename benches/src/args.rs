//! What cargo and criterion put on the command line, as far as our own passes care.

use std::path::{Path, PathBuf};

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// `cargo bench`.
    Full,
    /// `cargo bench -- --quick`: the same passes, fewer rounds.
    Quick,
    /// `cargo test --benches`: once, to see that it runs.
    Smoke,
}

impl Effort {
    /// The one of three values that fits.
    pub fn pick<T>(self, full: T, quick: T, smoke: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Smoke => smoke,
        }
    }
}

/// The command line of one bench binary.
#[derive(Clone, Debug)]
pub struct Args {
    /// How long to measure.
    pub effort: Effort,
    /// Where the tables go besides, as JSON, a line each; from the workspace's root.
    pub json: Option<PathBuf>,
    /// How many rounds, where a bench has any to choose; otherwise what suits the effort.
    pub rounds: Option<usize>,
    /// Our own flags that only one bench knows, with what follows each, if anything.
    own: Vec<(String, Option<PathBuf>)>,
    filter: Option<String>,
    /// Criterion was asked for something that isn't measuring, such as `--list`.
    elsewhere: bool,
}

impl Args {
    /// Reads this process's command line. Flags of criterion's that mean nothing here are passed
    /// over.
    pub fn from_env() -> Self {
        Self::parse(std::env::args().skip(1))
    }

    fn parse(args: impl Iterator<Item = String>) -> Self {
        // Criterion's flags whose value would otherwise look like a filter.
        const VALUED: [&str; 9] = [
            "--save-baseline",
            "--baseline",
            "--baseline-lenient",
            "--load-baseline",
            "--sample-size",
            "--warm-up-time",
            "--measurement-time",
            "--color",
            "--output-format",
        ];
        let (mut bench, mut quick, mut test, mut elsewhere) = (false, false, false, false);
        let (mut filter, mut json, mut rounds, mut own) = (None, None, None, Vec::new());
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => bench = true,
                "--quick" => quick = true,
                "--test" => test = true,
                "--json" => json = args.next().map(from_root),
                "--rounds" => rounds = args.next().and_then(|number| number.parse().ok()),
                "--check" | "--update" => own.push((arg, args.next().map(from_root))),
                "--list" | "--profile-time" => elsewhere = true,
                flag if VALUED.contains(&flag) => drop(args.next()),
                flag if flag.starts_with('-') => {}
                _ => filter = Some(arg),
            }
        }
        let effort = match (test || !bench, quick) {
            (true, _) => Effort::Smoke,
            (false, true) => Effort::Quick,
            (false, false) => Effort::Full,
        };
        Self { effort, json, rounds, own, filter, elsewhere }
    }

    /// Whether criterion runs: not for tables to be written down, nor when there is no time for its
    /// warming up.
    pub fn with_criterion(&self) -> bool {
        self.effort != Effort::Quick && self.json.is_none()
    }

    /// The file given with a flag of our own.
    pub fn file(&self, flag: &str) -> Option<&Path> {
        self.own.iter().find(|(own, _)| own == flag).and_then(|(_, file)| file.as_deref())
    }

    /// Whether a pass of this name was asked for.
    pub fn wants(&self, pass: &str) -> bool {
        !self.elsewhere && self.filter.as_ref().is_none_or(|filter| pass.contains(filter.as_str()))
    }
}

/// Cargo starts benches in their package's folder; what a user writes is seen from the workspace.
pub fn from_root(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Args {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn effort_follows_cargos_and_criterions_flags() {
        assert_eq!(parse("--bench").effort, Effort::Full);
        assert_eq!(parse("--quick --bench").effort, Effort::Quick);
        assert_eq!(parse("--test --bench").effort, Effort::Smoke);
        assert_eq!(parse("").effort, Effort::Smoke, "cargo test --benches passes nothing");
        let with_criterion =
            ["--bench", "", "--quick --bench", "--json x --bench"].map(|line| parse(line).with_criterion());
        assert_eq!(with_criterion, [true, true, false, false]);
    }

    #[test]
    fn a_flags_value_is_no_filter() {
        assert!(parse("--save-baseline before --bench").wants("http"));
        assert!(!parse("machines --bench").wants("http"));
        let parsed = parse("--json target/results.jsonl --check benches/instructions.json --bench");
        assert!(parsed.wants("http") && parsed.json.is_some() && parsed.file("--check").is_some());
        assert_eq!(parsed.file("--update"), None);
        assert!(!parse("--list --bench").wants("http"));
        let parsed = parse("--rounds 2 --bench");
        assert!(parsed.rounds == Some(2) && parsed.wants("storm"));
    }
}
