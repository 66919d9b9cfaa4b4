//! Aggregates as they are stored: all of a kind, or one folded from its events.

use super::aggregate::Aggregate;
use super::open::{Open, corrupt};
use crate::store::StoreError;
use crate::store::participant::{AggregateKey, ParticipantStore};

/// Rows read at once by [`states`] and [`rebuild`].
const PAGE_ROWS: usize = 500;

/// The snapshots of all aggregates of a kind, in id order.
pub async fn states<A: Aggregate>(
    store: &dyn ParticipantStore,
) -> Result<Vec<(String, A::State)>, StoreError> {
    let mut states = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store
            .aggregates(A::KIND, after.as_deref(), PAGE_ROWS)
            .await?;
        let last_page = page.len() < PAGE_ROWS;
        for row in page {
            let state = Open::<A>::new(Some(&row))?.state;
            after = Some(row.key.id.clone());
            states.push((row.key.id, state));
        }
        if last_page {
            return Ok(states);
        }
    }
}

/// The state of one aggregate, from its events alone, to be compared with its snapshot.
pub async fn rebuild<A: Aggregate>(
    store: &dyn ParticipantStore,
    key: &AggregateKey,
) -> Result<A::State, StoreError> {
    let mut state = A::State::default();
    let mut after = 0;
    loop {
        let page = store.aggregate_events(key, after, PAGE_ROWS).await?;
        for row in &page {
            let event = serde_json::from_slice(&row.body).map_err(|error| {
                corrupt(
                    format!("event {} of {} `{}`", row.seq, key.kind, key.id),
                    &error,
                )
            })?;
            A::apply(&mut state, &event);
            after = row.seq;
        }
        if page.len() < PAGE_ROWS {
            return Ok(state);
        }
    }
}
