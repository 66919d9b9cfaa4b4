//! What a database server is like, for those who look for what is wrong with it.

use async_trait::async_trait;

use super::StoreError;

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its name and version, such as `PostgreSQL 15.4`.
    pub version: String,
    /// Whether it only follows another one.
    pub is_standby: bool,
    /// Whether this role may change sagas.
    pub may_write: bool,
    /// Settings with which a power cut loses what was committed, each with what it should be.
    pub undurable: Vec<String>,
    /// Connections that this role may still open, if that is known.
    pub connections_free: Option<i64>,
}

/// Says what the server is like.
#[async_trait]
pub trait InspectStore: Send + Sync + 'static {
    /// The facts now.
    async fn server_facts(&self) -> Result<ServerFacts, StoreError>;
}
