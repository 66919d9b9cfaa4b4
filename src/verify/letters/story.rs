//! The audit log read as the story of each letter, and a letter held against its own.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use crate::error::code;
use crate::store::StoreError;
use crate::store::dead_letters::occurrence::content_key;
use crate::store::dead_letters::{AuditEntry, DeadLetterStore, Letter, LetterHead, LetterStatus};

/// Most letters whose story is kept in mind.
const AT_ONCE: usize = 100_000;
/// Parts into which the letters are divided at most.
const PARTS_MAX: u128 = 1 << 16;
/// Entries, or letters without their messages, read at once.
pub(super) const PAGE: usize = 1_000;

/// The ways in which a letter can be other than it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterFlaw {
    /// It was slipped in.
    #[error("it was taken from a queue, and no entry of the audit log says when")]
    Unaudited,
    /// It was deleted.
    #[error("it is gone, and no entry of the audit log says that it was deleted")]
    Gone,
    /// Something was done to it that is not in the log, or not done that is.
    #[error("its row says {row}, the audit log says {log}")]
    Row {
        /// What the row says.
        row: String,
        /// What the log says.
        log: String,
    },
    /// Its message was changed.
    #[error("its message is not the one that was taken in")]
    Content,
    /// It can't be read at all.
    #[error("it can't be read: {0}")]
    Unreadable(String),
}

/// The letters whose ids leave `number` when divided by `of`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) of: u128,
    pub(super) number: u128,
}

impl Part {
    pub(super) fn has(self, letter: Uuid) -> bool {
        letter.as_u128() % self.of == self.number
    }

    pub(super) fn halves(self) -> [Self; 2] {
        let Self { of, number } = self;
        [number, number + of].map(|number| Self { of: of * 2, number })
    }
}

/// What the audit log says of a letter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Story {
    is_taken_in: bool,
    content: Option<Uuid>,
    /// Since something was done to it.
    status: Option<LetterStatus>,
    replays: Option<u32>,
    edits: u32,
}

impl Story {
    /// Why a letter's row does not fit, if so.
    pub(super) fn differs(&self, head: &LetterHead) -> Option<LetterFlaw> {
        if head.code == code::DEAD_LETTERED && !self.is_taken_in {
            return Some(LetterFlaw::Unaudited);
        }
        let differs = |row: String, log: String| Some(LetterFlaw::Row { row, log });
        let status = self.status.unwrap_or(LetterStatus::Open);
        // That a replay was confirmed is not written down.
        let is_confirmed =
            status == LetterStatus::Replaying && head.status == LetterStatus::Replayed;
        if head.status != status && !is_confirmed {
            return differs(head.status.to_string(), status.to_string());
        }
        if head.edits != self.edits {
            let edits = |count: u32| format!("{count} edits");
            return differs(edits(head.edits), edits(self.edits));
        }
        match self.replays {
            Some(replays) if replays != head.replays => {
                let text = |count: u32| format!("{count} replays");
                differs(text(head.replays), text(replays))
            }
            _ => None,
        }
    }

    /// Whether this is another message than was taken in.
    pub(super) fn is_of_another(&self, letter: &Letter) -> bool {
        let Letter { head, original, .. } = letter;
        let is = || content_key(&head.queue, original);
        self.content.is_some_and(|content| content != is())
            || head.body_bytes != original.body.len() as u64
    }
}

/// What the audit log says, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) stories: HashMap<Uuid, Story>,
    pub(super) read_to: u64,
}

impl Log {
    /// All that the log says of a part's letters; `None` if these are too many.
    pub(super) async fn read(
        store: &dyn DeadLetterStore,
        part: Part,
    ) -> Result<Option<Self>, StoreError> {
        let mut log = Self::default();
        loop {
            let page = store.letter_audit(None, log.read_to, PAGE).await?;
            for entry in &page {
                log.note(entry, |letter| part.has(letter));
            }
            if log.stories.len() > AT_ONCE && part.of < PARTS_MAX {
                return Ok(None);
            }
            if page.len() < PAGE {
                return Ok(Some(log));
            }
        }
    }

    pub(super) fn note(&mut self, entry: &AuditEntry, is_ours: impl Fn(Uuid) -> bool) {
        self.read_to = entry.seq;
        // An entry that can't be read is broken: the check of the chain says so.
        let body: Value = serde_json::from_str(&entry.body).unwrap_or_default();
        let detail = &body["detail"];
        let number = |name: &str| detail[name].as_u64().and_then(|it| u32::try_from(it).ok());
        let take_in = |content: Option<Uuid>| Story {
            is_taken_in: true,
            content,
            ..Story::default()
        };
        match (&*entry.action, entry.letter) {
            ("drain", _) => {
                let contents = ids(&detail["contents"]);
                for (place, letter) in ids(&detail["letters"]).into_iter().enumerate() {
                    if is_ours(letter) {
                        let content = contents.get(place).copied();
                        self.stories.insert(letter, take_in(content));
                    }
                }
            }
            ("purge", _) => {
                for letter in ids(&detail["letters"]) {
                    self.stories.remove(&letter);
                }
            }
            (action, Some(letter)) if is_ours(letter) => {
                let said = self.stories.entry(letter).or_default();
                match action {
                    "import" => {
                        let content = detail["content"].as_str().and_then(|id| id.parse().ok());
                        *said = take_in(content);
                    }
                    "replay" => {
                        said.status = Some(LetterStatus::Replaying);
                        said.replays = number("replays").or(said.replays);
                    }
                    "edit" => said.edits = number("edit").unwrap_or(said.edits),
                    "discard" => said.status = Some(LetterStatus::Discarded),
                    "return" | "reopen" => said.status = Some(LetterStatus::Open),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

fn ids(list: &Value) -> Vec<Uuid> {
    let texts = list.as_array().into_iter().flatten();
    let texts = texts.filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}
