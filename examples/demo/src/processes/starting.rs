//! How each process is started, and what it says.

use std::io;
use std::sync::{Arc, PoisonError};

use tokio::process::Command;

use super::heard::listen;
use super::{Fleet, breakable, url};
use crate::breaker_log::Breaker;
use crate::cli::{ADMIN_TOKEN, CONTROL_TOKEN, Client, FAULTS_TOKEN};
use crate::clock::now;
use crate::counted::arrivals_file;
use crate::faults::heard;
use crate::follow::Told;

impl Fleet {
    /// Starts a replica of user-service (the first is number 0), for the first time or again on the
    /// same ports, and waits for its first answer. They share one database.
    pub(crate) async fn start_user_service(&mut self, replica: usize) -> io::Result<()> {
        let ports = self.ports.users[replica];
        let mut command = Command::new(&self.program);
        command.arg("serve-user");
        for client in self.cast.callers() {
            command.args(["--door", &format!("{}:{}", client.name(), ports.door[client as usize])]);
        }
        command.args(["--control-port", &ports.control.to_string()]);
        command.env(CONTROL_TOKEN, &self.control_token);
        command.arg("--database").arg(self.directory.join("users.db"));
        if self.counted {
            command.arg("--log").arg(self.directory.join(arrivals_file(replica)));
        }
        command.args(self.broker.then_some("--broker"));
        command.args(["--seed", &self.seed.to_string()]);
        if let Some(breakable) = &self.breakable {
            command.env(FAULTS_TOKEN, &breakable.token);
            command.env("RESILIENT_CLIENT_FAULTS", breakable::NO_CAP);
        }
        let name = match self.users.len() {
            1 => "user-service".to_owned(),
            _ => format!("user-service {}", replica + 1),
        };
        self.trace(&name, &mut command);
        let mut process = self.spawn(&name, command).await?;
        if let Some(pipe) = process.child.stdout.take() {
            let arrivals = Arc::clone(&self.arrivals[replica]);
            tokio::spawn(listen(pipe, move |byte| {
                if let Some((caller, mark)) = heard(byte) {
                    arrivals.count(caller, mark);
                }
            }));
        }
        self.wait_until_ready(&mut process, &self.user_control(replica)).await?;
        self.users[replica] = Some(process);
        Ok(())
    }

    pub(super) async fn start_order_service(&mut self, client: Client) -> io::Result<()> {
        let (name, file) =
            (format!("{} order-service", client.name()), format!("orders-{}.db", client.name()));
        let mut command = Command::new(&self.program);
        command.args(["serve-order", "--client", client.name()]);
        command.args(["--port", &self.ports.order[client as usize].to_string()]);
        command.arg("--database").arg(self.directory.join(file));
        if client != Client::Alone {
            command.args([
                "--user-service",
                &self.doors(client).join(","),
                "--naive",
                self.cast.naive_client(client).name(),
            ]);
        }
        if client == Client::Resilient {
            command.args(["--admin-port", &self.ports.admin.to_string()]);
            command.env(ADMIN_TOKEN, &self.admin_token);
        }
        command.args(self.follow.then_some("--streams"));
        command.args((self.broker && client == Client::Resilient).then_some("--broker"));
        if client == Client::Resilient && self.counted {
            command.arg("--reports").arg(&self.directory);
        }
        self.take_away(client, &mut command);
        self.trace(&name, &mut command);
        let mut process = self.spawn(&name, command).await?;
        if let Some(pipe) = process.child.stdout.take() {
            let log = Arc::clone(&self.breakers[client as usize]);
            let streams = Arc::clone(&self.streams[client as usize]);
            let budget = Arc::clone(&self.budget);
            tokio::spawn(listen(pipe, move |byte| {
                budget.note(byte);
                if let Some(told) = Told::of_byte(byte) {
                    streams.note(now(), told);
                }
                if let Some(state) = Breaker::of_mark(byte) {
                    log.lock().unwrap_or_else(PoisonError::into_inner).note(now(), state);
                }
            }));
        }
        self.wait_until_ready(&mut process, &self.order_service(client)).await?;
        self.orders.push(process);
        Ok(())
    }

    pub(super) async fn start_gateway(&mut self, client: Client) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["serve-gateway", "--client", client.name()]);
        command.args(["--port", &self.ports.gateway[client as usize].to_string()]);
        command.args(["--order-service", &self.order_service(client)]);
        self.take_away(client, &mut command);
        let name = format!("{} gateway", client.name());
        self.trace(&name, &mut command);
        let mut process = self.spawn(&name, command).await?;
        self.wait_until_ready(&mut process, &url(self.ports.gateway[client as usize])).await?;
        self.gateways.push(process);
        Ok(())
    }

    /// A file for each: one that is killed at a line spoils no other's.
    fn trace(&self, name: &str, command: &mut Command) {
        if let Some(folder) = &self.traces {
            command.arg("--traces").arg(folder.join(format!("{}.jsonl", name.replace(' ', "-"))));
        }
    }

    /// Where an order-service finds the user-services.
    fn doors(&self, client: Client) -> Vec<String> {
        match &self.breakable {
            Some(breakable) => breakable.doors(client),
            None => self.ports.users.iter().map(|ports| url(ports.door[client as usize])).collect(),
        }
    }

    /// What the resilient ones have to do without.
    fn take_away(&self, client: Client, command: &mut Command) {
        if client == Client::Resilient {
            command.args(self.without.unprotected.then_some("--unprotected"));
            command.args(self.without.parts.iter().flat_map(|part| ["--without", part.name()]));
        }
    }
}
