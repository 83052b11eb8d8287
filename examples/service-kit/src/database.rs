//! `SQLite` by default, Postgres by `DATABASE_URL`, with the same SQL for both.
//!
//! The rules that make that hold: TEXT and BIGINT columns only, `$1` placeholders only, ids and
//! timestamps made by the service. What differs is the connection's own settings, and they are all
//! in this file.
//!
//! sqlx runs the statements and keeps the pools. Its own migrator takes no lock on `SQLite`, so two
//! processes that start together would both apply a step; [`Database::open`] claims each step in
//! the transaction that applies it.
//!
//! Caveat: an in-memory `SQLite` database belongs to one connection, so it gets one, and reads wait
//! for writes there.

mod failure;
mod location;

use std::{
    future::ready,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::ValueEnum;
use sqlx::{
    Any, AnyConnection, AnyPool, Connection as _, Executor as _, Transaction,
    any::{AnyPoolOptions, install_default_drivers},
    raw_sql,
};
use tokio::time::{sleep, timeout};

pub use self::failure::{is_busy, is_the_datas_fault, is_unwritable};
use self::location::Location;
use crate::{
    clock::Clock,
    error::{Error, causes},
};

/// How long a request waits for a connection before it is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Opening can meet another process that is creating the same database.
const OPEN_ATTEMPTS: u32 = 20;
const OPEN_RETRY: Duration = Duration::from_millis(50);
/// What a probe writes to find out whether anything can be stored: twice the largest body there is
/// by default, as a row's indices are written with it, and split now and then.
const WRITE_PROBE_BYTES: usize = 128 * 1024;
/// Between two looks for a database that can't be reached yet.
const REACH_RETRY: Duration = Duration::from_millis(250);

/// Every statement waits at most 2 s for another process's lock. `SQLite` only.
const SQLITE_SETTINGS: &[&str] = &["PRAGMA busy_timeout = 2000", "PRAGMA journal_mode = WAL"];
/// Postgres would wait for ever by default.
const POSTGRES_SETTINGS: &[&str] = &["SET lock_timeout = '2s'", "SET statement_timeout = '5s'"];

/// How long a step of the schema may take, and how long another process may wait for it: a table
/// may be large. A step's own wait for a lock stays short, since requests queue up behind it.
const MIGRATION_LIMIT: Duration = Duration::from_mins(15);
const POSTGRES_BEFORE_CLAIM: &[&str] =
    &["SET LOCAL statement_timeout = '15min'", "SET LOCAL lock_timeout = '15min'"];
const POSTGRES_BEFORE_STEP: &[&str] = &["SET LOCAL lock_timeout = '2s'"];

/// What an acknowledged write survives, in `SQLite`'s own words. Postgres has settings of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Synchronous {
    /// Power loss: every commit waits for the disk.
    #[default]
    Full,
    /// A crash or kill of the service, not a power loss: commits don't wait for the disk.
    Normal,
}

impl Synchronous {
    fn pragma(self) -> &'static str {
        match self {
            Self::Full => "PRAGMA synchronous = FULL",
            Self::Normal => "PRAGMA synchronous = NORMAL",
        }
    }
}

/// Which database, and how to use it.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// A `sqlite:` or `postgres:` URL.
    pub url: &'a str,
    /// Most connections for reading.
    pub connections: u32,
    /// What a commit survives.
    pub synchronous: Synchronous,
    /// How long to wait for a database that can't be reached yet.
    pub wait: Duration,
}

/// One step of a schema, never changed once released: the next change is the next step.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Unique and never reused.
    pub version: i64,
    /// Any number of statements.
    pub sql: &'static str,
}

/// A bounded pool for reading and one for writing. A clone shares both.
///
/// `SQLite` has one writer at a time. Letting writers queue here, in order, for a single connection
/// is fair and fast; letting them collide in `SQLite` makes each sleep and try again, and would let
/// them take every connection from reads.
#[derive(Clone, Debug)]
pub struct Database {
    reader: AnyPool,
    writer: AnyPool,
    /// Whether a write has failed for want of a place to write to, and none has succeeded since.
    unwritable: Arc<AtomicBool>,
}

impl Database {
    /// Connects and applies the migrations that are missing. Safe to run from several processes at
    /// once.
    ///
    /// Waits for a database that isn't up yet, and says so in the log.
    pub async fn open(
        settings: Settings<'_>,
        migrations: &[Migration],
        clock: &Clock,
    ) -> Result<Self, Error> {
        install_default_drivers();
        let location = Location::of(settings.url)?;
        let database = match location {
            Location::Memory => {
                let only = pool(settings, 1, true)?;
                Self::over(only.clone(), only)
            }
            Location::File(_) => {
                reach(settings, &location).await?;
                Self::over(pool(settings, settings.connections, false)?, pool(settings, 1, false)?)
            }
            Location::Server(_) => {
                reach(settings, &location).await?;
                let both = pool(settings, settings.connections, false)?;
                Self::over(both.clone(), both)
            }
        };
        database.bring_up_to_date(&location, migrations, clock).await?;
        Ok(database)
    }

    /// Migrates, and tries again for as long as that may help: another process may be taking a
    /// step.
    async fn bring_up_to_date(
        &self,
        location: &Location,
        migrations: &[Migration],
        clock: &Clock,
    ) -> Result<(), Error> {
        let mut over = pin!(sleep(MIGRATION_LIMIT));
        let (mut attempts, mut logged) = (0, String::new());
        loop {
            let Err(error) = self.migrate(migrations, clock).await else { return Ok(()) };
            attempts += 1;
            let may_pass = is_busy(&error) || attempts < OPEN_ATTEMPTS && error.as_database_error().is_some();
            if !may_pass {
                return Err(Error::database(location.to_string(), error));
            }
            let cause = causes(&error);
            if is_busy(&error) && cause != logged {
                tracing::warn!(database = %location, cause, "the schema can't be brought up to date yet");
                logged = cause;
            }
            tokio::select! {
                () = &mut over => return Err(Error::database(location.to_string(), error)),
                () = sleep(OPEN_RETRY) => {}
            }
        }
    }

    fn over(reader: AnyPool, writer: AnyPool) -> Self {
        Self { reader, writer, unwritable: Arc::default() }
    }

    async fn migrate(&self, migrations: &[Migration], clock: &Clock) -> Result<(), sqlx::Error> {
        self.writer
            .execute("CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)")
            .await?;
        self.writer
            .execute("CREATE TABLE IF NOT EXISTS write_probe (id BIGINT PRIMARY KEY, filler TEXT NOT NULL)")
            .await?;
        for migration in migrations {
            let mut transaction = self.begin().await?;
            let is_postgres = transaction.backend_name() == "PostgreSQL";
            set(&mut transaction, POSTGRES_BEFORE_CLAIM, is_postgres).await?;
            // The primary key makes a second process wait for the first one's commit and then skip
            // the step.
            let claimed = sqlx::query(
                "INSERT INTO schema_migrations (version, applied_at) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING",
            )
            .bind(migration.version)
            .bind(clock.now_ms())
            .execute(&mut *transaction)
            .await?;
            if claimed.rows_affected() == 1 {
                set(&mut transaction, POSTGRES_BEFORE_STEP, is_postgres).await?;
                raw_sql(migration.sql).execute(&mut *transaction).await?;
                transaction.commit().await?;
                tracing::info!(version = migration.version, "migrated the database");
            }
        }
        Ok(())
    }

    /// The pool for statements that only read.
    pub fn reader(&self) -> &AnyPool {
        &self.reader
    }

    /// The pool for single statements that write.
    pub fn writer(&self) -> &AnyPool {
        &self.writer
    }

    /// Starts a transaction. Its first statement should write: `SQLite` can't turn a read
    /// transaction into a write transaction once another process has written. Dropped without a
    /// commit, it rolls back.
    pub async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.writer.begin().await
    }

    /// Remembers that a write has failed because nothing can be stored: the disk is full, say.
    pub fn note_unwritable(&self) {
        if !self.unwritable.swap(true, Ordering::Relaxed) {
            tracing::error!("nothing can be stored: not ready until a write succeeds");
        }
    }

    /// [`Database::note_unwritable`] if that is what the error says.
    pub fn note(&self, error: &sqlx::Error) {
        if is_unwritable(error) {
            self.note_unwritable();
        }
    }

    /// Whether the database answers and, once a write has failed, whether it stores again.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        self.reader.execute("SELECT version FROM schema_migrations").await?;
        if self.unwritable.load(Ordering::Relaxed) {
            // More than a request writes: on a full disk there may be room for less.
            sqlx::query(
                "INSERT INTO write_probe (id, filler) VALUES (1, $1) \
                 ON CONFLICT (id) DO UPDATE SET filler = excluded.filler",
            )
            .bind("x".repeat(WRITE_PROBE_BYTES))
            .execute(&self.writer)
            .await?;
            self.unwritable.store(false, Ordering::Relaxed);
            tracing::info!("what is written is stored again");
        }
        Ok(())
    }
}

/// A pool that connects when it is first used.
fn pool(settings: Settings<'_>, connections: u32, in_memory: bool) -> Result<AnyPool, Error> {
    let synchronous = settings.synchronous;
    let mut options = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A file doesn't hang up; asking it before each use would only cost time.
        .test_before_acquire(!settings.url.starts_with("sqlite:"))
        .after_connect(move |connection, _| Box::pin(configure(connection, synchronous)));
    if in_memory {
        // Closing the connection would drop the data.
        options = options.idle_timeout(None).max_lifetime(None);
    } else {
        options = options.before_acquire(|connection, _| Box::pin(ready(Ok(is_clean(connection)))));
    }
    options.connect_lazy(settings.url).map_err(|_| location::not_valid())
}

/// Whether what is written next would be a transaction of its own.
///
/// `SQLite` rolls a transaction back by itself when its commit finds the disk full. To sqlx it is
/// still open then: the next one would be a savepoint in it, and once one of those is dropped, what
/// commits afterwards is acknowledged and stored nowhere.
fn is_clean(connection: &AnyConnection) -> bool {
    !connection.is_in_transaction()
}

/// Waits until the database takes a connection. Not the pool's business: it would keep the cause to
/// itself.
async fn reach(settings: Settings<'_>, location: &Location) -> Result<(), Error> {
    let mut over = pin!(sleep(settings.wait));
    let mut logged = String::new();
    loop {
        let cause = match timeout(ACQUIRE_TIMEOUT, AnyConnection::connect(settings.url)).await {
            Ok(Ok(mut connection)) => {
                let usable = is_usable(&mut connection, settings.synchronous).await;
                // It has shown what it was for.
                let _ = connection.close().await;
                return usable.map_err(|error| Error::database(location.to_string(), error));
            }
            Ok(Err(error)) if may_pass(&error) => causes(&error),
            Ok(Err(error)) => return Err(Error::database(location.to_string(), error)),
            Err(_elapsed) => format!("no answer within {} s", ACQUIRE_TIMEOUT.as_secs()),
        };
        if cause != logged {
            tracing::warn!(database = %location, cause, "waiting for the database");
            logged.clone_from(&cause);
        }
        tokio::select! {
            () = &mut over => return Err(Error::unreachable(location.to_string(), cause)),
            () = sleep(REACH_RETRY) => {}
        }
    }
}

/// Whether what was connected to takes the settings of a connection. A file is only looked at then,
/// and may be no database. The pool would try such a connection again and again.
async fn is_usable(connection: &mut AnyConnection, synchronous: Synchronous) -> Result<(), sqlx::Error> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match configure(connection, synchronous).await {
            Err(error) if !may_pass(&error) && attempts == OPEN_ATTEMPTS => return Err(error),
            Err(error) if !may_pass(&error) => sleep(OPEN_RETRY).await,
            // A lock is waited for where steps are applied.
            _ => return Ok(()),
        }
    }
}

/// Whether a database that can't be connected to may be well a moment later, as it is while it
/// starts.
fn may_pass(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_)) || is_busy(error)
}

async fn set(
    connection: &mut AnyConnection,
    settings: &[&'static str],
    wanted: bool,
) -> Result<(), sqlx::Error> {
    for setting in settings.iter().filter(|_| wanted) {
        connection.execute(*setting).await?;
    }
    Ok(())
}

async fn configure(connection: &mut AnyConnection, synchronous: Synchronous) -> Result<(), sqlx::Error> {
    if connection.backend_name() == "SQLite" {
        for pragma in SQLITE_SETTINGS {
            connection.execute(*pragma).await?;
        }
        connection.execute(synchronous.pragma()).await?;
    } else {
        for setting in POSTGRES_SETTINGS {
            connection.execute(*setting).await?;
        }
    }
    Ok(())
}
