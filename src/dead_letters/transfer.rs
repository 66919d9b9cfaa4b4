//! Letters as lines of JSON, to carry them elsewhere and back.
//!
//! A line has whatever the message had, the body in base64; its macs only if that is asked for, since
//! whoever reads a line with a mac could speak for a participant. Importing what is there already
//! changes nothing.
//!
//! An imported letter is its importer's word: the audit log keeps who and why for each, and a replay
//! believes nothing that it says of where it died.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::desk::{Cursor, DeadLetterError, Desk, Selection};
use crate::broker::rabbitmq;
use crate::error::Code;
use crate::id::Timestamp;
use crate::message::{Message, Properties, mask};
use crate::store::DeadLetter;
use crate::store::dead_letters::{Letter, Sighting};

/// Letters read at once.
const PAGE: usize = 50;
/// Longest line that is read, in bytes: a body of 16 MiB in base64, and its headers.
pub const LINE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Whether lines have the macs of correlation ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Macs {
    /// They don't: whoever answers a command that was sent from such a line is not heard.
    Masked,
    /// They do: the lines are as secret as the database.
    Shown,
}

/// A letter as a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LetterLine {
    /// The letter's id.
    pub id: Uuid,
    /// When it was recorded, RFC 3339.
    pub at: String,
    /// The queue it was taken from.
    pub queue: String,
    /// Which error it was, as a number.
    pub code: u16,
    /// What was wrong.
    pub reason: String,
    /// What became of it; not imported.
    #[serde(default)]
    pub status: String,
    /// The message's properties, as last edited.
    pub properties: Properties,
    /// The body, as last edited, in base64.
    pub body: String,
}

impl LetterLine {
    /// The line of a letter.
    pub fn new(letter: &Letter, macs: Macs) -> Self {
        let masked;
        let message = match macs {
            Macs::Shown => letter.message(),
            Macs::Masked => {
                masked = mask::message(letter.message());
                &masked
            }
        };
        let head = &letter.head;
        Self {
            id: head.id,
            at: head.at.to_string(),
            queue: head.queue.clone(),
            code: head.code.0,
            reason: mask::text(&head.reason).into_owned(),
            status: head.status.to_string(),
            properties: message.properties.clone(),
            body: STANDARD.encode(&message.body),
        }
    }

    fn letter(self) -> Result<DeadLetter, String> {
        let at: Timestamp = self.at.parse().map_err(|error| format!("`at`: {error}"))?;
        rabbitmq::check_properties(&self.properties)
            .map_err(|why| format!("`properties`: {why}"))?;
        let body = STANDARD
            .decode(self.body)
            .map_err(|error| format!("`body`: {error}"))?;
        Ok(DeadLetter {
            id: self.id,
            at,
            queue: self.queue,
            code: Code(self.code),
            reason: self.reason,
            message: Message {
                properties: self.properties,
                body: body.into(),
            },
            sighting: Sighting::default(),
        })
    }
}

impl Desk {
    /// Hands each letter of a selection to `write` as a line of JSON, oldest first; returns how
    /// many there were.
    pub async fn export<E>(
        &self,
        selection: Selection,
        macs: Macs,
        mut write: impl FnMut(String) -> Result<(), E>,
    ) -> Result<Result<u64, E>, DeadLetterError> {
        let mut cursor = Cursor::new(selection);
        let mut count = 0;
        loop {
            let heads = cursor.next(&*self.letters).await?;
            if heads.is_empty() {
                return Ok(Ok(count));
            }
            let ids: Vec<Uuid> = heads.iter().map(|head| head.id).collect();
            for part in ids.chunks(PAGE) {
                for letter in self.letters.load_letters(part).await? {
                    let line = serde_json::to_string(&LetterLine::new(&letter, macs))
                        .map_err(|error| DeadLetterError::Malformed(error.to_string()))?;
                    if let Err(error) = write(line) {
                        return Ok(Err(error));
                    }
                    count += 1;
                }
            }
        }
    }

    /// Stores a letter from a line, unless it is there; says whether it was new.
    pub async fn import(&self, line: &str, by: &str, why: &str) -> Result<bool, DeadLetterError> {
        let malformed = |why: String| DeadLetterError::Malformed(why);
        let line: LetterLine =
            serde_json::from_str(line).map_err(|error| malformed(error.to_string()))?;
        let letter = line.letter().map_err(malformed)?;
        if !self.letters.load_letters(&[letter.id]).await?.is_empty() {
            return Ok(false);
        }
        let actor = self.actor(by, why);
        Ok(self.letters.store_imported(&actor, &[letter]).await? > 0)
    }
}
