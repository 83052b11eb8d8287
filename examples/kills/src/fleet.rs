//! All processes: started, killed, started again, and looked after in between.

use std::{fs::File, path::Path, time::Duration};

use service_kit::{
    ports::{Reserved, reserve},
    testing::servers::Postgres,
};
use tokio::time::sleep;

use crate::{
    Problem,
    clock::Moment,
    member::{Member, Service, What},
};

/// How many there are of each.
const USER_SERVICES: usize = 3;
const ORDER_SERVICES: usize = 2;
/// How often they are looked after.
const LOOK: Duration = Duration::from_millis(25);
/// The longest that one stays dead before it is started again, and all user-services together.
const DEAD_MS: u64 = 600;
const OUTAGE_MS: u64 = 2_500;

pub(crate) struct Fleet {
    pub(crate) members: Vec<Member>,
    /// Where the databases are: users', orders'.
    pub(crate) databases: [String; 2],
    pub(crate) user_services: Vec<String>,
    pub(crate) order_services: Vec<String>,
    pub(crate) has_broker: bool,
    _ports: Reserved,
}

impl Fleet {
    /// Starts everything. The services wait for what they need by themselves, but for the
    /// databases, which are made here.
    pub(crate) async fn start(folder: &Path, with: With, settle: Duration) -> Result<Self, Problem> {
        let mut servers = Vec::new();
        let databases = if with.postgres {
            let postgres = Postgres::new()?;
            let (main, databases) = (postgres.url(), ["users", "orders"].map(|name| postgres.url_of(name)));
            servers.push(Member::new("Postgres", What::Postgres(postgres)));
            await_ready(&mut servers, settle).await?;
            let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&main).await?;
            for create in ["CREATE DATABASE users", "CREATE DATABASE orders"] {
                sqlx::raw_sql(create).execute(&mut connection).await?;
            }
            databases
        } else {
            ["users", "orders"]
                .map(|name| format!("sqlite://{}?mode=rwc", folder.join(format!("{name}.db")).display()))
        };
        let broker = broker(&mut servers, with.broker)?;
        await_ready(&mut servers, settle).await?;

        let ports = reserve(2 * (USER_SERVICES + ORDER_SERVICES))?;
        let pairs: Vec<_> = ports.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let (users, orders) = pairs.split_at(USER_SERVICES);
        let urls = |ports: &[(u16, u16)]| -> Vec<String> {
            ports.iter().map(|(port, _)| format!("http://127.0.0.1:{port}")).collect()
        };
        let (user_services, order_services) = (urls(users), urls(orders));
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
        let mut members = servers;
        for (role, database, ports) in [("users", &databases[0], users), ("orders", &databases[1], orders)] {
            for (number, (port, health_port)) in (1..).zip(ports) {
                let name = format!("{}-service {number}", role.trim_end_matches('s'));
                let service = Service {
                    role: format!("serve-{role}"),
                    port: *port,
                    health_port: *health_port,
                    database: database.clone(),
                    broker: broker.clone(),
                    user_services: (role == "orders").then(|| user_services.join(",")),
                    log: File::options()
                        .create(true)
                        .append(true)
                        .open(folder.join(format!("{}.log", name.replace(' ', "-"))))?,
                    http: http.clone(),
                    process: None,
                };
                members.push(Member::new(&name, What::Service(service)));
            }
        }
        await_ready(&mut members, settle).await?;
        let has_broker = broker.is_some();
        Ok(Self { members, databases, user_services, order_services, has_broker, _ports: ports })
    }

    /// Lets them live for so long: starts what is dead long enough.
    pub(crate) async fn live(&mut self, rng: &mut fastrand::Rng, pause: Duration) -> Result<(), Problem> {
        let until = Moment::now() + pause;
        while Moment::now() < until {
            self.tend(rng)?;
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn tend(&mut self, rng: &mut fastrand::Rng) -> Result<(), Problem> {
        for member in &mut self.members {
            member.tend(|| Duration::from_millis(rng.u64(0..DEAD_MS)))?;
        }
        Ok(())
    }

    /// Kills one that runs, or at times every user-service; returns how many, at most `most`. One
    /// that hasn't come up yet is spared two times in three: a broker takes seconds to start, and
    /// would never get to work.
    pub(crate) async fn kill(&mut self, rng: &mut fastrand::Rng, most: u32) -> Result<u32, Problem> {
        if rng.u8(0..12) == 0 {
            let dead_for = Duration::from_millis(rng.u64(0..OUTAGE_MS));
            let all =
                self.members.iter_mut().filter(|member| member.is_user_service() && member.is_running());
            let mut killed = 0;
            for member in all.take(most as usize) {
                member.kill(dead_for);
                killed += 1;
            }
            if killed > 0 {
                return Ok(killed);
            }
        }
        loop {
            let chosen = rng.usize(0..self.members.len());
            let spared = rng.u8(0..3) > 0;
            let member = &mut self.members[chosen];
            if member.is_running() && (member.is_ready() || !spared) {
                member.kill(Duration::from_millis(rng.u64(0..DEAD_MS)));
                return Ok(1);
            }
            self.live(rng, LOOK).await?;
        }
    }

    /// Starts whatever is dead and waits until all are ready.
    pub(crate) async fn all_up(&mut self, within: Duration) -> Result<(), Problem> {
        await_ready(&mut self.members, within).await
    }
}

/// What is there besides the services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct With {
    pub(crate) postgres: bool,
    pub(crate) broker: bool,
}

#[cfg(feature = "amqp")]
fn broker(servers: &mut Vec<Member>, wanted: bool) -> Result<Option<String>, Problem> {
    if !wanted {
        return Ok(None);
    }
    let rabbit = service_kit::testing::servers::Rabbit::new()?;
    let url = rabbit.url();
    servers.push(Member::new("RabbitMQ", What::Rabbit(rabbit)));
    Ok(Some(url))
}

#[cfg(not(feature = "amqp"))]
#[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
fn broker(_servers: &mut Vec<Member>, _wanted: bool) -> Result<Option<String>, Problem> {
    Ok(None)
}

async fn await_ready(members: &mut [Member], within: Duration) -> Result<(), Problem> {
    let until = Moment::now() + within;
    loop {
        for member in members.iter_mut() {
            member.tend(|| Duration::ZERO)?;
        }
        let Some(late) = members.iter().find(|member| !member.is_ready()) else { return Ok(()) };
        if Moment::now() >= until {
            return Err(format!("{} is not up after {} s{}", late.name, within.as_secs(), late.log()).into());
        }
        sleep(LOOK).await;
    }
}
