//! `--faults` is there with the cargo feature of that name, and without it there is nothing of it.

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use user_service::Config;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

fn parsed(args: &[&str]) -> Result<Config, String> {
    let args = ["user-service"].iter().chain(args);
    let matches = Cli::command().try_get_matches_from(args).map_err(|error| error.to_string())?;
    Cli::from_arg_matches(&matches).map(|cli| cli.config).map_err(|error| error.to_string())
}

#[cfg(feature = "faults")]
mod with_the_feature {
    use super::*;

    #[test]
    fn faults_are_off_unless_asked_for() {
        assert!(!parsed(&[]).unwrap().faults.faults);
        let asked = parsed(&["--faults", "--faults-token", "open sesame"]).unwrap().faults;
        assert!(asked.faults && asked.faults_token.as_deref() == Some("open sesame"));
        assert!(!format!("{asked:?}").contains("sesame"), "{asked:?}");
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused_by_name() {
        let config = parsed(&["--faults", "--faults-token", "short"]).unwrap();
        let error = config.faults.open().err().expect("refused");
        assert!(error.is_config() && error.to_string().contains("faults-token"), "{error}");
        // Nobody could use it.
        parsed(&["--faults-token", "short"]).unwrap().faults.open().unwrap();
    }
}

#[cfg(not(feature = "faults"))]
#[test]
fn without_the_feature_the_flag_is_refused() {
    parsed(&[]).unwrap();
    let refused = parsed(&["--faults"]).expect_err("refused");
    assert!(refused.contains("unexpected argument '--faults'"), "{refused}");
}
