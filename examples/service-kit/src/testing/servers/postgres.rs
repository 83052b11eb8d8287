//! Postgres.

use std::{
    io,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Bound, log, tail};
use crate::ports::{Reserved, reserve};

/// Where Debian puts its versions.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A server with an empty database.
#[derive(Debug)]
pub struct Postgres {
    ports: Reserved,
    programs: PathBuf,
    folder: TempDir,
    /// Whom it runs as, when this process is root, which it refuses to be.
    user: Option<(u32, u32)>,
    server: Option<Bound>,
}

impl Postgres {
    /// Whether it is on this machine.
    pub fn is_installed() -> bool {
        programs().is_some()
    }

    /// Makes an empty one, which takes some seconds, and doesn't start it yet.
    pub fn new() -> io::Result<Self> {
        let programs = programs().ok_or_else(|| io::Error::other("no Postgres on this machine"))?;
        let folder = tempfile::tempdir()?;
        let user = rustix::process::getuid().is_root().then(unprivileged).transpose()?;
        let own = folder.path().join("own");
        std::fs::create_dir(&own)?;
        if let Some((user, group)) = user {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
            chown(&own, Some(user), Some(group))?;
        }
        let ports = reserve(1)?;
        let postgres = Self { ports, programs, folder, user, server: None };
        let mut initdb = postgres.command(Command::new(postgres.programs.join("initdb")))?;
        initdb.arg("-D").arg(postgres.data());
        initdb.args(["-A", "trust", "-U", "test", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        if initdb.status()?.success() {
            return Ok(postgres);
        }
        Err(io::Error::other(format!("initdb failed:\n{}", postgres.log())))
    }

    /// The URL of the database that is there from the beginning.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://test@127.0.0.1:{}/{database}", self.ports[0])
    }

    pub fn start(&mut self) -> io::Result<()> {
        let mut server = self.command(Bound::command(self.programs.join("postgres")))?;
        server.arg("-D").arg(self.data()).args(["-p", &self.ports[0].to_string()]);
        // A kill loses what a process has, not what the system has: whether that reaches the disk
        // is another question.
        for setting in
            ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=200", "shared_buffers=32MB"]
        {
            server.args(["-c", setting]);
        }
        server.arg("-c").arg(format!("unix_socket_directories={}", self.own().display()));
        self.server = Some(Bound::start(&mut server)?);
        Ok(())
    }

    /// Whether it answers.
    pub async fn is_ready(url: &str) -> bool {
        let connect = timeout(Duration::from_millis(500), sqlx::PgConnection::connect(url));
        let Ok(Ok(connection)) = connect.await else { return false };
        let _ = connection.close().await;
        true
    }

    /// Kills the process that started all the others. Those end soon, and until they have it can't
    /// be started again: it ends at once then.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Whether it was started and hasn't ended since.
    pub fn is_running(&mut self) -> bool {
        self.server.as_mut().is_some_and(|server| server.ended().is_none())
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&self.folder.path().join("log"))
    }

    fn own(&self) -> PathBuf {
        self.folder.path().join("own")
    }

    fn data(&self) -> PathBuf {
        self.own().join("data")
    }

    /// As whom and where it runs, and where it logs.
    fn command(&self, mut command: Command) -> io::Result<Command> {
        let log = log(&self.folder.path().join("log"))?;
        command.current_dir(self.own()).stdout(log.try_clone()?).stderr(log);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        Ok(command)
    }
}

/// It has memory of the system's, which `kill -9` would leave there.
impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            server.end(Signal::INT);
        }
    }
}

/// The newest version's folder.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).ok()?;
    let versions = versions.flatten().map(|version| version.path().join("bin"));
    let number = |bin: &PathBuf| -> u32 {
        let version = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        version.and_then(|version| version.parse().ok()).unwrap_or(0)
    };
    versions.filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists()).max_by_key(number)
}

/// A user that isn't root: Postgres's own, or nobody. Its ids are in the system's list.
fn unprivileged() -> io::Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let line = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ["postgres", "nobody"].into_iter().find_map(ids).ok_or_else(|| io::Error::other("no user but root"))
}
