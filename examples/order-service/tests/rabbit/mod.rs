//! A `RabbitMQ` of our own, to be killed: Debian's, on free ports of this host, with a folder of its own.
#![allow(unreachable_pub, reason = "of a test")]

use std::{
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use service_kit::amqp::lapin::{Connection, ConnectionProperties};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// The script that runs the server itself; the one in the path changes users first.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

pub struct Rabbit {
    port: u16,
    distribution_port: u16,
    names_port: u16,
    folder: TempDir,
    /// Where Erlang's nodes find one another. It would be started as a daemon otherwise, and stay.
    names: Child,
    server: Option<Child>,
}

impl Rabbit {
    pub fn is_installed() -> bool {
        Path::new(SERVER).exists() && Command::new("epmd").arg("-names").output().is_ok()
    }

    pub fn new() -> Self {
        let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(free);
        let (port, distribution_port, names_port) = (ports[0], ports[1], ports[2]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plugins"), "[].").unwrap();
        let names = bound("epmd")
            .args(["-port", &names_port.to_string(), "-address", "127.0.0.1"])
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { port, distribution_port, names_port, folder, names, server: None }
    }

    pub fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    pub fn start(&mut self) {
        let file = |name: &str| self.folder.path().join(name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(file("log")).unwrap();
        let server = bound(SERVER)
            .env("HOME", self.folder.path())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.names_port.to_string())
            .env("RABBITMQ_NODENAME", format!("test{}@localhost", self.port))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", file("data"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_LOG_BASE", file("logs"))
            .env("RABBITMQ_PID_FILE", file("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins"))
            .env("RABBITMQ_CONFIG_FILE", file("none"))
            .env("RABBITMQ_CONF_ENV_FILE", file("none"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
    }

    /// Waits until it talks.
    pub async fn ready(&self) {
        let url = self.url();
        for _ in 0..200 {
            let talk = Connection::connect(&url, ConnectionProperties::default());
            if let Ok(Ok(connection)) = timeout(Duration::from_millis(500), talk).await {
                let _ = connection.close(200, "bye".into()).await;
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("RabbitMQ doesn't come up:\n{}", self.log());
    }

    /// Kills it as a machine that loses its power does, but for the disk's cache.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            end(&mut server);
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.kill();
        end(&mut self.names);
    }
}

/// A command in a process group of its own that doesn't outlive this process, however that ends: its shell reads from us.
fn bound(program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#""$0" "$@" </dev/null & read _; kill -KILL 0"#, program]);
    command.process_group(0).stdin(Stdio::piped());
    command
}

/// Kills all that the process has started and left in its group.
fn end(process: &mut Child) {
    if let Some(group) = Pid::from_raw(process.id().cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = process.wait();
}
