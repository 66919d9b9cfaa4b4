//! The letters of a selection, chunk by chunk, in an order that keeps each saga's.

use std::collections::{HashSet, VecDeque};

use crate::dead_letters::desk::{CHUNK_BYTES_MAX, Cursor, DeadLetterError, Desk, Selection};
use crate::store::dead_letters::LetterHead;

/// Letters that wait for their chunk.
pub(super) struct Waiting {
    cursor: Cursor,
    heads: VecDeque<LetterHead>,
}

impl Waiting {
    pub(super) fn new(selection: Selection) -> Self {
        Self {
            cursor: Cursor::new(selection),
            heads: VecDeque::new(),
        }
    }

    /// The next chunk: in order, within the bounds, and of each saga only the first.
    pub(super) async fn next(
        &mut self,
        desk: &Desk,
        most: usize,
    ) -> Result<Vec<LetterHead>, DeadLetterError> {
        while self.heads.len() < most {
            let heads = self.cursor.next(&*desk.letters).await?;
            if heads.is_empty() {
                break;
            }
            self.heads.extend(heads);
        }
        let mut chunk = Vec::new();
        let mut later = VecDeque::new();
        let mut sagas = HashSet::new();
        let mut bytes = 0;
        while chunk.len() < most
            && let Some(head) = self.heads.pop_front()
        {
            let fits = chunk.is_empty() || bytes + head.body_bytes <= CHUNK_BYTES_MAX;
            if !fits {
                later.push_back(head);
                break;
            }
            if head.saga.is_some_and(|saga| !sagas.insert(saga)) {
                later.push_back(head);
                continue;
            }
            bytes += head.body_bytes;
            chunk.push(head);
        }
        later.append(&mut self.heads);
        self.heads = later;
        Ok(chunk)
    }
}
