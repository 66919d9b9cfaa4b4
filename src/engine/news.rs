//! What other nodes have stored since this one started.
//!
//! While definitions are rolled out, older and newer nodes take from the same queues. So what an
//! older node would refuse because of the definitions that it knows, it first looks up in the
//! database, and decides again. What the database does not have either is refused; and while the
//! database can't be asked, nothing is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::events::EventRules;
use super::found::Found;
use super::lock;
use super::work::{Job, Work};
use super::worker::Shared;
use crate::id::SagaId;
use crate::store::StoreError;

/// For so long after a look nothing new is expected: however much is to be refused, the database is
/// asked four times a second.
pub(super) const LOOK_HOLDS: Duration = Duration::from_millis(250);
/// Pause before the database is asked again when it could not be asked.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    /// Learns what is stored, unless that was looked up less than `holds` ago.
    pub(super) async fn look_for_news(&self, holds: Duration) -> Result<(), StoreError> {
        let asked = self.environment.elapsed();
        let mut last = self.last_look.lock().await;
        if last.is_some_and(|last| asked < last + holds) {
            return Ok(());
        }
        let began = self.environment.elapsed();
        let stored = self.within(self.store.definitions()).await?;
        if self.catalogue.learn(&stored) {
            tracing::warn!(
                "another node has stored definitions that this one has not loaded; it goes by them from now on"
            );
        }
        *last = Some(began);
        Ok(())
    }

    /// The same for messages, which wait for the database. `None` if the node stops before.
    pub(super) async fn wait_for_news(&self, holds: Duration) -> Option<()> {
        loop {
            match self.look_for_news(holds).await {
                Ok(()) => return Some(()),
                Err(_) if self.stop.is_requested() => return None,
                Err(error) => {
                    self.presence.failed(self.environment.now(), &error);
                    tracing::warn!(%error, "messages wait for the database: it may have definitions that this node has not");
                    self.environment.sleep(LOOK_PAUSE).await;
                }
            }
        }
    }

    /// The same before works are decided about what is to replace a saga: that runs the newest
    /// definition, and it is decided where nobody can be asked.
    pub(super) async fn look_for_heirs(
        &self,
        works: &[Work],
        found: &BTreeMap<SagaId, Found>,
    ) -> Result<(), StoreError> {
        let mut jobs = works.iter().map(|work| &work.job);
        let asks = jobs.any(|job| matches!(job, Job::Succeed { .. } | Job::Signal(_)));
        let has_heir = |found: &Found| matches!(found, Found::Open(open) if open.saga.line.successor.is_some());
        if asks && found.values().any(has_heir) {
            self.look_for_news(LOOK_HOLDS).await?;
        }
        Ok(())
    }

    /// The rules about events, of what is known now.
    pub(super) fn event_rules(&self) -> Arc<EventRules> {
        let known = self.catalogue.known();
        let mut rules = lock(&self.events);
        if !rules.are_of(&known) {
            *rules = Arc::new(EventRules::of(known));
        }
        Arc::clone(&rules)
    }
}
