//! What a failed statement means, by the codes of either database.

/// Whether the same statement may well succeed a moment later: the pool is exhausted, a lock is held, or Postgres
/// asks for a retry.
pub fn is_busy(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_busy_code(&code)),
        _ => false,
    }
}

/// Whether nothing can be stored, however often it is tried, until somebody sees to it: the disk is full or broken, or
/// the database takes no writes.
pub fn is_unwritable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_unwritable_code(&code)),
        _ => false,
    }
}

fn is_unwritable_code(code: &str) -> bool {
    // read-only, input or output error, full
    const SQLITE: [u32; 3] = [8, 10, 13];
    // disk full, input or output error, a standby that takes no writes
    const POSTGRES: [&str; 3] = ["53100", "58030", "25006"];
    if code.len() == 5 {
        return POSTGRES.contains(&code);
    }
    code.parse::<u32>().is_ok_and(|code| SQLITE.contains(&(code & 0xff)))
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
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_failures_for_both_databases() {
        for unwritable in ["8", "10", "13", "778", "53100", "25006"] {
            assert!(is_unwritable_code(unwritable), "{unwritable}");
        }
        for other in ["1", "5", "19", "2067", "23505", "40001", "57014", ""] {
            assert!(!is_unwritable_code(other), "{other}");
        }
    }

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
