//! Opening a database that isn't there, or not yet.

use std::time::Duration;

use service_kit::{
    clock::Clock,
    database::{Database, Migration, Settings, Synchronous},
    error::{Error, causes},
    testing::{TestDatabase, postgres},
};
use tokio::{net::TcpListener, time::timeout};

fn settings(url: &str, wait: Duration) -> Settings<'_> {
    Settings { url, connections: 4, synchronous: Synchronous::Full, wait }
}

async fn open(url: &str, wait: Duration) -> Result<Database, Error> {
    open_with(url, wait, &[]).await
}

async fn open_with(url: &str, wait: Duration, migrations: &[Migration]) -> Result<Database, Error> {
    timeout(Duration::from_secs(9), Database::open(settings(url, wait), migrations, &Clock::system()))
        .await
        .expect("bounded")
}

async fn refusal(url: &str, wait: Duration) -> String {
    let error = open(url, wait).await.unwrap_err();
    assert!(error.is_database(), "{error:?}");
    let said = causes(&error);
    assert!(!format!("{said} {error:?}").contains("secret"), "{error:?}");
    said
}

#[tokio::test]
async fn a_database_that_refuses_is_named_with_its_address_and_the_cause() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let said = refusal(&format!("postgres://u:secret@{address}/orders"), Duration::ZERO).await;
    assert!(said.contains(&format!("{address}/orders")) && said.contains("refused"), "{said}");
    assert_eq!(said.matches("refused").count(), 1, "{said}");
}

#[tokio::test]
async fn a_database_that_never_answers_is_given_up_in_time() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let said = refusal(&format!("postgres://u:secret@{address}/orders"), Duration::ZERO).await;
    assert!(said.contains(&address.to_string()) && said.contains("no answer within 2 s"), "{said}");
}

#[tokio::test]
async fn what_waiting_cannot_mend_is_said_at_once() {
    // A directory, a file in a folder that isn't there, and a file that isn't made without
    // `mode=rwc`.
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().display().to_string();
    for path in [dir.clone(), format!("{dir}/none/x.db?mode=rwc"), format!("{dir}/none.db")] {
        let said = refusal(&format!("sqlite://{path}"), Duration::from_hours(1)).await;
        assert!(
            said.contains(path.trim_end_matches("?mode=rwc")) && said.contains("unable to open"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_database_that_comes_up_meanwhile_is_opened() {
    let Some(url) = postgres("a_database_that_comes_up_meanwhile_is_opened") else { return };
    let host = url.split('@').next_back().unwrap().split('/').next().unwrap().to_owned();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let late = url.replace(&host, &address.to_string());
    let opening = open(&late, Duration::from_secs(8));
    let arriving = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let mut to = tokio::net::TcpStream::connect(&host).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    };
    tokio::select! {
        opened = opening => drop(opened.unwrap()),
        () = arriving => unreachable!(),
    }
}

#[tokio::test]
async fn a_database_that_stored_nothing_is_ready_again_once_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("x.db").display());
    let database = open(&url, Duration::ZERO).await.unwrap();
    database.note_unwritable();
    sqlx::query("ALTER TABLE write_probe RENAME TO elsewhere").execute(database.writer()).await.unwrap();
    database.ping().await.unwrap_err();
    sqlx::query("ALTER TABLE elsewhere RENAME TO write_probe").execute(database.writer()).await.unwrap();
    database.ping().await.unwrap();
    // From now on a probe only reads.
    sqlx::query("DROP TABLE write_probe").execute(database.writer()).await.unwrap();
    database.ping().await.unwrap();
}

/// As it does when the disk is full. Once, two rollbacks after that, commits were acknowledged and
/// lost.
#[tokio::test]
async fn what_commits_after_sqlite_rolled_back_by_itself_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("x.db").display());
    let database = open(&url, Duration::ZERO).await.unwrap();
    sqlx::query("CREATE TABLE written (id BIGINT)").execute(database.writer()).await.unwrap();
    let write = |id: i64| {
        let database = &database;
        async move {
            let mut transaction = database.begin().await.unwrap();
            sqlx::query("INSERT INTO written VALUES ($1)").bind(id).execute(&mut *transaction).await.unwrap();
            transaction
        }
    };
    let mut full = write(1).await;
    sqlx::query("ROLLBACK").execute(&mut *full).await.unwrap();
    full.commit().await.unwrap_err();
    drop(write(2).await);
    write(3).await.commit().await.unwrap();
    let stored: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM written").fetch_all(database.reader()).await.unwrap();
    assert_eq!(stored, [3]);
}

/// A table of some size takes longer to change than any request may.
#[tokio::test]
async fn a_migration_may_take_longer_than_a_request_also_for_those_who_wait_for_it() {
    let test = "a_migration_may_take_longer_than_a_request_also_for_those_who_wait_for_it";
    if postgres(test).is_none() {
        return;
    }
    let database = TestDatabase::new().await;
    let slow = [Migration { version: 1, sql: "SELECT pg_sleep(5.5)" }];
    let open = || open_with(&database.url, Duration::ZERO, &slow);
    let (one, other) = tokio::join!(open(), open());
    let database = one.and(other).unwrap_or_else(|error| panic!("{}", causes(&error)));
    // What comes after it has the usual time.
    let timeout: String =
        sqlx::query_scalar("SHOW statement_timeout").fetch_one(database.writer()).await.unwrap();
    assert_eq!(timeout, "5s");
}
