//! A participant end to end, over the memory store and the memory broker.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::aggregates::{self, Inventory, Mailer, inventory, mailer};
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Consumer, Outgoing, Published, Queue, Topology};
use crate::engine::relay::Relay;
use crate::environment::{Environment, Shutdown, TokioEnvironment};
use crate::error::code;
use crate::id::{MessageId, Phase, SagaId, StepPath, Timestamp};
use crate::message::correlation::{Correlation, Secret};
use crate::message::{Destination, HEADER_OUTCOME, HEADER_REASON, Message};
use crate::store::memory::MemoryStore;
use crate::store::participant::{
    AggregateEvent, AggregateRow, ParticipantStore, ParticipantTransaction,
};
use crate::store::{DeadLetter, Outbox, OutboxMessage, Store, StoreError};

const REPLIES: &str = "replies";

/// A participant's world: what survives its crashes, and how to talk to it.
struct Bundle {
    store: MemoryStore,
    broker: MemoryBroker,
    replies: Consumer,
}

/// A reply as the saga would read it.
#[derive(Debug, Clone, PartialEq)]
struct Reply {
    outcome: String,
    reason: Option<String>,
    body: Value,
}

impl Bundle {
    async fn new() -> Self {
        let (store, broker) = (MemoryStore::new(), MemoryBroker::new());
        let queue = |name: &str| Queue {
            name: name.to_owned(),
            dead_letter_to: None,
        };
        let topology = Topology {
            queues: [REPLIES, "inventory", "mailer", "plain"].map(queue).into(),
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let replies = broker.consume(REPLIES, 1_000).await.unwrap();
        let stock = [("a".to_owned(), inventory::Event::Received { quantity: 10 })];
        let seeded = aggregates::seed::<Inventory>(&store, Timestamp::default(), stock);
        assert_eq!(seeded.await.unwrap(), 1);
        Self {
            store,
            broker,
            replies,
        }
    }

    /// Starts a participant; it stops when told to.
    fn start(&self, participant: Participant) -> Running {
        self.start_on(
            participant,
            Arc::new(self.store.clone()),
            Arc::new(self.broker.clone()),
        )
    }

    fn start_on(
        &self,
        participant: Participant,
        store: Arc<dyn ParticipantStore>,
        broker: Arc<dyn Broker>,
    ) -> Running {
        let node = Arc::new(Node::default());
        let shutdown = Shutdown::default();
        let options = ParticipantOptions {
            reply_grace: Duration::ZERO,
            ..ParticipantOptions::default()
        };
        let run = run_all(
            vec![participant],
            Arc::clone(&node) as Arc<dyn Environment>,
            store,
            broker,
            options,
            shutdown.clone(),
        );
        let run = tokio::spawn(run);
        Running {
            node,
            shutdown,
            run,
        }
    }

    async fn send(&self, queue: &str, messages: Vec<Message>) {
        let outgoing = messages.into_iter().map(|message| Outgoing {
            destination: Destination::queue(queue),
            message,
            mandatory: true,
        });
        for published in self.broker.publish(outgoing.collect()).await {
            assert_eq!(published, Published::Confirmed);
        }
    }

    async fn replies(&mut self, count: usize) -> Vec<Reply> {
        let mut replies = Vec::new();
        while replies.len() < count {
            let batch = self.replies.deliveries.next_batch(count - replies.len());
            let batch = tokio::time::timeout(Duration::from_secs(10), batch).await;
            for delivery in batch.expect("a reply within ten seconds") {
                self.replies.acks.ack(&[delivery.tag]);
                let message = delivery.message;
                replies.push(Reply {
                    outcome: message.header(HEADER_OUTCOME).unwrap().to_owned(),
                    reason: message.header(HEADER_REASON).map(str::to_owned),
                    body: serde_json::from_slice(&message.body).unwrap(),
                });
            }
        }
        replies
    }

    /// Sends one command and waits for its reply.
    async fn ask(&mut self, queue: &str, message: Message) -> Reply {
        self.send(queue, vec![message]).await;
        self.replies(1).await.remove(0)
    }

    async fn stock(&self) -> (u64, u64, u64) {
        let states = states::<Inventory>(&self.store).await.unwrap();
        let (id, state) = states.into_iter().next().unwrap();
        let key = key_of::<Inventory>(id).unwrap();
        let rebuilt = rebuild::<Inventory>(&self.store, &key).await.unwrap();
        assert_eq!(rebuilt, state, "replaying the events gives the snapshot");
        (state.on_hand, state.reserved, state.sold)
    }

    async fn dead_letters(&self) -> Vec<DeadLetter> {
        self.store.dead_letters(100).await.unwrap()
    }
}

struct Running {
    node: Arc<Node>,
    shutdown: Shutdown,
    run: tokio::task::JoinHandle<Result<(), ParticipantError>>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.request();
        self.run.await.unwrap().unwrap();
    }

    /// Drops every future it has, at whatever await it stands.
    async fn crash(self) {
        self.run.abort();
        let _ = self.run.await;
        self.node.crash().await;
    }
}

/// A tokio environment whose tasks can all be dropped at once.
#[derive(Default)]
struct Node {
    tasks: Mutex<tokio::task::JoinSet<()>>,
}

impl Node {
    async fn crash(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        tasks.shutdown().await;
    }
}

impl Environment for Node {
    fn now(&self) -> Timestamp {
        TokioEnvironment.now()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioEnvironment.sleep(duration)
    }
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        self.tasks.lock().unwrap().spawn(task);
    }
    fn new_id(&self) -> Uuid {
        TokioEnvironment.new_id()
    }
}

fn command(name: &str, saga: u128, phase: Phase, payload: &Value) -> Message {
    let (saga, step) = (SagaId(Uuid::from_u128(saga)), StepPath::plain("stock"));
    let mut message = Message {
        body: payload.to_string().into(),
        ..Message::default()
    };
    let properties = &mut message.properties;
    properties.kind = Some(name.to_owned());
    properties.message_id = Some(MessageId::of_command(saga, &step, phase).to_string());
    properties.reply_to = Some(REPLIES.to_owned());
    let correlation = Correlation { saga, step, phase };
    properties.correlation_id = Some(correlation.sign(&Secret::new([7; 32])));
    message
}

fn reserve(saga: u128, quantity: u64) -> Message {
    let payload = json!({ "sku": "a", "quantity": quantity });
    command("inventory.reserve", saga, Phase::Reserve, &payload)
}

fn confirm(saga: u128, quantity: u64) -> Message {
    let payload = json!({ "sku": "a", "quantity": quantity, "reservation": {} });
    command("inventory.confirm", saga, Phase::Confirm, &payload)
}

fn release(saga: u128, quantity: u64) -> Message {
    let payload = json!({ "sku": "a", "quantity": quantity, "reservation": null });
    command("inventory.release", saga, Phase::Compensate, &payload)
}

fn shop() -> Participant {
    Participant::new("inventory").aggregate::<Inventory>()
}

#[tokio::test]
async fn a_reservation_is_held_confirmed_and_answered() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let reply = bundle.ask("inventory", reserve(1, 3)).await;
    assert_eq!(reply.outcome, "succeeded");
    assert_eq!(reply.body, json!({ "sku": "a", "quantity": 3, "left": 7 }));
    assert_eq!(bundle.stock().await, (7, 3, 0));
    assert_eq!(
        bundle.ask("inventory", confirm(1, 3)).await.outcome,
        "succeeded"
    );
    assert_eq!(bundle.stock().await, (7, 0, 3));
    running.stop().await;
    assert_eq!(bundle.store.outbox_len().await.unwrap(), 0);
    assert_eq!(bundle.broker.queue_len("inventory"), 0);
}

#[tokio::test]
async fn duplicates_are_answered_alike_and_take_effect_once_in_one_batch_or_in_two() {
    let mut bundle = Bundle::new().await;
    // Sent before the participant starts, so both are in its first batch.
    bundle
        .send("inventory", vec![reserve(1, 3), reserve(1, 3)])
        .await;
    let running = bundle.start(shop());
    let mut replies = bundle.replies(2).await;
    bundle.ask("inventory", confirm(1, 3)).await;
    replies.push(bundle.ask("inventory", reserve(1, 3)).await);
    assert!(
        replies.iter().all(|reply| *reply == replies[0]),
        "{replies:?}"
    );
    assert_eq!(bundle.stock().await, (7, 0, 3));
    running.stop().await;
}

#[tokio::test]
async fn a_hot_aggregate_is_written_once_a_batch() {
    let mut bundle = Bundle::new().await;
    bundle
        .send("inventory", (1..=20).map(|saga| reserve(saga, 1)).collect())
        .await;
    let running = bundle.start(shop());
    let replies = bundle.replies(20).await;
    let taken = replies.iter().filter(|reply| reply.outcome == "succeeded");
    assert_eq!(taken.count(), 10);
    assert_eq!(bundle.stock().await, (0, 10, 0));
    running.stop().await;
}

#[tokio::test]
async fn compensate_before_reserve_succeeds_empty_and_bars_the_reserve() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let reply = bundle.ask("inventory", release(1, 3)).await;
    assert_eq!(
        (reply.outcome.as_str(), reply.body),
        ("succeeded", json!({}))
    );
    let late = bundle.ask("inventory", reserve(1, 3)).await;
    assert_eq!(late.outcome, "rejected");
    assert!(late.reason.unwrap().contains("compensated before"));
    assert_eq!(bundle.stock().await, (10, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn compensate_before_reserve_in_one_batch_does_the_same() {
    let mut bundle = Bundle::new().await;
    bundle
        .send("inventory", vec![release(1, 3), reserve(1, 3)])
        .await;
    let running = bundle.start(shop());
    let outcomes = bundle
        .replies(2)
        .await
        .into_iter()
        .map(|reply| reply.outcome);
    assert_eq!(Vec::from_iter(outcomes), ["succeeded", "rejected"]);
    assert_eq!(bundle.stock().await, (10, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_rejected_reserve_stays_rejected_and_its_compensation_succeeds_empty() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let first = bundle.ask("inventory", reserve(1, 11)).await;
    assert_eq!(first.outcome, "rejected");
    let payload = json!({ "sku": "a", "quantity": 90 });
    let receive = command("inventory.receive", 2, Phase::Action, &payload);
    assert_eq!(bundle.ask("inventory", receive).await.outcome, "succeeded");
    assert_eq!(bundle.ask("inventory", reserve(1, 11)).await, first);
    assert_eq!(
        bundle.ask("inventory", release(1, 11)).await.body,
        json!({})
    );
    assert_eq!(bundle.stock().await, (100, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn contradictions_become_dead_letters_and_are_answered() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let reply = bundle.ask("inventory", confirm(1, 3)).await;
    assert_eq!(reply.outcome, "rejected");
    let letters = bundle.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].code, code::CONFIRM_WITHOUT_RESERVE);
    assert_eq!(letters[0].message, confirm(1, 3));
    assert_eq!(letters[0].queue, "inventory");
    running.stop().await;
}

#[tokio::test]
async fn the_same_command_with_another_payload_is_a_dead_letter_without_an_answer() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    bundle.ask("inventory", reserve(1, 3)).await;
    // The answer to the second shows that the first was handled.
    bundle.send("inventory", vec![reserve(1, 4)]).await;
    let reply = bundle.ask("inventory", reserve(2, 1)).await;
    assert_eq!(reply.body["quantity"], 1);
    let letters = bundle.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].code, code::PAYLOAD_CHANGED);
    assert_eq!(bundle.stock().await, (6, 4, 0));
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_command_is_kept_and_refused_where_it_can_be() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(shop());
    let mut not_json = reserve(1, 3);
    not_json.body = Bytes::from_static(b"{oops");
    let mut unknown = reserve(2, 3);
    unknown.properties.kind = Some("inventory.explode".to_owned());
    let mut silent = reserve(3, 3);
    silent.properties.reply_to = None;
    bundle
        .send("inventory", vec![not_json, unknown, silent])
        .await;
    let replies = bundle.replies(2).await;
    assert!(
        replies
            .iter()
            .all(|reply| reply.outcome == "rejected" && reply.reason.is_some())
    );
    assert_eq!(
        bundle.ask("inventory", reserve(4, 1)).await.outcome,
        "succeeded"
    );
    let mut codes: Vec<_> = bundle
        .dead_letters()
        .await
        .iter()
        .map(|letter| letter.code)
        .collect();
    codes.sort_unstable();
    let expected = [
        code::BODY_NOT_JSON,
        code::COMMAND_UNKNOWN,
        code::COMMAND_MALFORMED,
    ];
    assert_eq!(codes, expected);
    running.stop().await;
}

#[tokio::test]
async fn a_confirm_only_command_runs_once() {
    let mut bundle = Bundle::new().await;
    let running = bundle.start(Participant::new("mailer").aggregate::<Mailer>());
    let payload = json!({ "order_id": "o1" });
    let mail = command("mailer.send-receipt", 1, Phase::Confirm, &payload);
    for _ in 0..2 {
        let reply = bundle.ask("mailer", mail.clone()).await;
        assert_eq!(reply.body, json!({ "order_id": "o1", "receipt": 1 }));
    }
    let states = states::<Mailer>(&bundle.store).await.unwrap();
    assert_eq!(states, [("o1".to_owned(), mailer::State { count: 1 })]);
    running.stop().await;
}

/// A team's own handler: fails the first time it is asked.
struct Moody {
    asked: Arc<AtomicU32>,
}

#[async_trait]
impl CommandHandler for Moody {
    fn commands(&self) -> &'static [CommandSpec] {
        const { &[CommandSpec::new("plain.do")] }
    }

    fn aggregate_of(
        &self,
        _command: &Command,
    ) -> Result<Option<crate::store::participant::AggregateKey>, Rejection> {
        Ok(None)
    }

    async fn handle(&self, _command: &Command, _unit: &mut UnitOfWork) -> Result<Value, Refusal> {
        match self.asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Refusal::Failed("the moon is wrong".to_owned())),
            times => Ok(json!(times)),
        }
    }
}

#[tokio::test]
async fn a_failed_command_leaves_no_trace_and_is_run_again() {
    let mut bundle = Bundle::new().await;
    let asked = Arc::new(AtomicU32::new(0));
    let moody = Moody {
        asked: Arc::clone(&asked),
    };
    let running = bundle.start(Participant::new("plain").handler(moody));
    let act = command("plain.do", 1, Phase::Action, &json!({}));
    let failed = bundle.ask("plain", act.clone()).await;
    assert_eq!(failed.outcome, "failed");
    assert_eq!(failed.reason.as_deref(), Some("the moon is wrong"));
    for _ in 0..2 {
        assert_eq!(bundle.ask("plain", act.clone()).await.body, json!(1));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    running.stop().await;
}

/// A broker whose publishes never come back while it is stuck.
struct StuckBroker {
    inner: MemoryBroker,
}

#[async_trait]
impl Broker for StuckBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), crate::broker::BrokerError> {
        self.inner.declare(topology).await
    }
    async fn consume(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<Consumer, crate::broker::BrokerError> {
        self.inner.consume(queue, prefetch).await
    }
    async fn publish(&self, _messages: Vec<Outgoing>) -> Vec<Published> {
        std::future::pending().await
    }
    fn health(&self) -> crate::broker::Health {
        self.inner.health()
    }
}

#[tokio::test]
async fn replies_of_an_instance_that_crashed_before_publishing_are_sent_by_another() {
    let mut bundle = Bundle::new().await;
    let stuck = Arc::new(StuckBroker {
        inner: bundle.broker.clone(),
    });
    let first = bundle.start_on(shop(), Arc::new(bundle.store.clone()), stuck);
    bundle.send("inventory", vec![reserve(1, 3)]).await;
    while bundle.store.outbox_len().await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
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
    async fn remove_sent(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        self.inner.remove_sent(sent).await
    }
    async fn outbox_len(&self) -> Result<u64, StoreError> {
        self.inner.outbox_len().await
    }
}

#[async_trait]
impl ParticipantStore for LyingStore {
    async fn begin(&self) -> Result<Box<dyn ParticipantTransaction>, StoreError> {
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
        barriers: &[crate::store::participant::BarrierKey],
        aggregates: &[AggregateKey],
    ) -> Result<crate::store::participant::Loaded, StoreError> {
        self.inner.load(barriers, aggregates).await
    }
    async fn commit(
        self: Box<Self>,
        writes: crate::store::participant::ParticipantWrites,
    ) -> Result<(), StoreError> {
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
    });
    let running = bundle.start_on(shop(), store, Arc::new(bundle.broker.clone()));
    let reply = bundle.ask("inventory", reserve(1, 3)).await;
    assert_eq!(reply.body, json!({ "sku": "a", "quantity": 3, "left": 7 }));
    assert_eq!(bundle.stock().await, (7, 3, 0));
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
    let writes = crate::store::participant::ParticipantWrites {
        aggregates: vec![crate::store::participant::Write::Insert(damaged.clone())],
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

#[tokio::test]
async fn seeding_twice_is_seeding_once() {
    let bundle = Bundle::new().await;
    let stock = [("a".to_owned(), inventory::Event::Received { quantity: 10 })];
    let seeded = aggregates::seed::<Inventory>(&bundle.store, Timestamp::default(), stock).await;
    assert_eq!(seeded.unwrap(), 0);
    assert_eq!(bundle.stock().await, (10, 0, 0));
}
