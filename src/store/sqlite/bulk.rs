//! Statements for many rows at a time.
//!
//! SQLite has no arrays. Rows to write travel as `VALUES` lists of a few fixed lengths, so that
//! each length is prepared once and a batch of fifty is three statements (32 + 16 + 2). Keys to
//! look up travel as one JSON text, read with `json_each`: one statement for any number.

use serde_json::Value;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};
use uuid::Uuid;

/// Lengths of `VALUES` lists, longest first; a longer list gains nothing.
const LENGTHS: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

/// A statement with a `VALUES` list, in all its lengths.
pub(super) struct Bulk {
    /// Parallel to [`LENGTHS`].
    statements: Vec<String>,
}

/// A statement whose values are being bound.
pub(super) type Binding = Query<'static, Sqlite, SqliteArguments>;

impl Bulk {
    /// `before VALUES (?, …), (?, …) after`, with this many columns in a row.
    pub(super) fn new(before: &str, columns: usize, after: &str) -> Self {
        let row = format!("({})", vec!["?"; columns].join(", "));
        let list = |length| vec![row.as_str(); length].join(", ");
        let statement = |length| format!("{before} VALUES {} {after}", list(length));
        Self {
            statements: LENGTHS.into_iter().map(statement).collect(),
        }
    }

    /// Runs it for all rows; returns the number of rows affected.
    pub(super) async fn execute<R>(
        &'static self,
        connection: &mut SqliteConnection,
        rows: &[R],
        bind: impl Fn(Binding, &R) -> Binding,
    ) -> sqlx::Result<u64> {
        let mut affected = 0;
        for query in self.queries(rows, bind) {
            affected += query.execute(&mut *connection).await?.rows_affected();
        }
        Ok(affected)
    }

    /// Runs it for all rows; returns the ids that it returns.
    pub(super) async fn fetch_ids<R>(
        &'static self,
        connection: &mut SqliteConnection,
        rows: &[R],
        bind: impl Fn(Binding, &R) -> Binding,
    ) -> sqlx::Result<Vec<Uuid>> {
        let mut ids = Vec::with_capacity(rows.len());
        for query in self.queries(rows, bind) {
            for row in query.fetch_all(&mut *connection).await? {
                ids.push(sqlx::Row::try_get(&row, 0)?);
            }
        }
        Ok(ids)
    }

    fn queries<R>(
        &'static self,
        mut rows: &[R],
        bind: impl Fn(Binding, &R) -> Binding,
    ) -> impl Iterator<Item = Binding> {
        std::iter::from_fn(move || {
            let mut statements = LENGTHS.into_iter().zip(&self.statements);
            let (length, statement) = statements.find(|(length, _)| *length <= rows.len())?;
            let (now, later) = rows.split_at(length);
            rows = later;
            Some(now.iter().fold(sqlx::query(statement.as_str()), &bind))
        })
    }
}

/// Ids for `IN (SELECT unhex(value) FROM json_each(?))`.
pub(super) fn ids(ids: impl IntoIterator<Item = Uuid>) -> String {
    json(ids.into_iter().map(hex))
}

/// An id for `unhex`.
pub(super) fn hex(id: Uuid) -> Value {
    Value::from(id.as_simple().to_string())
}

/// Values for `json_each(?)`.
pub(super) fn json(values: impl IntoIterator<Item = Value>) -> String {
    Value::Array(values.into_iter().collect()).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    #[test]
    fn any_number_of_rows_is_cut_into_few_statements() {
        static BULK: LazyLock<Bulk> = LazyLock::new(|| Bulk::new("INSERT INTO t", 2, ""));
        for (rows, statements) in [
            (0, 0),
            (1, 1),
            (50, 3),
            (63, 6),
            (64, 1),
            (200, 4),
            (1000, 17),
        ] {
            let rows = vec![(); rows];
            let queries = BULK.queries(&rows, |query, ()| query.bind(1).bind(2));
            assert_eq!(queries.count(), statements, "{} rows", rows.len());
        }
    }
}
