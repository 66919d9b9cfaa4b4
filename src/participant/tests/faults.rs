//! Crashes, lying stores, damage, and the switch that plants a bug.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::aggregates::Mailer;
use crate::broker::{BrokerError, Health};
use crate::engine::relay::{Relay, RelayOptions};
use crate::store::participant::{
    AggregateEvent, AggregateKey, AggregateRow, BarrierKey, Loaded, ParticipantTransaction,
    ParticipantWrites, Write,
};
use crate::store::{Outbox, OutboxMessage, StoreError};

/// A broker whose publishes never come back while it is stuck.
struct StuckBroker {
    inner: MemoryBroker,
}

#[async_trait]
impl Broker for StuckBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.inner.declare(topology).await
    }
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.inner.consume(queue, prefetch).await
    }
    async fn publish(&self, _messages: Vec<Outgoing>) -> Vec<Published> {
        std::future::pending().await
    }
    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        Broker::queue_len(&self.inner, queue).await
    }

    fn health(&self) -> Health {
        self.inner.health()
    }
}

#[tokio::test]
async fn replies_of_an_instance_that_crashed_before_publishing_are_sent_by_another() {
    let mut bundle = Bundle::new().await;
    let stuck = Arc::new(StuckBroker {
        inner: bundle.broker.clone(),
    });
    let first = Running::start(shop(), Arc::new(bundle.store.clone()), stuck);
    bundle.send("inventory", vec![reserve(1, 3)]).await;
    within_bounds(async {
        while bundle.store.outbox_len().await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first.crash().await;

    let second = bundle.start(shop());
    let reply = bundle.replies(1).await.remove(0);
    assert_eq!(reply.body, json!({ "sku": "a", "quantity": 3, "left": 7 }));
    assert_eq!(bundle.stock().await, (7, 3, 0));
    second.stop().await;
    assert_eq!(bundle.store.outbox_len().await.unwrap(), 0);
}

/// A store that commits, but then says that it could not; and that first reports a conflict.
struct LyingStore {
    inner: MemoryStore,
    conflicts: Arc<AtomicU32>,
    lies: Arc<AtomicBool>,
    away: Arc<AtomicBool>,
}

struct LyingTransaction {
    inner: Box<dyn ParticipantTransaction>,
    conflicts: Arc<AtomicU32>,
    lies: Arc<AtomicBool>,
}

#[async_trait]
impl Outbox for LyingStore {
    async fn sweep_outbox(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        self.inner.sweep_outbox(now, until, limit).await
    }
    async fn unsent(&self, rows: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        self.inner.unsent(rows).await
    }

    async fn remove_sent(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        self.inner.remove_sent(sent).await
    }
    async fn return_replays(
        &self,
        at: Timestamp,
        returned: Vec<crate::store::dead_letters::ReturnedReplay>,
    ) -> Result<(), StoreError> {
        self.inner.return_replays(at, returned).await
    }
    async fn set_aside(
        &self,
        letters: Vec<crate::store::DeadLetter>,
        rows: Vec<Uuid>,
    ) -> Result<(), StoreError> {
        self.inner.set_aside(letters, rows).await
    }
    async fn outbox_len(&self) -> Result<u64, StoreError> {
        self.inner.outbox_len().await
    }
}

#[async_trait]
impl ParticipantStore for LyingStore {
    async fn begin(&self) -> Result<Box<dyn ParticipantTransaction>, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("away".into()));
        }
        Ok(Box::new(LyingTransaction {
            inner: self.inner.begin().await?,
            conflicts: Arc::clone(&self.conflicts),
            lies: Arc::clone(&self.lies),
        }))
    }
    async fn aggregates(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AggregateRow>, StoreError> {
        self.inner.aggregates(kind, after, limit).await
    }
    async fn aggregate_events(
        &self,
        key: &AggregateKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AggregateEvent>, StoreError> {
        self.inner.aggregate_events(key, after, limit).await
    }
}

#[async_trait]
impl ParticipantTransaction for LyingTransaction {
    async fn load(
        &mut self,
        barriers: &[BarrierKey],
        aggregates: &[AggregateKey],
    ) -> Result<Loaded, StoreError> {
        self.inner.load(barriers, aggregates).await
    }
    async fn commit(self: Box<Self>, writes: ParticipantWrites) -> Result<(), StoreError> {
        let conflict = |left: u32| left.checked_sub(1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        if self.conflicts.fetch_update(set, fetch, conflict).is_ok() {
            return Err(StoreError::Conflict);
        }
        self.inner.commit(writes).await?;
        if self.lies.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Unavailable("connection lost".into()));
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_batch_is_redone_after_conflicts_and_after_a_commit_that_seemed_to_fail() {
    let mut bundle = Bundle::new().await;
    let store = Arc::new(LyingStore {
        inner: bundle.store.clone(),
        conflicts: Arc::new(AtomicU32::new(2)),
        lies: Arc::new(AtomicBool::new(true)),
        away: Arc::default(),
    });
    let running = Running::start(shop(), store, Arc::new(bundle.broker.clone()));
    let reply = bundle.ask("inventory", reserve(1, 3)).await;
    assert_eq!(reply.body, json!({ "sku": "a", "quantity": 3, "left": 7 }));
    assert_eq!(bundle.stock().await, (7, 3, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_participant_that_has_lost_its_store_gives_its_commands_back_and_takes_them_again() {
    let mut bundle = Bundle::new().await;
    let away = Arc::new(AtomicBool::new(true));
    let store = Arc::new(LyingStore {
        inner: bundle.store.clone(),
        conflicts: Arc::default(),
        lies: Arc::default(),
        away: Arc::clone(&away),
    });
    let running = Running::start(shop(), store, Arc::new(bundle.broker.clone()));
    bundle.send("inventory", vec![reserve(1, 3)]).await;
    for is_taken in [true, false] {
        within_bounds(async {
            while (bundle.broker.unacked("inventory") == 1) != is_taken {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(bundle.broker.queue_len("inventory"), 1, "it is given back");
    away.store(false, Ordering::SeqCst);
    let reply = bundle.replies(1).await.remove(0);
    assert_eq!(reply.body, json!({ "sku": "a", "quantity": 3, "left": 7 }));
    running.stop().await;
}

#[tokio::test]
async fn without_dedupe_duplicates_are_run_again() {
    let mut bundle = Bundle::new().await;
    let connections = |bundle: &Bundle| {
        let environment: Arc<dyn Environment> = Arc::new(TokioEnvironment);
        let broker: Arc<dyn Broker> = Arc::new(bundle.broker.clone());
        let relay = Relay::start(
            Arc::clone(&environment),
            Arc::clone(&broker),
            Arc::new(bundle.store.clone()),
            RelayOptions::default(),
            None,
        );
        Connections {
            environment,
            store: Arc::new(bundle.store.clone()),
            broker,
            relay,
        }
    };
    let options = ParticipantOptions {
        dedupe: false,
        ..ParticipantOptions::default()
    };
    let mailer = Arc::new(Participant::new("mailer").aggregate::<Mailer>());
    let shutdown = Shutdown::default();
    let run = tokio::spawn(mailer.run(connections(&bundle), options, shutdown.clone()));
    let mail = command(
        "mailer.send-receipt",
        1,
        Phase::Confirm,
        &json!({ "order_id": "o1" }),
    );
    bundle.ask("mailer", mail.clone()).await;
    assert_eq!(bundle.ask("mailer", mail).await.body["receipt"], 2);
    shutdown.request();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_participant_whose_state_is_damaged_says_failed_and_overwrites_nothing() {
    let mut bundle = Bundle::new().await;
    let damaged = AggregateRow {
        key: key_of::<Inventory>("b".to_owned()).unwrap(),
        revision: 1,
        state: Bytes::from_static(b"?"),
    };
    let transaction = bundle.store.begin().await.unwrap();
    let writes = ParticipantWrites {
        aggregates: vec![Write::Insert(damaged.clone())],
        ..Default::default()
    };
    transaction.commit(writes).await.unwrap();
    let running = bundle.start(shop());
    let payload = json!({ "sku": "b", "quantity": 1 });
    let ask = command("inventory.reserve", 9, Phase::Reserve, &payload);
    assert_eq!(bundle.ask("inventory", ask).await.outcome, "failed");
    assert_eq!(
        bundle.ask("inventory", reserve(1, 1)).await.outcome,
        "succeeded"
    );
    let rows = bundle
        .store
        .aggregates("inventory", Some("a"), 1)
        .await
        .unwrap();
    assert_eq!(rows, [damaged]);
    running.stop().await;
}
