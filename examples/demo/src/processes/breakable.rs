//! What lets a held demo be broken by hand: a token for the user-services' faults, and a proxy
//! before each door of theirs, driven by Toxiproxy's API.

use std::io;

use fault_proxy::{Proxies, ProxySpec};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::Fleet;
use crate::by_hand::Handle;
use crate::cli::{Cast, Client};
use crate::ports::UserPorts;

/// Settings of the fault kit: as many requests as pile up may be hit, not a hundred.
pub(super) const NO_CAP: &str = r#"{"max_active": 100000}"#;

pub(super) struct Breakable {
    pub(super) token: String,
    /// Where Toxiproxy's API is.
    pub(super) toxics: String,
    /// By replica of user-service and caller.
    doors: Vec<[String; Client::ALL.len()]>,
}

impl Breakable {
    /// Proxies before these user-services. They end with the demo.
    pub(super) async fn start(users: &[UserPorts], cast: &Cast) -> io::Result<Self> {
        let proxies = Proxies::new();
        let mut doors = Vec::new();
        for (replica, ports) in users.iter().enumerate() {
            let mut here: [String; Client::ALL.len()] = Default::default();
            for client in cast.callers() {
                let name = match users.len() {
                    1 => client.name().to_owned(),
                    _ => format!("{}-{}", client.name(), replica + 1),
                };
                let upstream = format!("127.0.0.1:{}", ports.door[client as usize]);
                let spec = ProxySpec { name, upstream, ..ProxySpec::default() };
                let proxy = proxies.create(spec).await.map_err(io::Error::other)?;
                here[client as usize] = format!("http://{}", proxy.listen);
            }
            doors.push(here);
        }
        let api = TcpListener::bind(("127.0.0.1", 0)).await?;
        let toxics = format!("http://{}", api.local_addr()?);
        tokio::spawn(fault_proxy::serve(api, proxies));
        Ok(Self { token: Uuid::new_v4().simple().to_string(), toxics, doors })
    }

    /// Where `client` finds the user-services.
    pub(super) fn doors(&self, client: Client) -> Vec<String> {
        self.doors.iter().map(|doors| doors[client as usize].clone()).collect()
    }
}

impl Fleet {
    /// What whoever breaks a held demo needs.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let breakable = self.breakable.as_ref()?;
        let faults = (0..self.users.len()).map(|replica| format!("{}/faults", self.user_control(replica)));
        Some(Handle {
            pid: std::process::id(),
            token: breakable.token.clone(),
            faults: faults.collect(),
            toxics: breakable.toxics.clone(),
        })
    }
}
