//! `promtool` runs the alerts on recordings.
//!
//! It comes with Debian's package `prometheus`; where it isn't there, this is skipped and says so.
//! `RECORD_OUTAGE=1` writes the recordings that are kept in `docs/operating/` anew.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::outage::{CALM, TROUBLE, record};
use super::recording::{INTERVAL_SECS, Recording};
use super::{folder, read};

/// What fires at which minute, and about whom: `users` or `stock`.
const FIRING: &[(u64, &[(&str, &str)])] = &[
    (3, &[]),
    (8, &[("CallsFailing", "users"), ("UpstreamDown", "users")]),
    (13, &[]),
    (22, &[("CallsSlow", "users")]),
    (30, &[]),
    (37, &[("CallsFailing", "users"), ("RetriesMultiply", "users"), ("RetryBudgetExhausted", "users")]),
    (44, &[]),
    (48, &[("CallsFailing", "stock"), ("UpstreamDown", "stock")]),
    (54, &[]),
    (65, &[("BreakerHeld", "users")]),
    (69, &[]),
    (72, &[("AttemptsRefused", "users"), ("CallsFailing", "users")]),
    (77, &[]),
    (80, &[("EventsLost", "stock"), ("EventsLost", "users")]),
    (88, &[]),
    (100, &[("BreakerHeld", "users")]),
    (103, &[]),
];

fn is_here() -> bool {
    let here = Command::new("promtool").arg("--version").output().is_ok_and(|ran| ran.status.success());
    if !here {
        println!("SKIPPED: promtool isn't here; it comes with Debian's package prometheus");
    }
    here
}

fn promtool(args: &[&str], file: &Path) {
    let ran = Command::new("promtool").args(args).arg(file).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "promtool {args:?} {}:\n{said}", file.display());
}

/// A recording, and what fires in it, as promtool's tests have it.
fn test_file(recording: &Recording, remark: &str, firing: &[(u64, &[(&str, &str)])]) -> String {
    let rules = read("alerts.yml");
    let wanted = |name: &str| rules.contains(name);
    let mut text = format!(
        "# {remark} Recorded by tests/tests/operating.\nrule_files:\n  - alerts.yml\n\
         evaluation_interval: {INTERVAL_SECS}s\ntests:\n  - interval: {INTERVAL_SECS}s\n    input_series:\n{}",
        recording.input("orders", wanted)
    );
    text.push_str("    promql_expr_test:\n");
    for (minute, alerts) in firing {
        let _ = write!(
            text,
            "      - expr: 'group by (alertname, server_address) (ALERTS{{alertstate=\"firing\"}})'\n        \
             eval_time: {minute}m\n        exp_samples:{}\n",
            if alerts.is_empty() { " []" } else { "" }
        );
        for (alert, whom) in *alerts {
            let _ = write!(
                text,
                "          - labels: '{{alertname=\"{alert}\", server_address=\"{whom}\"}}'\n            value: 1\n"
            );
        }
    }
    text
}

/// Checks a recording made now, and the one that is kept.
fn check(file: &str, text: &str) {
    if std::env::var_os("RECORD_OUTAGE").is_some() {
        std::fs::write(folder().join(file), text).unwrap();
    }
    if !is_here() {
        return;
    }
    let fresh = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join("alerts.yml"), fresh.path().join("alerts.yml")).unwrap();
    std::fs::write(fresh.path().join(file), text).unwrap();
    promtool(&["test", "rules"], &fresh.path().join(file));
    promtool(&["test", "rules"], &folder().join(file));
}

#[test]
fn the_alerts_are_rules() {
    if is_here() {
        promtool(&["check", "rules"], &folder().join("alerts.yml"));
    }
}

/// An alert that none of them fires isn't known to work.
#[test]
fn each_alert_fires_once_and_is_explained() {
    let (rules, page) = (read("alerts.yml"), read("../OPERATING.md"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 8);
    for alert in alerts {
        assert!(FIRING.iter().any(|(_, firing)| firing.iter().any(|(it, _)| *it == alert)), "{alert}");
        assert!(page.contains(&format!("## {alert}\n")), "{alert}");
        let link = format!("docs/OPERATING.md#{}", alert.to_lowercase());
        assert!(rules.contains(&link), "{link}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_they_fire_and_end_with_it() {
    let recording = record(TROUBLE).await;
    check("outage.test.yml", &test_file(&recording, "More than an hour of trouble.", FIRING));
}

#[tokio::test(start_paused = true)]
async fn on_a_calm_day_none_fires() {
    let recording = record(CALM).await;
    let silent: Vec<_> = (1..=recording.minutes()).map(|minute| (minute, &[][..])).collect();
    check("calm.test.yml", &test_file(&recording, "Twenty calm minutes.", &silent));
}
