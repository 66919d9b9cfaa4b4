//! A decision that wants what can't be: it alone is set aside, and nothing of it is stored or kept.

use super::*;
use crate::engine::SignalError;
use crate::error::code;
use crate::saga::journal::{Cause, Record};
use crate::saga::{Event, Signal};
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
    let LoadedSaga {
        mut head, entries, ..
    } = load(store, id).await;
    let mut saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
    journal::fold(&mut saga, 0, &entries).unwrap();
    saga.blocks
        .values_mut()
        .for_each(|block| block.remaining = 0);
    let record = Record {
        cause: Cause::Restart,
        events: vec![Event::Listening(Starter {
            reply_to: "q".to_owned(),
            correlation_id: None,
        })],
    };
    let expected = head.revision;
    let (seq, at) = (expected + 1, head.updated_at);
    let entry = JournalEntry::link(id, &head.head_hash, seq, at, &record).unwrap();
    (head.revision, head.head_hash) = (seq, entry.hash);
    let snapshot = Some(Snapshot {
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
