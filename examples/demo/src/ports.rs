//! Where everyone listens.

use std::{array, io};

use service_kit::ports::{Reserved, reserve};

use crate::cli::Client;

/// The ports, all on loopback, fixed for the whole run so that user-service comes back where it
/// was.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    /// By replica of user-service.
    pub(crate) users: Vec<UserPorts>,
    /// By order-service.
    pub(crate) order: [u16; Client::ALL.len()],
    /// In front of each order-service, where something is.
    pub(crate) gateway: [u16; Client::ALL.len()],
    /// Of the resilient one's admin page.
    pub(crate) admin: u16,
    _reserved: Reserved,
}

/// Where one replica of user-service listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserPorts {
    pub(crate) control: u16,
    /// It as each order-service knows it.
    pub(crate) door: [u16; Client::ALL.len()],
}

const CLIENTS: usize = Client::ALL.len();
const USER: usize = 1 + CLIENTS;

impl Ports {
    /// This demo's as long as these live.
    pub(crate) fn choose(replicas: usize) -> io::Result<Self> {
        let reserved = reserve(replicas * USER + 2 * CLIENTS + 1)?;
        let (users, others) = reserved.split_at(replicas * USER);
        let user = |&[control, door @ ..]: &[u16; USER]| UserPorts { control, door };
        Ok(Self {
            users: users.as_chunks().0.iter().map(user).collect(),
            order: array::from_fn(|client| others[client]),
            gateway: array::from_fn(|client| others[CLIENTS + client]),
            admin: others[2 * CLIENTS],
            _reserved: reserved,
        })
    }
}
