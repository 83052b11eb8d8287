//! The signals the demo sends, and the limit on open files, through rustix: no `unsafe` here.

use std::io;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// Freezes a process where it stands: its port still accepts, nothing answers. A hang, not a
    /// refusal.
    Stop,
    /// Lets a frozen process go on.
    Continue,
    /// Tells a process to end.
    Terminate,
    /// Ends a process without a word, stopped or not.
    Kill,
}

/// Sends `signal` to the process `pid`.
#[cfg(unix)]
pub(crate) fn send(pid: u32, signal: Signal) -> io::Result<()> {
    use rustix::process::{Pid, Signal as Native, kill_process};
    let no_such = || io::Error::new(io::ErrorKind::NotFound, format!("no process {pid}"));
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(no_such)?;
    let signal = match signal {
        Signal::Stop => Native::STOP,
        Signal::Continue => Native::CONT,
        Signal::Terminate => Native::TERM,
        Signal::Kill => Native::KILL,
    };
    Ok(kill_process(pid, signal)?)
}

/// Whether there is a process `pid`.
#[cfg(unix)]
pub(crate) fn is_alive(pid: u32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // One that may not be asked is there, too.
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
pub(crate) fn is_alive(_pid: u32) -> bool {
    true
}

/// Raises the limit on open files, for this process and its children, to at most `wanted`: while
/// user-service hangs, the naive twin holds a connection on either side for every waiting order.
/// Returns what it is then.
#[cfg(unix)]
pub(crate) fn allow_open_files(wanted: u64) -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if let Some(now) = limit.current.filter(|now| *now < current) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
        return raised.map_or_else(|error| Err(error.into()), |()| Ok(current.max(now)));
    }
    Ok(limit.current.unwrap_or(u64::MAX))
}

#[cfg(not(unix))]
pub(crate) fn send(_pid: u32, signal: Signal) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{signal:?} is a Unix signal: the demo needs Unix"),
    ))
}

#[cfg(not(unix))]
pub(crate) fn allow_open_files(_wanted: u64) -> io::Result<u64> {
    Ok(u64::MAX)
}
