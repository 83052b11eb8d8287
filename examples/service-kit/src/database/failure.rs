//! What a failed statement means, by the codes of either database.

/// Whether the same statement may well succeed a moment later: the pool is exhausted, a lock is
/// held, the connection is gone, or Postgres starts, stops or asks for a retry.
pub fn is_busy(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_busy_code(&code)),
        _ => false,
    }
}

/// Whether nothing can be stored, however often it is tried, until somebody sees to it: the disk is
/// full or broken, or the database takes no writes.
pub fn is_unwritable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_unwritable_code(&code)),
        _ => false,
    }
}

/// Whether what was to be stored is to blame, so that anything else would be stored in its place: a
/// value that the database has no room or no letters for, or a rule of the schema. Every other
/// failure is the database's own, or the service's.
pub fn is_the_datas_fault(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_data_code(&code)),
        _ => false,
    }
}

fn is_data_code(code: &str) -> bool {
    // too big, constraint, mismatch
    const SQLITE: [u32; 3] = [18, 19, 20];
    // data exceptions, constraints, limits of the program
    const POSTGRES: [&str; 3] = ["22", "23", "54"];
    if code.len() == 5 {
        return code.get(..2).is_some_and(|class| POSTGRES.contains(&class));
    }
    code.parse::<u32>().is_ok_and(|code| SQLITE.contains(&(code & 0xff)))
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

/// `SQLite`'s codes are numbers whose low byte is the primary code; Postgres's are `SQLSTATE`s of
/// five characters.
fn is_busy_code(code: &str) -> bool {
    const SQLITE_BUSY: u32 = 5;
    const SQLITE_LOCKED: u32 = 6;
    // serialization failure, deadlock, too many connections, lock and statement timeout, told to
    // stop, crashed, starting up
    const POSTGRES_BUSY: [&str; 8] = ["40001", "40P01", "53300", "55P03", "57014", "57P01", "57P02", "57P03"];
    const CONNECTION: &str = "08";
    if code.len() == 5 {
        return POSTGRES_BUSY.contains(&code) || code.starts_with(CONNECTION);
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
        for busy in ["5", "6", "261", "517", "40001", "53300", "55P03", "57P01", "57P02", "08006"] {
            assert!(is_busy_code(busy), "{busy}");
        }
        for broken in ["1", "11", "19", "2067", "23505", "42P01", "53100", ""] {
            assert!(!is_busy_code(broken), "{broken}");
        }
    }

    /// Ours: a table that isn't there, no permission, no memory, a file that is no database, a
    /// disk, a crash, a schema that changed.
    #[test]
    fn only_what_the_data_itself_breaks_is_the_datas_fault() {
        for data in ["18", "19", "20", "2067", "22001", "22021", "23505", "54000"] {
            assert!(is_data_code(data), "{data}");
        }
        for ours in [
            "1", "3", "5", "7", "11", "13", "26", "42P01", "42501", "53200", "53100", "57P02", "XX000",
            "0A000", "",
        ] {
            assert!(!is_data_code(ours), "{ours}");
        }
    }
}
