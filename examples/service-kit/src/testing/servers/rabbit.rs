//! `RabbitMQ`.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use lapin::{Connection, ConnectionProperties};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{Bound, log, tail};
use crate::ports::{Reserved, reserve};

/// The script that runs the server itself; the one in the path changes users first.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A broker without anything in it.
#[derive(Debug)]
pub struct Rabbit {
    /// Its own, that of its distribution, and that of Erlang's names.
    ports: Reserved,
    folder: TempDir,
    /// Where Erlang's nodes find one another. It would be started as a daemon otherwise, and stay.
    _names: Bound,
    server: Option<Bound>,
}

impl Rabbit {
    /// Whether it is on this machine.
    pub fn is_installed() -> bool {
        Path::new(SERVER).exists() && Command::new("epmd").arg("-names").output().is_ok()
    }

    /// Makes room for it, and doesn't start it yet.
    pub fn new() -> io::Result<Self> {
        let ports = reserve(3)?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("plugins"), "[].")?;
        let mut names = Bound::command("epmd");
        names
            .args(["-port", &ports[2].to_string(), "-address", "127.0.0.1"])
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let names = Bound::start(&mut names)?;
        Ok(Self { ports, folder, _names: names, server: None })
    }

    pub fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.ports[0])
    }

    pub fn start(&mut self) -> io::Result<()> {
        let file = |name: &str| self.folder.path().join(name);
        let log = log(&file("log"))?;
        let mut server = Bound::command(SERVER);
        server
            .env("HOME", self.folder.path())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.ports[2].to_string())
            .env("RABBITMQ_NODENAME", format!("test{}@localhost", self.ports[0]))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.ports[0].to_string())
            .env("RABBITMQ_DIST_PORT", self.ports[1].to_string())
            .env("RABBITMQ_MNESIA_BASE", file("data"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_LOG_BASE", file("logs"))
            .env("RABBITMQ_PID_FILE", file("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins"))
            .env("RABBITMQ_CONFIG_FILE", file("none"))
            .env("RABBITMQ_CONF_ENV_FILE", file("none"))
            .stdout(log.try_clone()?)
            .stderr(log);
        self.server = Some(Bound::start(&mut server)?);
        Ok(())
    }

    /// Whether it talks.
    pub async fn is_ready(url: &str) -> bool {
        let talk = Connection::connect(url, ConnectionProperties::default());
        let Ok(Ok(connection)) = timeout(Duration::from_millis(500), talk).await else { return false };
        let _ = connection.close(200, "bye".into()).await;
        true
    }

    /// Waits until it talks.
    pub async fn ready(&self) {
        let url = self.url();
        for _ in 0..200 {
            if Self::is_ready(&url).await {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("RabbitMQ doesn't come up:\n{}", self.log());
    }

    /// Kills it as a machine that loses its power does, but for the disk's cache.
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
}
