//! Initial stock and balances, in bulk and without messages.

use std::collections::BTreeMap;

use crate::id::Timestamp;
use crate::participant::{Aggregate, CommandRefusal, UnitOfWork, key_of};
use crate::store::StoreError;
use crate::store::participant::{AggregateKey, ParticipantStore, ParticipantWrites};

/// Aggregates seeded in one transaction.
const SEED_ROWS_MAX: usize = 500;

/// Gives aggregates that have no events yet their first ones, and returns how many those were.
/// Aggregates with a past are left alone, so seeding twice is seeding once.
///
/// ```no_run
/// # use backstitch::{aggregates::{inventory, seed, Inventory}, store::participant::ParticipantStore};
/// # async fn example(store: &dyn ParticipantStore, now: backstitch::id::Timestamp) {
/// let stock = [("sku-1".to_owned(), inventory::Event::Received { quantity: 40 })];
/// seed::<Inventory>(store, now, stock).await.unwrap();
/// # }
/// ```
pub async fn seed<A: Aggregate>(
    store: &dyn ParticipantStore,
    now: Timestamp,
    events: impl IntoIterator<Item = (String, A::Event)>,
) -> Result<usize, StoreError> {
    let mut by_key: BTreeMap<AggregateKey, Vec<A::Event>> = BTreeMap::new();
    for (id, event) in events {
        let key = key_of::<A>(id).map_err(|rejection| StoreError::Refused(rejection.into()))?;
        by_key.entry(key).or_default().push(event);
    }
    let all: Vec<_> = by_key.into_iter().collect();
    let mut seeded = 0;
    for chunk in all.chunks(SEED_ROWS_MAX) {
        seeded += loop {
            match seed_chunk::<A>(store, now, chunk).await {
                // Someone else has just seeded some of them, and has committed.
                Err(StoreError::Conflict) => {}
                result => break result?,
            }
        };
    }
    Ok(seeded)
}

async fn seed_chunk<A: Aggregate>(
    store: &dyn ParticipantStore,
    now: Timestamp,
    chunk: &[(AggregateKey, Vec<A::Event>)],
) -> Result<usize, StoreError> {
    let keys: Vec<AggregateKey> = chunk.iter().map(|(key, _)| key.clone()).collect();
    let mut transaction = store.begin().await?;
    let loaded = transaction.load(&[], &keys).await?;
    let mut unit = UnitOfWork::new(now, &keys, loaded.aggregates);
    for (key, events) in chunk {
        record::<A>(&mut unit, key, events)
            .map_err(|refusal| StoreError::Refused(refusal.into()))?;
    }
    // What the events ask for is asked of a participant, and there is none here.
    let closed = unit.close()?;
    let seeded = closed.aggregates.len();
    transaction
        .commit(ParticipantWrites {
            aggregates: closed.aggregates,
            events: closed.events,
            snapshots: closed.snapshots,
            ..ParticipantWrites::default()
        })
        .await?;
    Ok(seeded)
}

fn record<A: Aggregate>(
    unit: &mut UnitOfWork,
    key: &AggregateKey,
    events: &[A::Event],
) -> Result<(), CommandRefusal> {
    let open = unit.aggregate::<A>(key)?;
    if open.revision() == 0 {
        open.record(events)?;
    }
    Ok(())
}
