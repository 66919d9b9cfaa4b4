use std::io::{BufReader, Cursor};

use bytes::Bytes;
use uuid::Uuid;

use super::checkpoint::{CheckpointError, Reader, Seal};
use super::*;
use crate::id::{SagaId, Timestamp};
use crate::saga::format::{READS, mark};
use crate::saga::journal::{Cause, GENESIS, JournalEntry, JournalError, Record, fold};
use crate::saga::{Event, Saga, Starter, apply};
use crate::store::memory::MemoryStore;
use crate::store::{Commit, LIST_ROWS_MAX, SagaHead, SagaWrite, Snapshot, Status, Store};

type File = Reader<BufReader<Cursor<Vec<u8>>>>;

fn id(number: u128) -> SagaId {
    SagaId(Uuid::from_u128(number))
}

/// A saga whose journal says that it started, and `entries - 1` times something else.
fn saga(number: u128, entries: u64, word: &str) -> SagaWrite {
    let (id, started_at) = (id(number), Timestamp::from_micros(1));
    let mut state = Saga::new(id, "order", &format!("o-{number}"), started_at);
    let mut head_hash = GENESIS;
    let mut written = Vec::new();
    for seq in 1..=entries {
        let event = match seq {
            1 => Event::Started {
                input: std::sync::Arc::new(word.into()),
                at: started_at,
                deadline: None,
                starter: None,
            },
            _ => Event::Listening(Starter {
                reply_to: word.to_owned(),
                correlation_id: None,
            }),
        };
        apply(&mut state, &event).unwrap();
        let record = Record {
            cause: Cause::Start,
            events: vec![event],
        };
        let entry = JournalEntry::link(id, &head_hash, seq, started_at, &record).unwrap();
        head_hash = entry.hash;
        written.push(entry);
    }
    let head = SagaHead {
        id,
        name: "order".to_owned(),
        version: 1,
        key: format!("o-{number}"),
        input_hash: GENESIS,
        status: Status::Running,
        reason: None,
        revision: entries,
        head_hash,
        started_at,
        updated_at: started_at,
        ended_at: None,
        wake_at: None,
        parent: None,
        awaits: None,
        cause: None,
        superseded: false,
    };
    SagaWrite {
        expected: 0,
        head,
        entries: written,
        snapshot: None,
        outbox: Vec::new(),
        labels: Vec::new(),
    }
}

async fn store(sagas: Vec<SagaWrite>) -> MemoryStore {
    let store = MemoryStore::new();
    for some in sagas.chunks(200) {
        let commit = Commit {
            sagas: some.to_vec(),
            ..Commit::default()
        };
        assert_eq!(store.commit(commit).await.unwrap().conflicts, vec![]);
    }
    store
}

async fn look(store: &MemoryStore, against: Option<File>) -> (Summary, Vec<(u128, Flaw)>) {
    let mut found = Vec::new();
    let plan = Scan {
        against,
        checkpoint: None::<Vec<u8>>,
        now: Timestamp::from_micros(9),
    };
    let summary = scan(store, plan, |finding| {
        found.push((finding.saga.0.as_u128(), finding.flaw));
    });
    let summary = summary.await.unwrap();
    assert_eq!(summary.flawed, found.len() as u64);
    (summary, found)
}

async fn checkpoint(store: &MemoryStore) -> (Seal, Vec<u8>) {
    let mut file = Vec::new();
    let plan = Scan {
        against: None::<File>,
        checkpoint: Some(&mut file),
        now: Timestamp::from_micros(9),
    };
    let summary = scan(store, plan, |finding| panic!("{finding}")).await;
    (summary.unwrap().seal, file)
}

fn file(bytes: &[u8]) -> File {
    Reader::open(BufReader::new(Cursor::new(bytes.to_vec()))).unwrap()
}

#[tokio::test]
async fn untouched_sagas_have_no_flaw_and_one_root() {
    let many = LIST_ROWS_MAX as u128 + 7;
    let sagas = (1..=many).map(|number| saga(number, 1 + (number % 3) as u64, "x"));
    let store = store(sagas.collect()).await;
    let (seal, bytes) = checkpoint(&store).await;
    let (summary, found) = look(&store, Some(file(&bytes))).await;
    assert_eq!(found, vec![]);
    assert_eq!(
        (&summary.seal, summary.against.as_ref()),
        (&seal, Some(&seal))
    );
    assert_eq!(u128::from(summary.seal.sagas), many);
}

#[tokio::test]
async fn a_journal_longer_than_a_page_is_checked_to_its_end() {
    let store_of = async |tamper: bool| {
        let mut long = saga(1, 2_500, "x");
        if tamper {
            long.entries[2_400].body = Bytes::from_static(b"{}");
        }
        store(vec![long]).await
    };
    let (summary, found) = look(&store_of(false).await, None).await;
    assert_eq!((summary.entries, found), (2_500, vec![]));
    let (_, found) = look(&store_of(true).await, None).await;
    assert_eq!(found, [(1, Flaw::Journal(JournalError::Broken(2_401)))]);
}

#[tokio::test]
async fn each_way_to_tamper_within_a_saga_is_named() {
    let mut changed = saga(1, 3, "x");
    changed.entries[1].at = Timestamp::from_micros(2);
    let mut row = saga(2, 3, "x");
    row.head.status = Status::Completed;
    let mut ended = saga(3, 3, "x");
    ended.head.ended_at = Some(Timestamp::from_micros(2));
    let mut hash = saga(4, 3, "x");
    hash.head.head_hash = [7; 32];
    let store = store(vec![changed, row, ended, hash, saga(5, 3, "x")]).await;
    let (_, found) = look(&store, None).await;
    let found: Vec<(u128, String)> = found
        .into_iter()
        .map(|(saga, flaw)| (saga, flaw.to_string()))
        .collect();
    let expected = [
        (4, "the row's hash is not that of entry 3"),
        (
            3,
            "the row says ended 1970-01-01T00:00:00.000002Z, the journal says not ended",
        ),
        (2, "the row says completed, the journal says running"),
        (
            1,
            "journal: entry 2 is not what was written: its hash does not match",
        ),
    ];
    assert_eq!(found, expected.map(|(saga, text)| (saga, text.to_owned())));
}

#[tokio::test]
async fn a_chain_that_holds_and_says_what_can_not_be_is_a_flaw_with_its_place() {
    let mut illegal = saga(1, 3, "x");
    let record = Record {
        cause: Cause::Timer,
        events: vec![Event::ReservationsConfirmed],
    };
    let (seq, head) = (4, &mut illegal.head);
    let entry = JournalEntry::link(head.id, &head.head_hash, seq, head.updated_at, &record);
    let entry = entry.unwrap();
    (head.revision, head.head_hash) = (seq, entry.hash);
    illegal.entries.push(entry);
    let (summary, found) = look(&store(vec![illegal]).await, None).await;
    assert_eq!(summary.entries, 4, "their hashes hold");
    let [(1, Flaw::Journal(JournalError::Illegal { seq, event, .. }))] = found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((seq, event), (4, 1));
}

#[tokio::test]
async fn a_checkpoint_shows_what_a_chain_alone_cannot() {
    let before = (1..=6).map(|number| saga(number, 3, "x")).collect();
    let (_, bytes) = checkpoint(&store(before).await).await;
    // 1 goes on, 2 is gone, 3 was written anew, 4 was cut, 5 stays, 6 is gone, 7 is new.
    let after = vec![
        saga(1, 5, "x"),
        saga(3, 3, "forged"),
        saga(4, 2, "x"),
        saga(5, 3, "x"),
        saga(7, 1, "x"),
    ];
    let after = store(after).await;
    assert_eq!(look(&after, None).await.1, vec![], "each chain is whole");
    let (_, found) = look(&after, Some(file(&bytes))).await;
    let cut = Flaw::Shortened {
        checkpoint: 3,
        now: 2,
    };
    let expected = [
        (6, Flaw::Gone(3)),
        (4, cut),
        (3, Flaw::Replaced(3)),
        (2, Flaw::Gone(3)),
    ];
    // Those that are gone are told page by page, before the page's own.
    let sorted = |mut found: Vec<(u128, Flaw)>| {
        found.sort_by_key(|(saga, _)| std::cmp::Reverse(*saga));
        found
    };
    assert_eq!(sorted(found), expected);
}

#[tokio::test]
async fn a_checkpoint_that_was_tampered_with_is_refused() {
    let store = store((1..=4).map(|number| saga(number, 2, "x")).collect()).await;
    let (_, bytes) = checkpoint(&store).await;
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = |line: usize| {
        let mut lines = lines.clone();
        lines.remove(line);
        lines.join("\n")
    };
    let swapped = {
        let mut lines = lines.clone();
        lines.swap(1, 2);
        lines.join("\n")
    };
    let cases = [
        (
            without(2),
            "the checkpoint was changed: its lines give the root",
        ),
        (
            without(5),
            "line 6 of the checkpoint is missing: the file was cut off",
        ),
        (swapped, "line 3 of the checkpoint is out of order"),
        (text.replace(",2,", ",3,"), "the checkpoint was changed"),
        (
            text.replace(",2,", ",x,"),
            "line 2 of the checkpoint is neither",
        ),
        (
            text.replacen('\n', &format!("\n{}\n", "x".repeat(2_000)), 1),
            "line 2 of the checkpoint is too long",
        ),
    ];
    for (tampered, expected) in cases {
        let mut reader = file(tampered.as_bytes());
        let error = loop {
            match reader.next_head() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("accepted: {tampered}"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.starts_with(expected), "{error}");
    }
    let other = Reader::open(BufReader::new(Cursor::new(without(0).into_bytes())));
    assert!(matches!(
        other.err(),
        Some(CheckpointError::Line { line: 1, .. })
    ));
}

#[tokio::test]
async fn a_snapshot_that_is_not_what_the_journal_says_is_found() {
    let whole = |number, revision, state: Option<Saga>| {
        let mut write = saga(number, 3, "x");
        let mut right = Saga::new(id(number), "order", &write.head.key, write.head.started_at);
        fold(&mut right, 0, &write.entries[..2]).unwrap();
        let body = serde_json::to_vec(&state.unwrap_or(right)).unwrap();
        write.snapshot = Some(Snapshot {
            revision,
            body: Bytes::from(body),
        });
        write
    };
    let mut wrong = Saga::new(id(2), "order", "o-2", Timestamp::from_micros(1));
    wrong.reason = Some("slipped in".to_owned());
    let store = store(vec![
        whole(1, 2, None),
        whole(2, 2, Some(wrong)),
        whole(3, 1, None),
        saga(4, 3, "x"),
    ])
    .await;
    let mut found = Vec::new();
    let count = strays(&store, |finding| found.push(finding.to_string()))
        .await
        .unwrap();
    assert_eq!(count, found.len() as u64);
    // The third's is right, but not at this entry.
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].contains("order o-3: snapshot at entry 1: it is not"));
    assert!(found[0].ends_with("order o-2: snapshot at entry 2: it is not what the journal says"));
}

#[tokio::test]
async fn what_a_newer_release_wrote_is_called_that_and_not_a_forgery() {
    let mut write = saga(1, 3, "x");
    let state = Saga::new(id(1), "order", &write.head.key, write.head.started_at);
    let json = serde_json::to_vec(&state).unwrap();
    write.snapshot = Some(Snapshot {
        revision: 3,
        body: mark(json, READS + 1).into(),
    });
    let mut found = Vec::new();
    let seen = strays(&store(vec![write]).await, |it| found.push(it.to_string())).await;
    assert_eq!(seen.unwrap(), 1);
    assert!(
        found[0].contains("snapshot at entry 3: BST-0086"),
        "{found:?}"
    );
}
