//! A node with a participant that answers as a case says, and the people who start and signal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstitch::broker::memory::MemoryBroker;
use backstitch::broker::{Broker, Consumer, Outgoing, Published, Queue, Topology};
use backstitch::definition::{Definition, parse};
use backstitch::engine::{Engine, EngineOptions, EngineParts};
use backstitch::environment::TokioEnvironment;
use backstitch::id::{Phase, StepPath};
use backstitch::limits::{self, BODY, COMMAND, Extent, MESSAGE_BYTES_MAX};
use backstitch::message::{
    Destination, HEADER_OUTCOME, HEADER_SAGA, HEADER_SAGA_KEY, Headers, Message, Properties,
    SIGNAL_QUEUE, START_QUEUE,
};
use backstitch::saga::{Saga, Status};
use backstitch::store::{ListFilter, LoadRequest, SagaHead, Store};
use backstitch::view::{SagaView, folded, read_history};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::bodies::Shape;

/// Everything that came in is passed on, alone and together, before the pivot and behind it.
const DEFINITION: &str = "
saga: closure
version: 1
key: ${ input.id }
timeout: 1h
defaults: { retry: { attempts: 1 } }
steps:
  - step: all
    with: { input: '${ input }' }
    reserve: keeper.take
    confirm: keeper.keep
    compensate: keeper.release
  - wait: word
  - step: part
    for_each: ${ input.items }
    with: { item: '${ item }', pad: '${ input.pad }' }
    reserve: keeper.take
    confirm: keeper.keep
    compensate: keeper.release
  - step: sum
    with: { input: '${ input }', reply: '${ steps.all }', word: '${ steps.word }' }
    confirm: keeper.note
output: { reply: '${ steps.all }', word: '${ steps.word }' }
";

/// The participant's queue, and the one on which answers are heard.
const KEEPER: &str = "keeper";
const ASKER: &str = "asker";
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// One saga: what comes in, and what the participant says.
#[derive(Debug, Clone)]
pub struct Case {
    pub input: Shape,
    pub reply: Shape,
    pub word: Shape,
    pub key_bytes: usize,
    pub items: usize,
    /// Bytes that each item's command has beside it.
    pub pad: usize,
    /// The place of the part that the participant refuses.
    pub denied: Option<usize>,
}

impl Case {
    /// Nothing about it is large.
    pub const SMALL: Self = Self {
        input: Shape::Small,
        reply: Shape::Small,
        word: Shape::Small,
        key_bytes: 20,
        items: 2,
        pad: 0,
        denied: None,
    };
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Refused,
    Completed,
    Compensated,
}

/// What the participant did of a step.
#[derive(Debug, Default, Clone, Copy)]
struct Done {
    taken: u32,
    kept: u32,
    released: u32,
}

/// What the participant knows.
#[derive(Default)]
struct Keeper {
    reply: String,
    denied: Option<String>,
    done: BTreeMap<String, Done>,
    wrong: Vec<String>,
}

pub struct Shop {
    node: Arc<Engine>,
    store: Arc<dyn Store>,
    broker: MemoryBroker,
    definition: Arc<Definition>,
    answers: tokio::sync::Mutex<Consumer>,
    keeper: Arc<Mutex<Keeper>>,
    started: Mutex<usize>,
}

impl Shop {
    pub async fn open(store: Arc<dyn Store>, cache_bytes: usize) -> Self {
        let broker = MemoryBroker::new();
        let queues = [KEEPER, ASKER].map(|name| Queue {
            name: name.to_owned(),
            dead_letter_to: None,
        });
        let topology = Topology {
            queues: queues.into(),
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let definition = parse(DEFINITION, "closure.yaml").unwrap_or_else(|why| panic!("{why}"));
        let definition = Arc::new(definition);
        let parts = EngineParts {
            environment: Arc::new(TokioEnvironment),
            store: Arc::clone(&store),
            broker: Arc::new(broker.clone()),
            definitions: vec![Arc::clone(&definition)],
            options: EngineOptions {
                cache_bytes,
                // Nothing of a case waits for the clock: what is left off goes on at once.
                look_every: Duration::from_hours(1),
                ..EngineOptions::default()
            },
        };
        let node = Engine::start(parts).await.unwrap();
        let keeper = Arc::default();
        let commands = broker.consume(KEEPER, 1_000).await.unwrap();
        tokio::spawn(serve(Arc::clone(&keeper), broker.clone(), commands));
        Self {
            node,
            store,
            definition,
            answers: tokio::sync::Mutex::new(broker.consume(ASKER, 100).await.unwrap()),
            broker,
            keeper,
            started: Mutex::default(),
        }
    }

    pub async fn close(self) {
        self.node.stop().await;
    }

    /// One case from its start to its end; says what does not hold.
    pub async fn play(&self, case: &Case) -> Result<Fate, String> {
        let number = {
            let mut started = self.started.lock().unwrap();
            *started += 1;
            *started
        };
        let key = format!("{number:0bytes$}", bytes = case.key_bytes);
        *lock(&self.keeper) = Keeper {
            reply: case.reply.body("\"ok\":true"),
            denied: case.denied.map(|at| format!("part[{at}]")),
            ..Keeper::default()
        };
        let items: Value = (0..case.items).collect();
        let pad = "x".repeat(case.pad);
        let fields = format!("\"id\":\"{key}\",\"items\":{items},\"pad\":\"{pad}\"");
        let input = case.input.body(&fields);
        let fits = limits::read(input.as_bytes(), &BODY).is_ok();
        self.send(START_QUEUE, &key, "closure", input.clone()).await;
        let (kind, said) = self.answer(&key).await?;
        let head = self.head(&key).await;
        if kind == "refused" {
            let code = said["code"].as_str().unwrap_or_default();
            if !code.starts_with("BST-") || head.is_some() {
                return Err(format!("refused as {said}, and there is {head:?}"));
            }
            return Ok(Fate::Refused);
        }
        let head = head.ok_or("accepted, but not stored")?;
        if !fits {
            return Err("it is too large, but was accepted".to_owned());
        }
        let word = case.word.body("\"said\":true");
        self.send(SIGNAL_QUEUE, &key, "word", word).await;
        let mut said_small = false;
        let end = loop {
            let (kind, said) = self.answer(&key).await?;
            match kind.as_str() {
                // The word was refused at the door: say another one.
                "refused" if !said_small => {
                    let code = said["code"].as_str().unwrap_or_default();
                    if !code.starts_with("BST-") {
                        return Err(format!("a signal was refused as {said}"));
                    }
                    said_small = true;
                    let word = r#"{"said":true}"#.to_owned();
                    self.send(SIGNAL_QUEUE, &key, "word", word).await;
                }
                "accepted" | "duplicate" | "refused" => {}
                _ => break kind,
            }
        };
        self.judge(&head, &end).await
    }

    /// Reads the saga back as people and nodes do, and compares it with what the participant did.
    async fn judge(&self, head: &SagaHead, end: &str) -> Result<Fate, String> {
        let history = read_history(&*self.store, head.id).await;
        let history = history
            .map_err(|why| why.to_string())?
            .ok_or("it is gone")?;
        let view = SagaView::new(&history, Some(&self.definition));
        if let Some(problem) = &view.journal.problem {
            return Err(problem.clone());
        }
        let shown = serde_json::to_vec(&view).map_err(|why| why.to_string())?;
        serde_json::from_slice::<IgnoredAny>(&shown)
            .map_err(|why| format!("what is shown: {why}"))?;
        let saga = folded(&history);
        let snapshot = serde_json::to_vec(&saga).map_err(|why| why.to_string())?;
        if serde_json::from_slice::<Saga>(&snapshot).ok().as_ref() != Some(&saga) {
            return Err("a snapshot does not give the saga back".to_owned());
        }
        let (id, after) = (head.id, 0);
        let loaded = self.store.load(&[LoadRequest { id, after }]).await;
        let loaded = loaded.map_err(|why| why.to_string())?;
        let status = loaded.into_iter().flatten().next().map(|it| it.head.status);
        let fate = match status {
            Some(Status::Completed) => Fate::Completed,
            Some(Status::Compensated) => Fate::Compensated,
            other => return Err(format!("it said {end}, and is {other:?}")),
        };
        let keeper = lock(&self.keeper);
        let mut wrong = keeper.wrong.clone();
        for (step, done) in &keeper.done {
            let is_sound = match fate {
                Fate::Completed if step == "sum" => done.kept == 1,
                Fate::Completed => done.taken == 1 && done.kept == 1 && done.released == 0,
                _ => done.kept == 0 && done.released >= done.taken,
            };
            if !is_sound {
                wrong.push(format!("{fate:?}, but {step} is {done:?}"));
            }
        }
        if wrong.is_empty() {
            Ok(fate)
        } else {
            Err(format!("{}: {:?}", wrong.join("; "), saga.status_reason()))
        }
    }

    async fn head(&self, key: &str) -> Option<SagaHead> {
        let filter = ListFilter {
            key: Some(key.to_owned()),
            limit: 1,
            ..ListFilter::default()
        };
        self.store.list(&filter).await.unwrap().pop()
    }

    async fn send(&self, queue: &str, key: &str, kind: &str, body: String) {
        let headers = Headers::from([
            (HEADER_SAGA.to_owned(), json!("closure")),
            (HEADER_SAGA_KEY.to_owned(), json!(key)),
        ]);
        let message = Message {
            properties: Properties {
                kind: Some(kind.to_owned()),
                correlation_id: Some(key.to_owned()),
                reply_to: Some(ASKER.to_owned()),
                headers,
                ..Properties::default()
            },
            body: body.into(),
        };
        publish(&self.broker, queue, message).await;
    }

    /// The next thing that is said about a saga: its kind and its body.
    async fn answer(&self, key: &str) -> Result<(String, Value), String> {
        let mut answers = self.answers.lock().await;
        loop {
            let next = answers.deliveries.next_batch(1);
            let batch = tokio::time::timeout(PATIENCE, next).await;
            let batch = batch.map_err(|_| format!("no answer; {:?}", lock(&self.keeper).wrong))?;
            for delivery in batch {
                answers.acks.ack(&[delivery.tag]);
                let Message { properties, body } = delivery.message;
                if body.len() > MESSAGE_BYTES_MAX {
                    return Err(format!("an answer has {} bytes", body.len()));
                }
                if properties.correlation_id.as_deref() == Some(key) {
                    let said = serde_json::from_slice(&body);
                    let said = said.map_err(|why| format!("an answer: {why}"))?;
                    return Ok((properties.kind.unwrap_or_default(), said));
                }
            }
        }
    }
}

/// The participant.
async fn serve(keeper: Arc<Mutex<Keeper>>, broker: MemoryBroker, mut commands: Consumer) {
    loop {
        let batch = commands.deliveries.next_batch(100).await;
        if batch.is_empty() {
            return;
        }
        for delivery in batch {
            commands.acks.ack(&[delivery.tag]);
            let reply = lock(&keeper).handle(&delivery.message);
            let to = delivery.message.properties.reply_to.unwrap_or_default();
            publish(&broker, &to, reply).await;
        }
    }
}

impl Keeper {
    fn handle(&mut self, command: &Message) -> Message {
        let extent = Extent::of_text(&command.body);
        if let Err(excess) = COMMAND.check(extent) {
            self.wrong.push(format!("a command: {excess}"));
        }
        if command.body.len() > MESSAGE_BYTES_MAX
            || serde_json::from_slice::<IgnoredAny>(&command.body).is_err()
        {
            self.wrong
                .push("a command can't be sent or read".to_owned());
        }
        let correlation_id = command
            .properties
            .correlation_id
            .clone()
            .unwrap_or_default();
        let parts: Vec<&str> = correlation_id.split('/').collect();
        let (step, phase): (StepPath, Phase) =
            (parts[1].parse().unwrap(), parts[2].parse().unwrap());
        let name = step.to_string();
        let mut said = ("succeeded", "{}".to_owned());
        let done = self.done.entry(name.clone()).or_default();
        match phase {
            Phase::Reserve if self.denied.as_ref() == Some(&name) => said.0 = "rejected",
            Phase::Reserve => {
                done.taken += 1;
                if name == "all" {
                    said.1.clone_from(&self.reply);
                }
            }
            Phase::Compensate => done.released += 1,
            _ => done.kept += 1,
        }
        Message {
            properties: Properties {
                correlation_id: Some(correlation_id),
                headers: Headers::from([(HEADER_OUTCOME.to_owned(), json!(said.0))]),
                ..Properties::default()
            },
            body: said.1.into(),
        }
    }
}

async fn publish(broker: &MemoryBroker, queue: &str, message: Message) {
    let outgoing = Outgoing {
        destination: Destination::queue(queue),
        message,
        mandatory: true,
    };
    assert_eq!(broker.publish(vec![outgoing]).await, [Published::Confirmed]);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
