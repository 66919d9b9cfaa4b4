//! What PostgreSQL's errors mean to us.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// When a connection last turned out to be one of those that only a new one cures: it has plans
/// from before a migration, its server takes no writes any more, or it fell silent.
///
/// All connections of that age are likely the same.
#[derive(Debug, Default)]
pub(super) struct Distrust(Mutex<Option<Instant>>);

impl Distrust {
    /// Whether a connection of this age was there then.
    pub(super) fn has_met(&self, age: Duration) -> bool {
        let met = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.is_some_and(|at| age >= at.elapsed())
    }

    /// It was met now.
    pub(super) fn meet(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// Sorts an error of a statement.
pub(super) fn failed(distrust: &Distrust, error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            if AGED.contains(&&*code) {
                distrust.meet();
            }
            match &*code {
                LOCK_TIME_OUT => StoreError::Locked(error.into()),
                CANCELLED => StoreError::TooSlow(error.into()),
                code if is_passing(code) => StoreError::Unavailable(error.into()),
                _ => StoreError::Refused(error.into()),
            }
        }
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => {
            StoreError::TooSlow(error.into())
        }
        _ if is_connection(&error) => StoreError::Unavailable(error.into()),
        sqlx::Error::ColumnDecode { index, source } => StoreError::Corrupt {
            what: format!("column {index}"),
            why: source.to_string(),
        },
        _ => StoreError::Refused(error.into()),
    }
}

/// Sorts an error of opening: what is worth waiting for, and what a person must mend.
pub(super) fn open_failed(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if is_passing(&database.code().unwrap_or_default()) => {
            StoreError::Unavailable(error.into())
        }
        _ if is_connection(&error) => StoreError::Unavailable(error.into()),
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            StoreError::Open(format!("{error}. {}", advice(&code)))
        }
        _ => StoreError::Open(format!("{error}. Check DATABASE_URL")),
    }
}

/// What to do about an error of opening, by its SQLSTATE.
fn advice(code: &str) -> &'static str {
    match code {
        "28000" | "28P01" => "Check the user and the password in DATABASE_URL",
        "3D000" => "Check the database's name in DATABASE_URL, or create it",
        // A schema that a role may not enter is to it as if it were not there.
        "42501" | "42P01" | "3F000" => {
            "This role lacks a right; docs/operating.md lists under \"Tables and rights\" which ones it needs"
        }
        _ => "The database's own words say what to mend",
    }
}

/// Whether a row was already there.
pub(super) fn is_unique_violation(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    database.is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// SQLSTATE of a wait for a lock that took too long.
const LOCK_TIME_OUT: &str = "55P03";
/// SQLSTATE of a statement that took too long, or that somebody cancelled.
const CANCELLED: &str = "57014";
/// SQLSTATEs that only a new connection cures: a plan from before a migration, and a server that
/// was demoted, or made read-only.
const AGED: [&str; 2] = ["0A000", "25006"];

/// SQLSTATEs (or their two-digit classes) after which the same batch may succeed.
fn is_passing(code: &str) -> bool {
    const PASSING: [&str; 11] = [
        "08",    // connection lost
        "0A000", // cached plan from before a migration
        "25006", // read-only: a server that was just demoted
        "25P03", // idle in transaction for too long
        "40001", // serialization failure
        "40P01", // deadlock
        "53",    // out of connections, memory, disk
        "55P03", // lock time-out
        "57014", // cancelled
        "57P",   // shutting down, starting up, dropped
        "58",    // the server's own I/O
    ];
    PASSING.iter().any(|prefix| code.starts_with(prefix))
}

fn is_connection(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_the_server_pass_and_errors_of_the_program_do_not() {
        for code in [
            "40001", "40P01", "0A000", "57P01", "53300", "08006", "25006",
        ] {
            assert!(is_passing(code), "{code}");
        }
        for code in ["", "23505", "42P01", "22021", "23001", "54000"] {
            assert!(!is_passing(code), "{code}");
        }
    }

    #[test]
    fn connections_older_than_the_meeting_are_stale_and_younger_ones_are_not() {
        let distrust = Distrust::default();
        assert!(!distrust.has_met(Duration::from_hours(1)));
        distrust.meet();
        assert!(distrust.has_met(Duration::from_hours(1)));
        assert!(!distrust.has_met(Duration::ZERO));
    }
}
