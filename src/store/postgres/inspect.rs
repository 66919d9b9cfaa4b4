//! What a PostgreSQL server is like.

use async_trait::async_trait;

use super::PostgresStore;
use crate::store::StoreError;
use crate::store::inspect::{InspectStore, ServerFacts};

const FACTS: &str = "
    SELECT
        current_setting('server_version'),
        pg_is_in_recovery(),
        coalesce(has_table_privilege(to_regclass('sagas'), 'INSERT, UPDATE'), false),
        current_setting('fsync'),
        current_setting('full_page_writes'),
        current_setting('synchronous_commit'),
        current_setting('max_connections')::bigint
            - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')";

type Row = (String, bool, bool, String, String, String, i64);

#[async_trait]
impl InspectStore for PostgresStore {
    async fn server_facts(&self) -> Result<ServerFacts, StoreError> {
        let query = sqlx::query_as::<_, Row>(FACTS).fetch_one(&self.pool);
        let found = query.await.map_err(|error| self.failed(error))?;
        let (version, is_standby, may_write, fsync, pages, commit, free) = found;
        let settings = [
            ("fsync", fsync),
            ("full_page_writes", pages),
            ("synchronous_commit", commit),
        ];
        let undurable = settings.iter().filter(|(_, value)| value == "off");
        Ok(ServerFacts {
            version: format!("PostgreSQL {version}"),
            is_standby,
            may_write,
            undurable: undurable
                .map(|(name, _)| format!("{name} is off, should be on"))
                .collect(),
            connections_free: Some(free),
        })
    }
}
