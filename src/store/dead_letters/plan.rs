//! What a change of letters means for the rows, worked out once for all stores.
//!
//! A store locks the letters, has the change planned, and writes the plan. Pure.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::audit::Unlinked;
use super::occurrence::{NewLetter, Settled};
use super::{Actor, LetterAction, LetterChange, LetterStatus, PublishedReplays};
use crate::id::Timestamp;
use crate::message::Message;
use crate::store::OutboxMessage;

/// What a store knows of a letter before it changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Current {
    pub(in crate::store) version: u64,
    pub(in crate::store) status: LetterStatus,
    pub(in crate::store) replays: u32,
    pub(in crate::store) edits: u32,
    pub(in crate::store) outbox: Option<Uuid>,
    pub(in crate::store) handled_at: Option<Timestamp>,
}

/// What to write.
#[derive(Debug, Default)]
pub(in crate::store) struct LetterWrites<'a> {
    /// Letters as they will be.
    pub(in crate::store) updates: BTreeMap<Uuid, Current>,
    pub(in crate::store) outbox: Vec<&'a OutboxMessage>,
    /// (letter, number, message).
    pub(in crate::store) edits: Vec<(Uuid, u32, &'a Message)>,
    /// Outbox rows that are done with.
    pub(in crate::store) remove: Vec<Uuid>,
    pub(in crate::store) entries: Vec<Unlinked>,
    /// Letters that had changed meanwhile.
    pub(in crate::store) lost: Vec<Uuid>,
}

/// The letters that a change touches.
pub(in crate::store) fn touched(
    changes: &[LetterChange],
    published: &PublishedReplays,
) -> Vec<Uuid> {
    let confirmed = published.confirmed.iter().map(|(letter, _)| *letter);
    let ids = confirmed.chain(published.returned.iter().map(|replay| replay.letter));
    let mut ids: Vec<Uuid> = ids.chain(changes.iter().map(|of| of.letter)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Plans changes of letters that are locked.
pub(in crate::store) fn plan<'a>(
    mut letters: BTreeMap<Uuid, Current>,
    actor: &Actor,
    changes: &'a [LetterChange],
    published: &PublishedReplays,
) -> LetterWrites<'a> {
    let mut plan = LetterWrites::default();
    for (letter, outbox) in &published.confirmed {
        plan.settle(&mut letters, *letter, *outbox, None);
    }
    for replay in &published.returned {
        plan.settle(&mut letters, replay.letter, replay.row, Some(&replay.why));
    }
    for change in changes {
        let current = letters.get_mut(&change.letter);
        let Some(current) = current.filter(|current| current.version == change.version) else {
            plan.lost.push(change.letter);
            continue;
        };
        plan.add(current, change, actor.at);
    }
    plan
}

impl<'a> LetterWrites<'a> {
    /// Notes what became of a replay; `returned` says why it was not taken.
    fn settle(
        &mut self,
        letters: &mut BTreeMap<Uuid, Current>,
        letter: Uuid,
        outbox: Uuid,
        returned: Option<&str>,
    ) {
        self.remove.push(outbox);
        let current = letters.get_mut(&letter);
        let Some(current) = current.filter(|current| current.outbox == Some(outbox)) else {
            return;
        };
        current.version += 1;
        current.outbox = None;
        current.status = LetterStatus::Replayed;
        if let Some(why) = returned {
            current.status = LetterStatus::Open;
            current.handled_at = None;
            let detail = json!({ "reason": why });
            self.entries.push(entry("return", letter, detail));
        }
        self.updates.insert(letter, *current);
    }

    fn add(&mut self, current: &mut Current, change: &'a LetterChange, at: Timestamp) {
        let letter = change.letter;
        let before = current.status;
        current.version += 1;
        match &change.what {
            LetterAction::Replay(row) => {
                current.status = LetterStatus::Replaying;
                current.replays = current.replays.saturating_add(1);
                current.outbox = Some(row.id);
                current.handled_at = Some(at);
                self.outbox.push(row);
                let detail = json!({
                    "to": row.destination, "outbox": row.id, "replays": current.replays,
                    "message_id": row.message.properties.message_id, "was": before,
                });
                self.entries.push(entry("replay", letter, detail));
            }
            LetterAction::Edit(message) => {
                current.edits = current.edits.saturating_add(1);
                self.edits.push((letter, current.edits, message));
                let detail = json!({ "edit": current.edits, "bytes": message.body.len() });
                self.entries.push(entry("edit", letter, detail));
            }
            LetterAction::Discard => {
                current.status = LetterStatus::Discarded;
                current.handled_at = Some(at);
                let detail = json!({ "was": before });
                self.entries.push(entry("discard", letter, detail));
            }
            LetterAction::Reopen => {
                current.status = LetterStatus::Open;
                current.handled_at = None;
                let detail = json!({ "was": before });
                self.entries.push(entry("reopen", letter, detail));
            }
        }
        self.updates.insert(letter, *current);
    }
}

/// The entry for a batch from a queue.
pub(in crate::store) fn drain_entry(queue: &str, settled: &Settled<'_>) -> Unlinked {
    let ids: Vec<Uuid> = settled.new.iter().map(|new| new.letter.id).collect();
    let again: Vec<Uuid> = settled.again.iter().map(|(id, _)| *id).collect();
    let taken = ids.len() + again.len();
    let contents = settled.new.iter().map(|new| new.facts.key);
    let mut detail = json!({
        "queue": queue, "taken": taken, "new": ids.len(), "letters": ids,
        "contents": contents.collect::<Vec<Uuid>>(),
    });
    if !again.is_empty() {
        detail["seen_again"] = json!(again);
    }
    Unlinked {
        action: "drain",
        letter: None,
        detail,
    }
}

/// What an import is called in the audit log.
pub(in crate::store) const IMPORT: &str = "import";

/// The entries for letters that were brought from elsewhere, one each: by them a letter is known to
/// have come like that for as long as the log is kept, which is for ever.
pub(in crate::store) fn import_entries(settled: &Settled<'_>) -> Vec<Unlinked> {
    let imported = settled.new.iter();
    imported
        .map(|new| {
            let NewLetter { letter, facts, .. } = new;
            let detail = json!({
                "queue": letter.queue, "code": letter.code.to_string(),
                "message_id": new.message_id(), "content": facts.key,
            });
            entry(IMPORT, letter.id, detail)
        })
        .collect()
}

/// The entry for letters that are deleted.
pub(in crate::store) fn purge_entry(before: Timestamp, ids: &[Uuid]) -> Unlinked {
    let detail = json!({
        "handled_before": before.to_string(), "count": ids.len(), "letters": ids,
    });
    Unlinked {
        action: "purge",
        letter: None,
        detail,
    }
}

fn entry(action: &'static str, letter: Uuid, detail: serde_json::Value) -> Unlinked {
    Unlinked {
        action,
        letter: Some(letter),
        detail,
    }
}

/// Who drains.
pub(in crate::store) fn drainer(at: Timestamp) -> Actor {
    Actor {
        by: "backstitch".to_owned(),
        why: "drained from a queue".to_owned(),
        at,
    }
}
