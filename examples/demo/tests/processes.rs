//! The demo as a process: what it refuses before it starts, and that nothing is left when it ends.

mod held;

use std::process::{Command, Output};

use held::{Held, text};

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo")).args(args).output().expect("the demo")
}

#[test]
fn the_list_names_every_scenario_and_an_unknown_one_is_answered_with_their_names() {
    let list = demo(&["--list"]);
    assert!(list.status.success());
    let list = text(&list.stdout);
    let names: Vec<_> = list
        .lines()
        .filter(|line| !line.starts_with([' ', 'c']))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.len() >= 9 && names.contains(&"isolation"), "{names:?}");
    let unknown = demo(&["no-such"]);
    assert_eq!(unknown.status.code(), Some(2));
    for name in names {
        assert!(text(&unknown.stderr).contains(name), "{name}");
        assert!(demo(&[name, "--help"]).status.success(), "{name}");
    }
}

#[test]
#[cfg(unix)]
fn too_few_open_files_are_told_beforehand_with_the_number_needed() {
    let line = format!("ulimit -n 256; exec {} --quick", env!("CARGO_BIN_EXE_demo"));
    let refused = Command::new("sh").args(["-c", &line]).output().expect("a shell");
    assert_eq!(refused.status.code(), Some(2));
    let why = text(&refused.stderr);
    assert!(why.contains("256 are allowed") && why.contains("ulimit -n 8"), "{why}");
    assert!(refused.stdout.is_empty(), "nothing was begun");
}

#[test]
fn a_scenario_without_what_it_needs_is_skipped_which_is_no_failure() {
    let skipped = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["broker", "--check"])
        .env("AMQP_URL", "amqp://127.0.0.1:1")
        .output()
        .expect("the demo");
    assert_eq!(skipped.status.code(), Some(0), "{}", text(&skipped.stderr));
    assert!(text(&skipped.stdout).starts_with("SKIPPED: broker: "), "{}", text(&skipped.stdout));
}

#[cfg(unix)]
fn is_alive(pid: &str) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
    test_kill_process(pid.expect("a process's number")).is_ok()
}

#[test]
#[cfg(unix)]
fn all_naive_twins_get_the_same_orders_as_ours() {
    let mut held = Held::start(&["--naive", "all"]);
    let processes: Vec<_> = held.lines.iter().filter(|line| line.contains("  pid ")).collect();
    assert_eq!(processes.len(), 6, "a user-service and five order-services: {processes:#?}");
    let toxics = text(&held.demo(&["toxic"]).stdout);
    assert_eq!(toxics.lines().count(), 4, "each that asks has a door of its own: {toxics}");
    assert_eq!(held.interrupt().code(), Some(0));
    assert_eq!(held.left_behind(), [""; 0]);
}

#[test]
#[cfg(unix)]
fn held_it_says_where_everything_is_and_leaves_nothing_behind_on_ctrl_c() {
    let mut held = Held::start(&[]);
    let lines = held.lines.clone();
    assert!(!lines.iter().any(|line| line.contains('\x1b')), "nothing but text in a pipe: {lines:#?}");
    let pids: Vec<_> =
        lines.iter().filter_map(|line| line.split_once("  pid ")).map(|(_, pid)| pid).collect();
    assert_eq!(pids.len(), 4, "{lines:#?}");
    assert!(pids.iter().all(|pid| is_alive(pid)));
    let directory = lines.iter().find_map(|line| line.trim().strip_prefix("databases and logs"));
    let directory = directory.expect("where they are").trim().to_owned();
    if Command::new("curl").arg("--version").output().is_ok() {
        for line in lines.iter().filter(|line| line.starts_with("curl ")) {
            let shell = format!("{line} --silent --show-error --fail --output /dev/null");
            let ran = Command::new("sh").args(["-c", &shell]).output().expect("a shell");
            assert!(ran.status.success(), "{line}: {}", text(&ran.stderr));
        }
    }
    assert_eq!(held.interrupt().code(), Some(0));
    assert!(!pids.iter().any(|pid| is_alive(pid)), "{pids:?}");
    assert!(!std::path::Path::new(&directory).exists(), "{directory}");
    assert_eq!(held.left_behind(), [""; 0]);
}
