//! `cargo demo fault` and `cargo demo toxic`, with a demo that is held and without one.

#![cfg(unix)]

mod held;

use std::process::Output;

use held::{Held, demo_in, text};

#[test]
fn without_a_held_demo_there_is_nothing_to_break() {
    let temporary = tempfile::tempdir().unwrap();
    for args in [["fault", "clear"], ["toxic", "clear"]] {
        let refused = demo_in(&temporary, &args);
        assert_eq!(refused.status.code(), Some(2));
        let why = text(&refused.stderr);
        assert!(why.contains("no demo is held here") && why.contains("`cargo demo --hold`"), "{why}");
    }
}

#[test]
fn the_help_has_kinds_and_examples() {
    let temporary = tempfile::tempdir().unwrap();
    for (command, parts) in [
        ("fault", ["Usage: cargo demo fault", "reset-before-head", "user-service delay 500ms 30%"]),
        ("toxic", ["Usage: cargo demo toxic", "slow-close", "latency 200ms --upstream"]),
    ] {
        let help = text(&demo_in(&temporary, &[command, "--help"]).stdout);
        for part in parts {
            assert!(help.contains(part), "{part}: {help}");
        }
        assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    }
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Of the naive twin and the resilient one: how many orders failed in these seconds.
fn failed(seconds: &[String]) -> [u64; 2] {
    let of = |line: &String, twin: usize, column: usize| -> u64 {
        let cells = line.split('|').nth(1 + twin).expect("a twin");
        cells.split_whitespace().nth(column).expect("a column").parse().expect("a number")
    };
    let sum = |twin, column| seconds.iter().map(|line| of(line, twin, column)).sum();
    // ok, fail ...; ok, 202, fail ...
    [sum(0, 1), sum(1, 2)]
}

#[test]
fn what_is_broken_by_hand_hits_the_naive_twin_and_not_the_resilient_one() {
    let mut held = Held::start(&[]);
    assert_eq!(said(&held.demo(&["fault"])), "user-service-1: well\n");
    assert_eq!(said(&held.demo(&["toxic", "list"])), "naive: no toxic\nresilient: no toxic\n");

    let broken = said(&held.demo(&["fault", "user-service", "abort", "503"]));
    assert!(broken.contains(r#""kind":"abort""#) && broken.contains(r#""status":503"#), "{broken}");
    let [naive, resilient] = failed(&held.seconds(3));
    assert!(naive > 0 && resilient == 0, "{naive} and {resilient} failed: {:#?}", held.lines);
    let also = said(&held.demo(&["fault", "user-service-1", "hang", "10%", "--also"]));
    assert_eq!(also.matches("hit ").count(), 2, "{also}");
    // Each used to read the rules and put them back with its own, without what others had added.
    held.demos(20, &["fault", "user-service-1", "garbage", "1%", "--also"])
        .iter()
        .for_each(|one| drop(said(one)));
    let all = said(&held.demo(&["fault"]));
    assert_eq!(all.matches("hit ").count(), 22, "{all}");
    assert_eq!(said(&held.demo(&["fault", "clear"])), "user-service-1: well\n");

    let broken = said(&held.demo(&["toxic", "reset-peer"]));
    assert_eq!(broken.matches(r#""name":"reset_peer_downstream""#).count(), 2, "{broken}");
    let replaced = said(&held.demo(&["toxic", "reset-peer", "1ms", "99%"]));
    assert_eq!(replaced.matches("reset_peer").count(), 4, "its name and its type, twice: {replaced}");
    let [naive, resilient] = failed(&held.seconds(3));
    assert!(naive > 0 && resilient == 0, "{naive} and {resilient} failed: {:#?}", held.lines);
    // Each used to look whether there is one, and of those that saw none all but one were refused.
    held.demos(10, &["toxic", "bandwidth", "1000000"]).iter().for_each(|one| drop(said(one)));
    let slow = said(&held.demo(&["toxic", "latency", "1ms", "--upstream"]));
    assert!(slow.contains(r#""name":"latency_upstream""#), "{slow}");
    // What is refused changes neither twin.
    assert_eq!(held.demo(&["toxic", "latency", "61m", "--upstream"]).status.code(), Some(2));
    assert_eq!(said(&held.demo(&["toxic"])), slow);
    assert_eq!(said(&held.demo(&["toxic", "clear"])), "naive: no toxic\nresilient: no toxic\n");

    for (args, says) in [
        (&["fault", "user-service", "poison"][..], "there are delay, abort"),
        (
            &["fault", "user-service", "abort", "99"],
            "user-service refuses it: rules[0].status must be from 200 to 599",
        ),
        (&["toxic", "bandwidth"], "bandwidth needs its rate"),
        (&["toxic", "latency", "61m"], "the proxy refuses it: bad request body: latency"),
        (&["toxic", "clear", "--to", "1"], "no demo with the pid 1 is held here"),
    ] {
        let refused = held.demo(args);
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
        assert!(text(&refused.stderr).contains(says), "{args:?}: {}", text(&refused.stderr));
    }
    assert_eq!(held.interrupt().code(), Some(0));
    assert_eq!(held.left_behind(), [""; 0]);
}

#[test]
fn a_demo_that_is_killed_is_no_longer_found() {
    let mut held = Held::start(&[]);
    assert!(held.demo(&["fault"]).status.success());
    held.kill();
    let refused = held.demo(&["fault"]);
    assert!(text(&refused.stderr).contains("no demo is held here"), "{}", text(&refused.stderr));
    // Its watchdog cleans up after it.
    let mut looks = 0;
    while !held.left_behind().is_empty() && looks < 100 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        looks += 1;
    }
    assert_eq!(held.left_behind(), [""; 0]);
}

/// Of three, "user-service" was said to be dead, and the two others stayed as they were.
#[test]
fn one_that_is_dead_keeps_nobody_from_breaking_the_others() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut held = Held::start(&["replicas"]);
    let first = held.lines.iter().find(|line| line.contains("user-service 1 ")).expect("where it is");
    let pid = first.rsplit(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    kill_process(pid.expect("its pid"), Signal::KILL).unwrap();
    for (args, says) in [
        (&["fault", "user-service", "hang", "1%"][..], r#""kind":"hang""#),
        (&["fault", "list"], r#""kind":"hang""#),
        (&["fault", "clear"], "well"),
    ] {
        let broken = held.demo(args);
        let (told, why) = (text(&broken.stdout), text(&broken.stderr));
        assert_eq!(broken.status.code(), Some(2), "{args:?}: {told}{why}");
        assert_eq!(why, "demo: user-service-1 can't be reached: is it dead?\n", "{args:?}");
        assert!(told.contains("user-service-2: ") && told.contains("user-service-3: "), "{told}");
        assert_eq!(told.matches(says).count(), 2, "{told}");
    }
    assert_eq!(held.interrupt().code(), Some(0));
}
