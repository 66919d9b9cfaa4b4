//! Dropping headers of many letters at once: a stack trace, say, with which a message fits no frame.
//!
//! Each is an edit like any other: the original stays, and the audit log has an entry.

use super::desk::{Cursor, DeadLetterError, Desk, IDS_AT_ONCE, Selection, change};
use crate::store::dead_letters::{LetterAction, LetterStatus, PublishedReplays};

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// Letters edited.
    pub edited: u64,
    /// Letters without such a header.
    pub without: u64,
    /// Letters left out: their replay is on its way, or they changed meanwhile.
    pub skipped: u64,
}

impl Desk {
    /// Has later replays of these letters send their messages without these headers.
    pub async fn drop_headers(
        &self,
        selection: Selection,
        names: &[String],
        by: &str,
        why: &str,
    ) -> Result<Dropped, DeadLetterError> {
        let mut cursor = Cursor::new(selection);
        let mut dropped = Dropped::default();
        loop {
            let heads = cursor.next(&*self.letters).await?;
            if heads.is_empty() {
                return Ok(dropped);
            }
            let ids: Vec<_> = heads.iter().map(|head| head.id).collect();
            for part in ids.chunks(IDS_AT_ONCE) {
                let mut changes = Vec::with_capacity(part.len());
                for letter in self.letters.load_letters(part).await? {
                    if letter.head.status == LetterStatus::Replaying {
                        dropped.skipped += 1;
                        continue;
                    }
                    let mut message = letter.message().clone();
                    for name in names {
                        message.properties.headers.remove(name);
                        message.properties.exact.remove(name);
                    }
                    if message == *letter.message() {
                        dropped.without += 1;
                    } else {
                        changes.push(change(&letter.head, LetterAction::Edit(Box::new(message))));
                    }
                }
                let nothing = PublishedReplays::default();
                let actor = self.actor(by, why);
                let lost = self
                    .letters
                    .change_letters(&actor, &changes, &nothing)
                    .await?;
                dropped.skipped += lost.len() as u64;
                dropped.edited += (changes.len() - lost.len()) as u64;
            }
        }
    }
}
