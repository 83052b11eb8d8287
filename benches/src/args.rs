//! What cargo and criterion put on the command line, as far as our own passes care.

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
    filter: Option<String>,
    /// Criterion was asked for something that isn't measuring, such as `--list`.
    elsewhere: bool,
}

impl Args {
    /// Reads this process's command line. Flags of criterion's that mean nothing here are passed over.
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
        let mut filter = None;
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => bench = true,
                "--quick" => quick = true,
                "--test" => test = true,
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
        Self { effort, filter, elsewhere }
    }

    /// Whether a pass of this name was asked for.
    pub fn wants(&self, pass: &str) -> bool {
        !self.elsewhere && self.filter.as_ref().is_none_or(|filter| pass.contains(filter.as_str()))
    }
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
    }

    #[test]
    fn a_flags_value_is_no_filter() {
        assert!(parse("--save-baseline before --bench").wants("http"));
        assert!(!parse("machines --bench").wants("http"));
        assert!(!parse("--list --bench").wants("http"));
    }
}
