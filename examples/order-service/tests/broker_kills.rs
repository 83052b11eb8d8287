//! The broker is killed again and again while users are created and changed, and both services now
//! and then, too: nothing is lost, and every user's events come in order.
#![cfg(unix)]

#[cfg(feature = "amqp")]
mod services;

#[cfg(not(feature = "amqp"))]
#[test]
fn nothing_is_lost_while_the_broker_is_killed_20_times() {
    let test = "nothing_is_lost_while_the_broker_is_killed_20_times";
    service_kit::testing::skipped(test, "built without the feature amqp");
}

#[cfg(feature = "amqp")]
mod with_a_broker {
    use std::{
        collections::HashMap,
        io::Write as _,
        sync::{Arc, Mutex},
        time::Duration,
    };
    use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

    use axum::{Router, http::Request};
    use futures_util::StreamExt as _;
    use serde_json::{Value, json};
    use service_kit::{
        amqp::lapin::{
            self, Channel, Connection, ConnectionProperties, ExchangeKind,
            options::{
                BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions,
                QueueDeclareOptions,
            },
            types::{AMQPValue, FieldTable},
        },
        testing::{TestDatabase, broker, call, connect, post, servers::Rabbit, skipped},
    };
    use tokio::time::{sleep, timeout};
    use tokio_util::sync::CancellationToken;

    use super::services::{Orders, Users, eventually, is_copied};

    const TEST: &str = "nothing_is_lost_while_the_broker_is_killed_20_times";
    const KILLS: u32 = 20;
    /// Of the broker's life before a kill: from when it talks, or from its start. Its queues take
    /// some seconds to come back.
    const LIVES: Duration = Duration::from_secs(6);
    const BOOTS: Duration = Duration::from_secs(3);
    /// A broker takes 3 s to start, or 10 s on a busy machine. After so long those that are left
    /// die while they start.
    const UNHURRIED: Duration = Duration::from_secs(90);
    /// Once the broker is left alone.
    const CATCHES_UP: Duration = Duration::from_mins(1);

    /// What somebody else who listens has seen: each event's number and user, the first time that
    /// it came.
    #[derive(Default)]
    struct Seen {
        by_number: HashMap<i64, String>,
        first: Vec<(i64, String)>,
        again: usize,
    }

    impl Seen {
        fn saw(&mut self, body: &[u8]) {
            let event: Value = serde_json::from_slice(body).unwrap();
            let number = event["id"].as_i64().unwrap();
            let user = event["user"]["id"].as_str().unwrap().to_owned();
            if self.by_number.insert(number, user.clone()).is_some() {
                self.again += 1;
            } else {
                self.first.push((number, user));
            }
        }
    }

    async fn listen(url: &str, seen: &Mutex<Seen>) -> Result<(), lapin::Error> {
        // A broker that is starting, or has just died, may leave a question without an answer.
        const ANSWERS: Duration = Duration::from_secs(3);
        let begun = timeout(ANSWERS, async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await?;
            let channel = declare(&connection).await?;
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let deliveries = channel.basic_consume("listener".into(), "".into(), options, none).await?;
            Ok::<_, lapin::Error>((connection, deliveries))
        });
        let Ok(begun) = begun.await else { return Ok(()) };
        let (_connection, mut deliveries) = begun?;
        while let Ok(Some(delivery)) = timeout(ANSWERS, deliveries.next()).await {
            let delivery = delivery?;
            seen.lock().unwrap().saw(&delivery.data);
            delivery.ack(BasicAckOptions::default()).await?;
        }
        Ok(())
    }

    async fn declare(connection: &Connection) -> Result<Channel, lapin::Error> {
        let channel = connection.create_channel().await?;
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let none = FieldTable::default;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare("user-service.events".into(), ExchangeKind::Topic, durable, none()).await?;
        let lasting = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare("listener".into(), lasting, quorum).await?;
        let bind = QueueBindOptions::default();
        channel.queue_bind("listener".into(), "user-service.events".into(), "#".into(), bind, none()).await?;
        Ok(channel)
    }

    /// Creates and changes users without a pause longer than 40 ms.
    async fn write(app: Router, mut rng: fastrand::Rng, until: CancellationToken) {
        let mut ids: Vec<String> = Vec::new();
        for n in 0.. {
            if until.is_cancelled() {
                return;
            }
            let user = json!({ "name": format!("user {n}"), "email": "a@example.com" });
            if ids.is_empty() || rng.u8(0..10) < 5 {
                let answer = post(&app, "/users", &user).await;
                assert_eq!(answer.status, 201, "{answer:?}");
                ids.push(answer.text("id"));
            } else {
                let id = &ids[rng.usize(0..ids.len())];
                let request = Request::put(format!("/users/{id}")).header("content-type", "application/json");
                let answer = call(&app, request.body(user.to_string().into()).unwrap()).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            sleep(Duration::from_millis(rng.u64(0..40))).await;
        }
    }

    /// Kills and restarts, as the seed has it; returns how often the broker died while it started,
    /// and how often each of the services.
    async fn havoc(
        rabbit: &mut Rabbit,
        rng: &mut fastrand::Rng,
        databases: (&TestDatabase, &TestDatabase),
        services: &mut (Option<Users>, Option<Orders>),
    ) -> (u32, u32, u32) {
        let url = rabbit.url();
        let port = services.0.as_ref().unwrap().port;
        let (mut kills, mut in_boot) = ((0, 0), 0);
        let unhurried = tokio::spawn(sleep(UNHURRIED));
        let part = |rng: &mut fastrand::Rng, whole: Duration| whole.mul_f64(rng.f64());
        for kill in 0..KILLS {
            // The first time it is up already. Later one in three doesn't live to see the end of
            // its start.
            if kill > 0 {
                rabbit.start().unwrap();
            }
            if kill > 0 && (rng.u8(0..3) == 0 || unhurried.is_finished()) {
                sleep(part(rng, BOOTS)).await;
                in_boot += 1;
            } else {
                rabbit.ready().await;
                sleep(part(rng, LIVES)).await;
            }
            match rng.u8(0..6) {
                0 => {
                    services.0 = None;
                    services.0 = Some(Users::start_at(port, databases.0, Some(&url)).await);
                    kills.0 += 1;
                }
                1 => {
                    services.1 = None;
                    let users = services.0.as_ref().unwrap().url();
                    services.1 = Some(Orders::start(databases.1, &users, Some(&url)).await);
                    kills.1 += 1;
                }
                _ => {}
            }
            rabbit.kill();
            tracing::info!(kill, in_boot, "killed the broker");
        }
        rabbit.start().unwrap();
        rabbit.ready().await;
        (in_boot, kills.0, kills.1)
    }

    async fn number(database: &TestDatabase, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::query_scalar(sql).fetch_one(&mut connect(&database.url).await).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_lost_while_the_broker_is_killed_20_times() {
        let Some(_) = broker(TEST) else { return };
        if !Rabbit::is_installed() {
            return skipped(TEST, "no rabbitmq-server on this machine");
        }
        let seed = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..100_000));
        let mut rng = fastrand::Rng::with_seed(seed);
        let say = |text: String| writeln!(std::io::stderr(), "{TEST}: {text}").unwrap();
        say(format!("TEST_SEED={seed}"));
        let targets = std::env::var("TEST_LOG").ok().and_then(|targets| targets.parse::<Targets>().ok());
        if let Some(targets) = targets {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            tracing_subscriber::registry().with(lines).with(targets).init();
        }

        let mut rabbit = Rabbit::new().unwrap();
        rabbit.start().unwrap();
        rabbit.ready().await;
        let url = rabbit.url();
        let (users, orders) = (TestDatabase::new().await, TestDatabase::new().await);
        // Before the first event: what nobody waits for is nobody's.
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        declare(&connection).await.unwrap();
        // Written to by one that lives; what happens to it is published by one that is killed.
        let writer = Users::start(&users, Some(&url)).await;
        let user_service = Users::start(&users, Some(&url)).await;
        let order_service = Orders::start(&orders, &user_service.url(), Some(&url)).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let listener = tokio::spawn({
            let (url, seen) = (url.clone(), seen.clone());
            async move {
                loop {
                    let _ = listen(&url, &seen).await;
                    sleep(Duration::from_millis(50)).await;
                }
            }
        });
        writer.create("the first").await;
        eventually("all queues are there", CATCHES_UP, || async {
            seen.lock().unwrap().first.len() == 1 && is_copied(&users, &orders).await
        })
        .await;

        let enough = CancellationToken::new();
        let writing = tokio::spawn(write(writer.app.clone(), rng.fork(), enough.clone()));
        let mut services = (Some(user_service), Some(order_service));
        let kills = havoc(&mut rabbit, &mut rng, (&users, &orders), &mut services).await;
        enough.cancel();
        writing.await.expect("no write may fail");
        let events =
            number(&users, "SELECT last_number FROM commit_numbers WHERE table_name = 'users'").await;
        say(format!("{events} events; waiting until all are everywhere"));
        let waiting = async || number(&users, "SELECT COUNT(*) FROM outbox WHERE published_at IS NULL").await;
        eventually("all events are published", CATCHES_UP, || async { waiting().await == 0 }).await;
        let (copied, heard) =
            (|| is_copied(&users, &orders), || i64::try_from(seen.lock().unwrap().first.len()).unwrap());
        eventually("all events are heard", CATCHES_UP, || async { heard() == events }).await;
        eventually("the copy equals the table", CATCHES_UP, copied).await;
        listener.abort();

        let seen = seen.lock().unwrap();
        let mut last: HashMap<&str, i64> = HashMap::new();
        for (number, user) in &seen.first {
            let before = last.insert(user, *number);
            assert!(before < Some(*number), "seed {seed}: {user}: {number} came after {before:?}");
        }
        let (users, again) = (last.len(), seen.again);
        say(format!(
            "{KILLS} kills of the broker ({} while it started), {} of user-service, {} of order-service: {events} events of {users} users, \
             0 lost, 0 out of order, {again} came again",
            kills.0, kills.1, kills.2
        ));
    }
}
