//! No process outlives the demo, however the demo ends.
//!
//! Every child holds the reading end of a pipe as its standard input; the demo alone holds the
//! writing end and never writes to it. When the demo ends, by returning, by a panic or by
//! `kill -9`, the kernel closes the pipe, the child reads end of file and exits. That needs no
//! signal handler, no pid file and no `unsafe`.
//!
//! A stopped process reads nothing, so one child, the watchdog, is told the others' pids and kills
//! them with `SIGKILL`, which a stopped process can't put off. It also removes the temporary
//! directories.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::time::Duration;

use crate::signal::{self, Signal};

/// Ends this process when the demo ends. A thread, because it must work even if the runtime is
/// stuck.
pub(crate) fn exit_with_parent() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().lock().read(&mut byte), Ok(1)) {}
        std::process::exit(0);
    });
}

/// The line that tells the watchdog of a child.
pub(crate) fn started(pid: u32) -> String {
    format!("+{pid}\n")
}

/// The line that tells the watchdog that a child is about to be reaped, after which its pid may be
/// another's.
pub(crate) fn ended(pid: u32) -> String {
    format!("-{pid}\n")
}

/// The watchdog: waits for the demo to end, then leaves no process and no file behind.
pub(crate) fn kill_orphans(remove: &[PathBuf]) {
    for pid in survivors(std::io::stdin().lock()) {
        // One that has ended by itself is what we want.
        let _ = signal::send(pid, Signal::Kill);
    }
    for directory in remove {
        for _ in 0..20 {
            if std::fs::remove_dir_all(directory).is_ok() || !directory.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Reads what the demo said until it ends: the children born and not reaped.
fn survivors(said: impl BufRead) -> BTreeSet<u32> {
    let mut alive = BTreeSet::new();
    for line in said.lines().map_while(Result::ok) {
        match line.split_at_checked(1) {
            Some(("+", pid)) => alive.extend(pid.parse::<u32>()),
            Some(("-", pid)) => alive.retain(|known| Ok(*known) != pid.parse()),
            _ => {}
        }
    }
    alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_knows_who_is_left() {
        let said = [started(11), started(12), started(13), ended(12), started(14)].concat();
        assert_eq!(survivors(said.as_bytes()), BTreeSet::from([11, 13, 14]));
    }

    #[test]
    fn a_line_cut_short_names_nobody() {
        assert_eq!(survivors("+11\n+\nnonsense\n\n-".as_bytes()), BTreeSet::from([11]));
    }
}
