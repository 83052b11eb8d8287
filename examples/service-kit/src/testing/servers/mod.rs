//! Servers of our own, to be killed: Debian's, on free ports of this host, each with a folder of
//! its own.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "amqp")]
mod rabbit;

use std::{
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

#[cfg(feature = "postgres")]
pub use self::postgres::Postgres;
#[cfg(feature = "amqp")]
pub use self::rabbit::Rabbit;

/// A process in a group of its own that doesn't outlive this one, however that ends: even `kill -9`
/// closes the pipe that its watchdog reads from.
#[derive(Debug)]
pub struct Bound(Child);

impl Bound {
    /// A command to be started with [`Bound::start`]. What is started has the pid of the command's
    /// own process.
    pub fn command(program: impl AsRef<Path>) -> Command {
        // The watchdog gets its input by another number: a shell would give it none.
        const WATCHED: &str =
            r#"exec 3<&0; (read _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec "$0" "$@" </dev/null 3<&-"#;
        let mut command = Command::new("sh");
        command.args(["-c", WATCHED]).arg(program.as_ref());
        command
    }

    /// Starts a [`Bound::command`].
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.process_group(0).stdin(Stdio::piped()).spawn().map(Self)
    }

    /// Asks it to end, and waits for that for two seconds.
    pub fn end(&mut self, by: Signal) {
        if let Some(process) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(process, by);
        }
        for _ in 0..100 {
            if self.ended().is_some() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// How it ended, if it has by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }
}

/// `kill -9` to it and all that it has started and left in its group.
impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// A file that a server's log goes to.
fn log(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let log = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
