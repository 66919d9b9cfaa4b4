//! A decision that wants what can't be: it alone is set aside, and nothing of it is stored or kept. And a
//! journal that says what can't be: its saga stands still, and what comes for it does not go round.

use super::*;
use crate::broker::{Acks, DeliveryTag};
use crate::engine::SignalError;
use crate::engine::room::Space;
use crate::error::code;
use crate::message::{Message, SIGNAL_QUEUE};
use crate::saga::journal::{Cause, Record};
use crate::saga::{Event, Input, Signal};
use crate::store::dead_letters::Sighting;
use crate::store::{SagaWrite, Snapshot};

const TWO: &str = "
saga: job
version: 1
key: ${ input.id }
input: { type: object, required: [id], properties: { id: { type: string } } }
timeout: 30d
steps:
  - parallel:
      - wait: first
      - wait: second
";

type Answered = oneshot::Receiver<Result<SignalAnswer, SignalError>>;

fn signal(saga: SagaId, name: &str) -> (Work, Answered) {
    let what = What::Sent(Signal {
        name: name.to_owned(),
        id: format!("s-{name}"),
        body: Arc::default(),
        at: None,
    });
    let request = SignalRequest {
        to: Addressee::Saga(saga),
        what,
        sender: None,
        by_content: false,
        uncertain: AtomicBool::default(),
    };
    let (sender, answered) = oneshot::channel();
    let job = Job::Signal(Arc::new(request));
    let origin = Origin::Signaller(sender);
    (Work { job, origin }, answered)
}

async fn begin(engine: &Engine, id: &str) -> SagaId {
    match engine.start_saga("job", json!({ "id": id })).await {
        Ok(StartAnswer::Started(id)) => id,
        other => panic!("{other:?}"),
    }
}

async fn load(store: &MemoryStore, id: SagaId) -> LoadedSaga {
    let loaded = store.load(&[LoadRequest { id, after: 0 }]).await.unwrap();
    loaded.into_iter().next().flatten().unwrap()
}

/// Stores a snapshot that says what the journal doesn't: no wait is under way any more.
async fn spoil(store: &MemoryStore, id: SagaId) {
    let LoadedSaga { head, entries, .. } = load(store, id).await;
    let mut saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
    journal::fold(&mut saga, 0, &entries).unwrap();
    saga.blocks
        .values_mut()
        .for_each(|block| block.remaining = 0);
    let heard = Event::Listening(Starter {
        reply_to: "q".to_owned(),
        correlation_id: None,
    });
    append(store, id, heard, Some(saga)).await;
}

/// Stores an entry with this event, and a snapshot of the saga after it.
async fn append(store: &MemoryStore, id: SagaId, event: Event, after: Option<Saga>) {
    let mut head = load(store, id).await.head;
    let record = Record {
        cause: Cause::Restart,
        events: vec![event],
    };
    let expected = head.revision;
    let (seq, at) = (expected + 1, head.updated_at);
    let entry = JournalEntry::link(id, &head.head_hash, seq, at, &record).unwrap();
    (head.revision, head.head_hash) = (seq, entry.hash);
    let snapshot = after.map(|saga| Snapshot {
        revision: seq,
        body: serde_json::to_vec(&saga).unwrap().into(),
    });
    let write = SagaWrite {
        expected,
        head,
        entries: vec![entry],
        snapshot,
        outbox: Vec::new(),
        labels: Vec::new(),
    };
    let commit = Commit {
        sagas: vec![write],
        ..Commit::default()
    };
    assert_eq!(store.commit(commit).await.unwrap().conflicts, []);
}

#[tokio::test]
async fn a_decision_that_wants_what_can_not_be_costs_its_message_alone() {
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let node = engine(Arc::new(store.clone()), &broker, TWO).await;
    let spoiled = begin(&node, "spoiled").await;
    node.stop().await;
    spoil(&store, spoiled).await;
    let before = load(&store, spoiled).await.head;

    let node = engine(Arc::new(store.clone()), &broker, TWO).await;
    let sound = begin(&node, "sound").await;
    let mut works = Vec::new();
    let mut answers = Vec::new();
    for (saga, name) in [(spoiled, "first"), (spoiled, "second"), (sound, "first")] {
        let (work, answered) = signal(saga, name);
        works.push(work);
        answers.push(answered);
    }
    node.node.settle(works).await;
    for answered in answers.drain(..2) {
        let Ok(Err(SignalError::Refused(wrong))) = answered.await else {
            panic!("it is refused");
        };
        assert_eq!(wrong.code, code::EVENT_ILLEGAL);
        assert!(wrong.reason.contains("`advanced`"), "{}", wrong.reason);
    }
    let answer = answers.remove(0).await.unwrap().unwrap();
    assert_eq!(answer, SignalAnswer::Accepted(sound));
    assert_eq!(load(&store, spoiled).await.head, before);
    // What was begun of it is not kept for the next one either.
    let kept = node.node.cache.lock().unwrap().take(spoiled);
    assert!(kept.is_none());
    node.stop().await;
}

/// What a queue was told of a delivery.
#[derive(Default)]
struct Heard(Mutex<Vec<&'static str>>);

impl Acks for Heard {
    fn ack(&self, _: &[DeliveryTag]) {
        self.0.lock().unwrap().push("ack");
    }

    fn requeue(&self, _: &[DeliveryTag]) {
        self.0.lock().unwrap().push("requeue");
    }
}

/// A signal from a queue.
fn delivered(node: &Engine, saga: SagaId, heard: &Arc<Heard>) -> Work {
    let message = Message::default();
    let letter = node.node.letter(SIGNAL_QUEUE, message, Sighting::default());
    let signal = Signal {
        name: "first".to_owned(),
        id: "s-2".to_owned(),
        body: Arc::default(),
        at: None,
    };
    Work {
        job: Job::Tell {
            saga,
            input: Input::Signal(signal),
        },
        origin: Origin::Delivery {
            space: Space::default(),
            acks: Arc::clone(heard) as Arc<dyn Acks>,
            tag: DeliveryTag { epoch: 1, tag: 1 },
            letter,
        },
    }
}

#[tokio::test]
async fn messages_for_a_saga_whose_journal_says_what_can_not_be_become_letters() {
    let (broker, store) = (MemoryBroker::new(), MemoryStore::new());
    let node = engine(Arc::new(store.clone()), &broker, TWO).await;
    let torn = begin(&node, "torn").await;
    assert_eq!(node.damage(), []);
    node.stop().await;
    append(&store, torn, Event::AnswerTaken, None).await;
    let before = load(&store, torn).await.head;
    let place = "entry 2, event 1: the event `answer_taken` can't be";

    let node = engine(Arc::new(store.clone()), &broker, TWO).await;
    let sound = begin(&node, "sound").await;
    let (work, answered) = signal(torn, "first");
    let (other, taken) = signal(sound, "first");
    let heard = Arc::new(Heard::default());
    let message = delivered(&node, torn, &heard);
    node.node.settle(vec![work, message, other]).await;
    let Ok(Err(SignalError::Refused(wrong))) = answered.await else {
        panic!("it is refused");
    };
    assert_eq!(wrong.code, code::JOURNAL_UNREADABLE);
    assert!(wrong.reason.contains(place), "{}", wrong.reason);
    let answer = taken.await.unwrap().unwrap();
    assert_eq!(answer, SignalAnswer::Accepted(sound));

    let letters = store.dead_letters(10).await.unwrap();
    let [letter] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert_eq!(letter.code, code::JOURNAL_UNREADABLE);
    assert!(letter.reason.contains(place), "{}", letter.reason);
    assert_eq!(*heard.0.lock().unwrap(), ["ack"]);
    assert_eq!(store.outbox_len().await.unwrap(), 0, "it does not go round");
    assert_eq!(load(&store, torn).await.head, before);
    let damage = node.damage();
    let [("sagas", said)] = &damage[..] else {
        panic!("{damage:?}");
    };
    assert!(said.contains(&torn.to_string()), "{said}");
    assert!(!said.contains(&sound.to_string()), "{said}");
    node.stop().await;
}
