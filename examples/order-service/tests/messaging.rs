//! user-service's events, `RabbitMQ` and order-service's copy of users. They need a broker:
//! `TEST_AMQP_URL`.

#[cfg(feature = "amqp")]
mod services;

#[cfg(not(feature = "amqp"))]
#[test]
fn all_of_messaging() {
    service_kit::testing::skipped("messaging", "built without the feature amqp");
}

#[cfg(not(feature = "amqp"))]
#[tokio::test]
async fn a_broker_that_nobody_would_use_is_refused() {
    let database = service_kit::testing::TestDatabase::new().await;
    let amqp_url = Some("amqp://u:secret@h".to_owned());
    let orders = order_service::Config {
        database_url: database.url.clone(),
        amqp_url: amqp_url.clone(),
        ..order_service::Config::default()
    };
    let client = order_service::ResilientUsers::new(&orders).unwrap_err();
    let other = order_service::Config::default();
    let users = std::sync::Arc::new(order_service::ResilientUsers::new(&other).unwrap());
    let orders = order_service::AppState::open(&orders, users).await.err().unwrap();
    let users = user_service::Config {
        database_url: database.url.clone(),
        amqp_url,
        ..user_service::Config::default()
    };
    let users = user_service::AppState::open(&users).await.unwrap_err();
    for error in [client, orders, users] {
        assert!(error.is_config() && error.to_string().contains("--features amqp"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[cfg(feature = "amqp")]
mod with_a_broker {
    use std::fmt::Write as _;
    use std::time::Duration;

    use serde_json::{Value, json};
    use service_kit::{
        amqp::lapin::{
            BasicProperties, Channel, Connection, ConnectionProperties,
            options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
            types::FieldTable,
        },
        testing::{TestDatabase, broker, call, get},
    };
    use tokio::sync::{Mutex, MutexGuard};

    use super::services::{Orders, SOON, Users, copied, eventually, is_copied, rows};

    /// All user-services publish to one exchange, and their events are numbered alike: one test at
    /// a time.
    static ALONE: Mutex<()> = Mutex::const_new(());

    struct World {
        broker: String,
        users: TestDatabase,
        orders: TestDatabase,
        _alone: MutexGuard<'static, ()>,
    }

    impl World {
        async fn new(test: &str) -> Option<Self> {
            let broker = broker(test)?;
            let alone = ALONE.lock().await;
            let (users, orders) = (TestDatabase::new().await, TestDatabase::new().await);
            Some(Self { broker, users, orders, _alone: alone })
        }

        async fn user_service(&self) -> Users {
            Users::start(&self.users, Some(&self.broker)).await
        }

        async fn order_service(&self, users: &Users) -> Orders {
            Orders::start(&self.orders, &users.url(), Some(&self.broker)).await
        }

        async fn copied(&self) {
            copied(&self.users, &self.orders).await;
        }

        async fn synced(&self) {
            eventually("the copy is complete", SOON, || async {
                let mut connection = service_kit::testing::connect(&self.orders.url).await;
                let synced: Option<i64> = sqlx::query_scalar("SELECT synced FROM user_copy_state")
                    .fetch_optional(&mut connection)
                    .await
                    .unwrap();
                synced == Some(1)
            })
            .await;
        }

        async fn channel(&self) -> (Connection, Channel) {
            let connection =
                Connection::connect(&self.broker, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            (connection, channel)
        }
    }

    async fn publish(channel: &Channel, body: &str) {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let exchange = "user-service.events".into();
        let sent =
            channel.basic_publish(exchange, "user.changed".into(), options, body.as_bytes(), properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    }

    /// The one value of one row.
    async fn one<T>(database: &TestDatabase, sql: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any> + Send + Unpin,
    {
        let mut connection = service_kit::testing::connect(&database.url).await;
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }

    /// How many dead letters there are.
    async fn dead(channel: &Channel) -> u32 {
        let look = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = channel.queue_declare("order-service.users.dead".into(), look, FieldTable::default());
        queue.await.unwrap().message_count()
    }

    async fn rename(users: &Users, id: &str, name: &str) {
        let body = json!({ "name": name, "email": "b@example.com" }).to_string();
        let request = axum::http::Request::put(format!("/users/{id}"))
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap();
        assert_eq!(call(&users.app, request).await.status, 200);
    }

    #[tokio::test]
    async fn orders_are_confirmed_at_once_while_user_service_is_dead() {
        let test = "orders_are_confirmed_at_once_while_user_service_is_dead";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let orders = world.order_service(&users).await;
        world.synced().await;
        let ada = users.create("Ada").await;
        world.copied().await;
        drop(users);
        for _ in 0..20 {
            let answer = orders.order(&ada).await;
            assert_eq!((answer.status.as_u16(), answer.text("status")), (201, "confirmed".into()));
        }
        // What the copy hasn't got may be a user that it hasn't heard of.
        let unknown = orders.order("01980000-0000-7000-8000-00000000000a").await;
        assert_eq!(unknown.status, 202, "{unknown:?}");
    }

    #[tokio::test]
    async fn only_user_service_itself_says_that_there_is_no_such_user() {
        let test = "only_user_service_itself_says_that_there_is_no_such_user";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let orders = world.order_service(&users).await;
        world.synced().await;
        orders.order("01980000-0000-7000-8000-00000000000a").await.assert_problem(422);
    }

    #[tokio::test]
    async fn a_new_copy_learns_of_users_from_before_it_and_of_those_that_were_never_published() {
        let test = "a_new_copy_learns_of_users_from_before_it_and_of_those_that_were_never_published";
        let Some(world) = World::new(test).await else { return };
        let unpublished = Users::start(&world.users, None).await;
        for n in 0..230 {
            unpublished.create(&format!("early {n}")).await;
        }
        let orders = world.order_service(&unpublished).await;
        world.copied().await;
        world.synced().await;
        // A hole of one; the next event shows it.
        unpublished.create("unheard of").await;
        let users = world.user_service().await;
        drop(orders);
        let _orders = world.order_service(&users).await;
        users.create("heard of").await;
        world.copied().await;
        world.synced().await;
        assert_eq!(world.users.count("users").await, 232);
    }

    #[tokio::test]
    async fn changes_arrive_in_order_and_the_last_one_counts() {
        let test = "changes_arrive_in_order_and_the_last_one_counts";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let _orders = world.order_service(&users).await;
        world.synced().await;
        let (ada, bob) = (users.create("Ada").await, users.create("Bob").await);
        for n in 0..30 {
            rename(&users, &ada, &format!("Ada {n}")).await;
            rename(&users, &bob, &format!("Bob {n}")).await;
        }
        world.copied().await;
        let names: Vec<String> =
            rows(&world.orders, "user_copies").await.into_iter().map(|row| row.1).collect();
        assert_eq!(names, ["Ada 29", "Bob 29"]);
        eventually("all events are marked as published", SOON, || async {
            let mut connection = service_kit::testing::connect(&world.users.url).await;
            let waiting: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE published_at IS NULL")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            waiting == 0
        })
        .await;
    }

    #[tokio::test]
    async fn an_event_that_comes_again_changes_nothing() {
        let test = "an_event_that_comes_again_changes_nothing";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let _orders = world.order_service(&users).await;
        world.synced().await;
        let ada = users.create("Ada").await;
        rename(&users, &ada, "Countess").await;
        world.copied().await;
        let (_connection, channel) = world.channel().await;
        let first: String = one(&world.users, "SELECT body FROM outbox WHERE id = 1").await;
        assert!(first.contains("Ada"), "{first}");
        publish(&channel, &first).await;
        // Behind it in the queue, so once this is there the other was read.
        users.create("Bob").await;
        world.copied().await;
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_dead_lettered_and_holds_nothing_up() {
        let test = "what_cannot_be_read_is_dead_lettered_and_holds_nothing_up";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let _orders = world.order_service(&users).await;
        world.synced().await;
        let (_connection, channel) = world.channel().await;
        let before = dead(&channel).await;
        for bad in ["", "<html>", r#"{"id":"one"}"#] {
            publish(&channel, bad).await;
        }
        users.create("Ada").await;
        world.copied().await;
        // Other copies' queues, left behind by other tests, have no reader that could dead-letter
        // anything.
        eventually("three dead letters", SOON, || async { dead(&channel).await == before + 3 }).await;
        world.synced().await;
    }

    /// Whatever it is that the database has, the event is none the worse for it.
    #[tokio::test]
    async fn a_fault_of_the_database_dead_letters_no_event() {
        let test = "a_fault_of_the_database_dead_letters_no_event";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let _orders = world.order_service(&users).await;
        world.synced().await;
        let (_connection, channel) = world.channel().await;
        let before = dead(&channel).await;
        world.orders.execute("ALTER TABLE user_copies RENAME TO elsewhere").await;
        users.create("Ada").await;
        // It is tried again every half second.
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.orders.execute("ALTER TABLE elsewhere RENAME TO user_copies").await;
        world.copied().await;
        assert_eq!(dead(&channel).await, before);
    }

    #[tokio::test]
    async fn another_process_on_the_same_database_takes_over() {
        let test = "another_process_on_the_same_database_takes_over";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let mut processes = vec![world.order_service(&users).await, world.order_service(&users).await];
        for n in 0..6 {
            for m in 0..10 {
                users.create(&format!("{n} {m}")).await;
            }
            processes.remove(0);
            processes.push(world.order_service(&users).await);
        }
        world.copied().await;
        world.synced().await;
    }

    #[tokio::test]
    async fn a_lost_event_is_found_out_though_none_comes_after_it() {
        let test = "a_lost_event_is_found_out_though_none_comes_after_it";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let _orders = world.order_service(&users).await;
        world.synced().await;
        users.create("Ada").await;
        world.copied().await;
        Users::start(&world.users, None).await.create("never published").await;
        let within = Duration::from_mins(1);
        let copy = || super::services::is_copied(&world.users, &world.orders);
        eventually("the copy equals the table", within, copy).await;
    }

    /// Its numbers are given a second time, so they alone don't show it.
    #[tokio::test]
    async fn users_whom_a_restored_database_has_not_got_are_forgotten() {
        let test = "users_whom_a_restored_database_has_not_got_are_forgotten";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let orders = world.order_service(&users).await;
        world.synced().await;
        users.create("Ada").await;
        world.copied().await;
        let mark: String = one(&world.users, "SELECT mark FROM lineage").await;
        let (gone, _) = (users.create("Bob").await, users.create("Cy").await);
        world.copied().await;
        let port = users.port;
        drop(users);
        for put_back in [
            "DELETE FROM users WHERE commit_number > 1",
            "DELETE FROM outbox WHERE id > 1",
            "UPDATE commit_numbers SET last_number = 1 WHERE table_name = 'users'",
            &format!("UPDATE lineage SET mark = '{mark}'"),
        ] {
            world.users.execute(put_back).await;
        }
        // As many changes as were lost, and more, before the copy hears of any.
        let users = Users::start_at(port, &world.users, Some(&world.broker)).await;
        for n in 0..4 {
            users.create(&format!("new {n}")).await;
        }
        world.copied().await;
        drop(orders);
        let orders = world.order_service(&users).await;
        orders.order(&gone).await.assert_problem(422);
    }

    #[tokio::test]
    async fn another_environments_events_on_the_same_broker_are_nobodys() {
        let test = "another_environments_events_on_the_same_broker_are_nobodys";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let orders = world.order_service(&users).await;
        world.synced().await;
        users.create("Ada").await;
        let elsewhere = TestDatabase::new().await;
        let others = Users::start(&elsewhere, Some(&world.broker)).await;
        let mut strangers = Vec::new();
        for n in 0..5 {
            strangers.push(others.create(&format!("stranger {n}")).await);
        }
        // Behind theirs in the queue.
        eventually("the others' events are published", SOON, || async {
            one::<i64>(&elsewhere, "SELECT COUNT(*) FROM outbox WHERE published_at IS NULL").await == 0
        })
        .await;
        let bob = users.create("Bob").await;
        eventually("what is behind them is copied", SOON, || async {
            rows(&world.orders, "user_copies").await.iter().any(|user| user.0 == bob)
        })
        .await;
        for stranger in &strangers {
            orders.order(stranger).await.assert_problem(422);
        }
        assert!(is_copied(&world.users, &world.orders).await);
    }

    /// A list takes longer than any session lasts.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_broker_that_comes_and_goes_keeps_no_long_list_from_its_end() {
        const PAGES: usize = 12;
        let test = "a_broker_that_comes_and_goes_keeps_no_long_list_from_its_end";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let mut many = String::new();
        for n in 1..=PAGES * 100 {
            let id = format!("01980000-0000-7000-8000-{n:012x}");
            let end = if n == 1 { "INSERT INTO users VALUES " } else { "," };
            write!(many, "{end}('{id}', 'u', 'a@b', 1, {n}, {n})").unwrap();
        }
        world.users.execute(many).await;
        let counted =
            format!("UPDATE commit_numbers SET last_number = {} WHERE table_name = 'users'", PAGES * 100);
        world.users.execute(counted).await;
        // 100 ms a page.
        let slow = users.app.clone().layer(axum::middleware::from_fn(
            async |request, next: axum::middleware::Next| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                next.run(request).await
            },
        ));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, slow).await });
        let (broker, flapping) = cut_after(Duration::from_millis(700), &world.broker).await;
        let _orders = Orders::start(&world.orders, &url, Some(&broker)).await;
        // Comparing so many rows all the time would be load of its own.
        world.synced().await;
        world.copied().await;
        serving.abort();
        flapping.abort();
    }

    /// A way to the broker on which no connection lasts longer.
    async fn cut_after(life: Duration, broker: &str) -> (String, tokio::task::JoinHandle<()>) {
        let to = broker.trim_start_matches("amqp://").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://{}", listener.local_addr().unwrap());
        let flapping = tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let to = to.clone();
                tokio::spawn(async move {
                    let mut to = tokio::net::TcpStream::connect(to).await.unwrap();
                    let copying = tokio::io::copy_bidirectional(&mut from, &mut to);
                    let _ = tokio::time::timeout(life, copying).await;
                });
            }
        });
        (url, flapping)
    }

    #[tokio::test]
    async fn the_list_says_what_a_copy_needs() {
        let test = "the_list_says_what_a_copy_needs";
        let Some(world) = World::new(test).await else { return };
        let users = world.user_service().await;
        let ada = users.create("Ada").await;
        users.create("Bob").await;
        rename(&users, &ada, "Countess").await;
        let list: Value = get(&users.app, "/users").await.json();
        let versions: Vec<_> =
            list["users"].as_array().unwrap().iter().map(|user| &user["version"]).collect();
        assert_eq!((versions, &list["last_change"]), (vec![&json!(3), &json!(2)], &json!(3)));
    }
}
