//! A demo that is held while a test looks at it.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

/// Killed when a test fails; its children see that it is gone.
pub(crate) struct Held {
    child: Child,
    said: Receiver<String>,
    /// What it has said so far.
    pub(crate) lines: Vec<String>,
    /// Where its temporary files are, so that no other held demo is found there.
    temporary: TempDir,
}

impl Held {
    /// Under a light load, unless `args` say more; returns once it is.
    pub(crate) fn start(args: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_demo"))
            .args(["--hold", "--reads", "10"])
            .args(if args.contains(&"--orders") { &[][..] } else { &["--orders", "10"] })
            .args(args)
            .env("TMPDIR", temporary.path())
            .env("TERM", "xterm-256color")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo");
        let stdout = child.stdout.take().expect("its output");
        let (says, said) = channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(says.send(line)));
        });
        let mut held = Self { child, said, lines: Vec::new(), temporary };
        // To the second line of the table: it is under load then.
        held.seconds(2);
        held
    }

    /// The next lines of the table.
    pub(crate) fn seconds(&mut self, count: usize) -> Vec<String> {
        let mut seconds = Vec::new();
        while seconds.len() < count {
            let line = self.said.recv_timeout(Duration::from_secs(20)).expect("it goes on");
            seconds.extend(line.contains(" yours ").then(|| line.clone()));
            self.lines.push(line);
        }
        seconds
    }

    /// `cargo demo` with these arguments, in another terminal of the same user.
    pub(crate) fn demo(&self, args: &[&str]) -> Output {
        demo_in(&self.temporary, args)
    }

    /// The same so many times, all at once.
    pub(crate) fn demos(&self, count: usize, args: &[&str]) -> Vec<Output> {
        std::thread::scope(|scope| {
            let temporary = &self.temporary;
            let all: Vec<_> = (0..count).map(|_| scope.spawn(|| demo_in(temporary, args))).collect();
            all.into_iter().map(|one| one.join().expect("it ends")).collect()
        })
    }

    /// Where its temporary files are.
    pub(crate) fn temporary(&self) -> &Path {
        self.temporary.path()
    }

    /// Ctrl-C, and the end.
    #[cfg(unix)]
    pub(crate) fn interrupt(&mut self) -> std::process::ExitStatus {
        use rustix::process::{Pid, Signal, kill_process};
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it lives");
        self.child.wait().expect("it ends")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
    }

    /// What it has left in its temporary folder.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.temporary.path()).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The demo with these arguments and this temporary folder.
pub(crate) fn demo_in(temporary: &TempDir, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(args).env("TMPDIR", temporary.path()).output().expect("the demo")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
