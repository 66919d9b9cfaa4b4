//! What a program and the tables of a database must know of each other.
//!
//! Migrations are numbered, and each database says which were applied. A newer program may have
//! applied some that this one does not know. Most only add (a table, a column with a default), and
//! then this program goes on with the tables as they are; a migration after which older programs
//! would do harm says so in the table `compatibility`, and they refuse.
//!
//! Separate because PostgreSQL and SQLite have the same bookkeeping. Deliberately absent: ways
//! back. A migration is never undone; a program that is rolled back works with what is there.

use std::fmt::Write;

use sqlx::migrate::{AppliedMigration, MigrateError, Migrator};

use crate::error::code;

/// What may be done to a database that is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// Rows are read, nothing is written, and the connection holds to that: a standby will do, and
    /// a role that may only SELECT.
    Read,
    /// Rows are read and written; the tables are taken as they are.
    Write,
    /// Missing tables are made first.
    Migrate,
}

/// Why the tables of a database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// There are none.
    #[error(
        "{code}: this database has no tables of Backstitch yet. Make them with `backstitch migrate` (a node that starts does it too), or check that DATABASE_URL names the database of your nodes",
        code = code::SCHEMA_BEHIND
    )]
    Missing,
    /// Some are missing.
    #[error(
        "{code}: the tables of this database are of an older Backstitch ({missing} missing). Bring them up to date with `backstitch migrate` (a node that starts does it too)",
        code = code::SCHEMA_BEHIND,
        missing = .0.join(", ")
    )]
    Older(Vec<String>),
    /// A newer program has changed them in a way that this one would do harm with.
    #[error(
        "{code}: the tables of this database were changed by a newer Backstitch: whoever uses them must know migration {oldest}, and this program knows no later one than {known}. Use that newer version",
        code = code::SCHEMA_TOO_NEW
    )]
    TooNew {
        /// The migration that must be known.
        oldest: i64,
        /// The newest one that is.
        known: i64,
    },
    /// They are not of this product, or of a build that was never released.
    #[error(
        "{code}: migration {0} of this database is not the one that this program knows by that number: the tables were made by an unreleased build. Begin with an empty database",
        code = code::SCHEMA_BEHIND
    )]
    Foreign(i64),
    /// The database refuses to make them.
    #[error(
        "the tables can't be brought up to date: {0}. `backstitch migrate` must be run by a role that may create tables and owns those that are there, and on the primary"
    )]
    Refused(#[source] MigrateError),
}

/// The tables as they were found.
#[derive(Debug)]
pub(super) struct Tables {
    /// What was applied.
    pub(super) applied: Vec<AppliedMigration>,
    /// The migration that a program must know to use them.
    pub(super) oldest: i64,
}

/// Which migrations are missing, by name; an error if the tables can't be used, whatever is done.
pub(super) fn missing(
    found: Option<&Tables>,
    migrator: &Migrator,
) -> Result<Vec<String>, SchemaError> {
    let known = migrator.iter().map(|it| it.version).max().unwrap_or(0);
    let (applied, oldest) = found.map_or((&[][..], 0), |it| (&it.applied[..], it.oldest));
    if oldest > known {
        return Err(SchemaError::TooNew { oldest, known });
    }
    let mut missing = Vec::new();
    for migration in migrator.iter() {
        let (version, description) = (migration.version, &migration.description);
        match applied.iter().find(|it| it.version == version) {
            Some(applied) if applied.checksum != migration.checksum => {
                return Err(SchemaError::Foreign(version));
            }
            Some(_) => {}
            None => {
                let mut name = String::new();
                // Writing to a `String` can't fail.
                let _ = write!(name, "{version:04} {description}");
                missing.push(name);
            }
        }
    }
    Ok(missing)
}

/// The error for who may not make what is missing.
pub(super) fn behind(found: Option<&Tables>, missing: Vec<String>) -> SchemaError {
    match found {
        None => SchemaError::Missing,
        Some(_) => SchemaError::Older(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::SqlSafeStr;
    use sqlx::migrate::{Migration, MigrationType};

    fn migrator(numbers: &[i64]) -> Migrator {
        let migration = |number: &i64| {
            let (name, sql) = ("tables".into(), "SELECT 1".into_sql_str());
            Migration::new(*number, name, MigrationType::Simple, sql, false)
        };
        Migrator::with_migrations(numbers.iter().map(migration).collect())
    }

    fn tables(numbers: &[i64], oldest: i64) -> Tables {
        let migrator = migrator(numbers);
        let applied = migrator.iter().map(|it| AppliedMigration {
            version: it.version,
            checksum: it.checksum.clone(),
        });
        Tables {
            applied: applied.collect(),
            oldest,
        }
    }

    #[test]
    fn what_a_newer_program_has_added_is_lived_with_and_what_it_has_changed_is_not() {
        let mine = migrator(&[1, 2]);
        let none: [&str; 0] = [];
        assert_eq!(
            missing(None, &mine).unwrap(),
            ["0001 tables", "0002 tables"]
        );
        assert_eq!(
            missing(Some(&tables(&[1], 1)), &mine).unwrap(),
            ["0002 tables"]
        );
        assert_eq!(missing(Some(&tables(&[1, 2], 1)), &mine).unwrap(), none);
        let newer = tables(&[1, 2, 3], 2);
        assert_eq!(missing(Some(&newer), &mine).unwrap(), none);
        let changed = missing(Some(&tables(&[1, 2, 3], 3)), &mine);
        assert!(matches!(
            changed,
            Err(SchemaError::TooNew {
                oldest: 3,
                known: 2
            })
        ));
    }

    #[test]
    fn a_migration_of_the_same_number_with_other_content_is_refused() {
        let mut found = tables(&[1, 2], 1);
        found.applied[1].checksum = vec![1].into();
        let refused = missing(Some(&found), &migrator(&[1, 2]));
        assert!(matches!(refused, Err(SchemaError::Foreign(2))));
    }
}
