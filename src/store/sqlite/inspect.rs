//! What SQLite and its file are like.

use async_trait::async_trait;

use super::{SqliteStore, failed};
use crate::store::StoreError;
use crate::store::inspect::{InspectStore, ServerFacts};

const VERSION: &str = "SELECT sqlite_version()";
/// 2 is FULL: the file is synced with each commit.
const SYNCHRONOUS: &str = "SELECT synchronous FROM pragma_synchronous";
const FULL: i64 = 2;
const READ_ONLY: &str = "SELECT query_only FROM pragma_query_only";

#[async_trait]
impl InspectStore for SqliteStore {
    async fn server_facts(&self) -> Result<ServerFacts, StoreError> {
        let version: String = sqlx::query_scalar(VERSION)
            .fetch_one(&self.writer)
            .await
            .map_err(failed)?;
        let synchronous: i64 = sqlx::query_scalar(SYNCHRONOUS)
            .fetch_one(&self.writer)
            .await
            .map_err(failed)?;
        let read_only: i64 = sqlx::query_scalar(READ_ONLY)
            .fetch_one(&self.writer)
            .await
            .map_err(failed)?;
        let undurable = (synchronous < FULL).then(|| "synchronous is not FULL".to_owned());
        Ok(ServerFacts {
            version: format!("SQLite {version}"),
            is_standby: false,
            may_write: read_only == 0,
            undurable: undurable.into_iter().collect(),
            connections_free: None,
        })
    }
}
