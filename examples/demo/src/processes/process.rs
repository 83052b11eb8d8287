//! One process: this program in another role.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, ChildStdin, Command};

/// One of the other processes.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) child: Child,
    /// Held, never written to (but for the watchdog's): see [`crate::orphan_guard`].
    pub(super) stdin: ChildStdin,
}

/// Starts this program in another role. A process group of its own keeps the terminal's Ctrl-C for
/// the demo, which then ends its children itself.
pub(super) fn spawn(name: &str, command: &mut Command, directory: &Path) -> io::Result<Process> {
    let log = File::options().create(true).append(true).open(log_path(directory, name))?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other(format!("{name} has no pid")))?;
    let stdin = child.stdin.take().ok_or_else(|| io::Error::other(format!("{name} has no stdin")))?;
    Ok(Process { name: name.to_owned(), pid, child, stdin })
}

pub(super) fn log_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{}.log", name.replace(' ', "-")))
}
