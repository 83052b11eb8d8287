//! The command itself, with few kills and what any machine has: `SQLite` and no broker.
#![cfg(unix)]

use std::process::{Command, Output};

fn kills(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_kills")).args(args).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), said)
}

const SHORT: &[&str] = &["--sqlite", "--no-broker", "--kills", "8", "--pause-ms", "400", "--seed", "1"];

#[test]
fn killed_services_lose_double_and_misjudge_nothing() {
    let (status, said) = kills(SHORT);
    assert_eq!(status, Some(0), "{said}");
    let verdict = "8 kills: 0 orders lost, 0 doubled, 0 misjudged, 0 pending: held (--seed 1)";
    assert!(said.contains(verdict) && said.contains("no broker, as asked for"), "{said}");
}

#[test]
fn help_fits_80_columns() {
    let (status, help) = kills(&["--help"]);
    assert!(status == Some(0) && help.contains("--kills"), "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[test]
fn what_is_sent_again_without_a_key_is_found_doubled() {
    let args = ["--kills", "30", "--pause-ms", "200"];
    let (status, said) = kills(&[&["--sqlite", "--no-broker", "--without-keys"], &args[..]].concat());
    assert!(status == Some(1) && said.contains("did NOT hold"), "{status:?} {said}");
}
