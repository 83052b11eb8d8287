//! `SQLite` by default, Postgres by `DATABASE_URL`, with the same SQL for both.
//!
//! The rules that make that hold: TEXT and BIGINT columns only, `$1` placeholders only, ids and timestamps made by the
//! service. What differs is the connection's own settings, and they are all in this file.
//!
//! sqlx runs the statements and keeps the pools. Its own migrator takes no lock on `SQLite`, so two processes that start
//! together would both apply a step; [`Database::open`] claims each step in the transaction that applies it.
//!
//! Caveat: an in-memory `SQLite` database belongs to one connection, so it gets one, and reads wait for writes there.

use std::time::Duration;

use clap::ValueEnum;
use sqlx::{
    Any, AnyConnection, AnyPool, Executor as _, Transaction,
    any::{AnyPoolOptions, install_default_drivers},
    raw_sql,
};
use tokio::time::sleep;

use crate::{clock::Clock, error::Error};

/// How long a request waits for a connection before it is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Opening can meet another process that is creating the same database.
const OPEN_ATTEMPTS: u32 = 20;
const OPEN_RETRY: Duration = Duration::from_millis(50);

/// Every statement waits at most 2 s for another process's lock. `SQLite` only.
const SQLITE_SETTINGS: &[&str] = &["PRAGMA busy_timeout = 2000", "PRAGMA journal_mode = WAL"];
/// Postgres would wait for ever by default.
const POSTGRES_SETTINGS: &[&str] = &["SET lock_timeout = '2s'", "SET statement_timeout = '5s'"];

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
/// `SQLite` has one writer at a time. Letting writers queue here, in order, for a single connection is fair and fast;
/// letting them collide in `SQLite` makes each sleep and try again, and would let them take every connection from reads.
#[derive(Clone, Debug)]
pub struct Database {
    reader: AnyPool,
    writer: AnyPool,
}

impl Database {
    /// Connects and applies the migrations that are missing. Safe to run from several processes at once.
    pub async fn open(
        settings: Settings<'_>,
        migrations: &[Migration],
        clock: &Clock,
    ) -> Result<Self, Error> {
        install_default_drivers();
        let url = settings.url;
        let is_sqlite = url.starts_with("sqlite:");
        if !is_sqlite && !url.starts_with("postgres:") && !url.starts_with("postgresql:") {
            // The URL may hold a password, so it isn't repeated.
            return Err(Error::config("database-url must begin with sqlite: or postgres:"));
        }
        let in_memory = is_sqlite && (url.contains(":memory:") || url.contains("mode=memory"));
        let database = if in_memory {
            let only = connect(settings, 1, in_memory).await?;
            Self { reader: only.clone(), writer: only }
        } else if is_sqlite {
            Self {
                writer: connect(settings, 1, false).await?,
                reader: connect(settings, settings.connections, false).await?,
            }
        } else {
            let both = connect(settings, settings.connections, false).await?;
            Self { reader: both.clone(), writer: both }
        };
        for attempt in 1.. {
            match database.migrate(migrations, clock).await {
                Ok(()) => break,
                Err(error) if attempt == OPEN_ATTEMPTS || error.as_database_error().is_none() => {
                    return Err(error.into());
                }
                Err(_) => sleep(OPEN_RETRY).await,
            }
        }
        Ok(database)
    }

    async fn migrate(&self, migrations: &[Migration], clock: &Clock) -> Result<(), sqlx::Error> {
        self.writer
            .execute("CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)")
            .await?;
        for migration in migrations {
            let mut transaction = self.begin().await?;
            // The primary key makes a second process wait for the first one's commit and then skip the step.
            let claimed = sqlx::query(
                "INSERT INTO schema_migrations (version, applied_at) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING",
            )
            .bind(migration.version)
            .bind(clock.now_ms())
            .execute(&mut *transaction)
            .await?;
            if claimed.rows_affected() == 1 {
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

    /// Starts a transaction. Its first statement should write: `SQLite` can't turn a read transaction into a write
    /// transaction once another process has written. Dropped without a commit, it rolls back.
    pub async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.writer.begin().await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        self.reader.execute("SELECT version FROM schema_migrations").await.map(drop)
    }
}

async fn connect(settings: Settings<'_>, connections: u32, in_memory: bool) -> Result<AnyPool, Error> {
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
    }
    for attempt in 1.. {
        match options.clone().connect(settings.url).await {
            Ok(pool) => return Ok(pool),
            Err(error) if attempt < OPEN_ATTEMPTS && is_busy(&error) => sleep(OPEN_RETRY).await,
            Err(sqlx::Error::Configuration(_)) => return Err(Error::config("database-url is not valid")),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::config("unreachable: attempts are bounded above"))
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

/// Whether the same statement may well succeed a moment later: the pool is exhausted, a lock is held, or Postgres
/// asks for a retry.
pub fn is_busy(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_busy_code(&code)),
        _ => false,
    }
}

/// `SQLite`'s codes are numbers whose low byte is the primary code; Postgres's are `SQLSTATE`s of five characters.
fn is_busy_code(code: &str) -> bool {
    const SQLITE_BUSY: u32 = 5;
    const SQLITE_LOCKED: u32 = 6;
    // serialization failure, deadlock, too many connections, lock and statement timeout, starting up
    const POSTGRES_BUSY: [&str; 6] = ["40001", "40P01", "53300", "55P03", "57014", "57P03"];
    if code.len() == 5 {
        return POSTGRES_BUSY.contains(&code);
    }
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, SQLITE_BUSY | SQLITE_LOCKED))
}

#[cfg(test)]
mod tests {
    use super::is_busy_code;

    #[test]
    fn busy_is_told_apart_from_broken_for_both_databases() {
        for busy in ["5", "6", "261", "517", "40001", "53300", "55P03"] {
            assert!(is_busy_code(busy), "{busy}");
        }
        for broken in ["1", "11", "19", "2067", "23505", "42P01", "53100", ""] {
            assert!(!is_busy_code(broken), "{broken}");
        }
    }
}
