//! Which letters of a chunk are replayed, by which routes, and their commit.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::event::{ReplayEvent, Replayed};
use super::options::ReplayOptions;
use super::prepare::{ReplayRefusal, check, check_answer, prepare};
use crate::dead_letters::desk::{DeadLetterError, Desk, change};
use crate::dead_letters::route::{Dead, Routes, Watch};
use crate::error::code;
use crate::id::{SagaId, Timestamp};
use crate::message::DEAD_LETTER_QUEUE;
use crate::store::dead_letters::{Letter, LetterAction, LetterHead, PublishedReplays, Trail};
use crate::store::{LoadRequest, OutboxMessage, Status};

/// A letter that is replayed.
pub(super) struct Sent {
    pub(super) letter: Uuid,
    pub(super) row: OutboxMessage,
    /// Where it is seen again if it is refused once more.
    pub(super) watch: Watch,
}

/// What is to be committed, and who is told about it.
pub(super) struct Chunk<'a, T> {
    pub(super) options: &'a ReplayOptions,
    pub(super) routes: &'a mut Routes,
    pub(super) due_at: Timestamp,
    pub(super) total: &'a mut Replayed,
    pub(super) tell: &'a mut T,
}

impl<T: FnMut(ReplayEvent<'_>) + Send> Chunk<'_, T> {
    fn refuse(&mut self, head: &LetterHead, refusal: &ReplayRefusal) {
        self.total.refused += 1;
        (self.tell)(ReplayEvent::Refused(head, refusal));
    }

    /// What a letter's replay sends, and where it would be seen again; `None` if it is refused.
    async fn route(
        &mut self,
        letter: &Letter,
        imported: bool,
        id: Uuid,
    ) -> Result<Option<(OutboxMessage, Watch)>, DeadLetterError> {
        let head = &letter.head;
        // Of an imported one all of this is hearsay.
        let (trail, taken_from) = if imported {
            (Trail::default(), DEAD_LETTER_QUEUE)
        } else {
            (Trail::of(&letter.original, &head.queue), &*head.queue)
        };
        let dead = Dead {
            trail: &trail,
            taken_from,
            ours: head.code != code::DEAD_LETTERED && !imported,
            imported,
        };
        let route = match self.routes.choose(&dead, &self.options.wish).await? {
            Ok(route) => route,
            Err(why) => {
                self.refuse(head, &why.into());
                return Ok(None);
            }
        };
        let prepared = check_answer(letter, imported)
            .and_then(|()| prepare(letter, &trail, &route, id, self.due_at));
        match prepared {
            Ok(row) => {
                if let Some(caution) = &route.caution
                    && self.routes.is_news(caution)
                {
                    (self.tell)(ReplayEvent::Caution(caution));
                }
                Ok(Some((row, route.watch)))
            }
            Err(refusal) => {
                self.refuse(head, &refusal);
                Ok(None)
            }
        }
    }
}

impl Desk {
    /// Decides what becomes of each letter of a chunk.
    pub(super) async fn decide<T: FnMut(ReplayEvent<'_>) + Send>(
        &self,
        heads: &[LetterHead],
        chunk: &mut Chunk<'_, T>,
    ) -> Result<Vec<(LetterHead, Sent)>, DeadLetterError> {
        let sagas = self.saga_statuses(heads).await?;
        let status = |head: &LetterHead| head.saga.and_then(|saga| sagas.get(&saga).copied());
        let mut allowed = Vec::with_capacity(heads.len());
        for head in heads {
            match check(head, status(head), chunk.options) {
                Ok(()) => allowed.push(head.id),
                Err(refusal) => chunk.refuse(head, &refusal),
            }
        }
        let mut decided = Vec::with_capacity(allowed.len());
        let imported = self.letters.imported(&allowed).await?;
        let imported: HashSet<Uuid> = imported.into_iter().collect();
        for letter in self.letters.load_letters(&allowed).await? {
            if check(&letter.head, status(&letter.head), chunk.options).is_err() {
                // It changed since its head was read.
                chunk.total.lost += 1;
                continue;
            }
            let id = self.environment.new_id();
            if let Some((row, watch)) = chunk
                .route(&letter, imported.contains(&letter.head.id), id)
                .await?
            {
                let letter = letter.head;
                let sent = Sent {
                    letter: letter.id,
                    row,
                    watch,
                };
                decided.push((letter, sent));
            }
        }
        Ok(decided)
    }

    /// Commits one chunk, and what became of the one before.
    pub(super) async fn commit<T: FnMut(ReplayEvent<'_>) + Send>(
        &self,
        heads: &[LetterHead],
        published: &PublishedReplays,
        mut chunk: Chunk<'_, T>,
    ) -> Result<Vec<Sent>, DeadLetterError> {
        let decided = self.decide(heads, &mut chunk).await?;
        let changes: Vec<_> = decided
            .iter()
            .map(|(head, sent)| change(head, LetterAction::Replay(Box::new(sent.row.clone()))))
            .collect();
        let actor = self.actor(&chunk.options.by, &chunk.options.why);
        let lost = self
            .letters
            .change_letters(&actor, &changes, published)
            .await?;
        let lost: HashSet<Uuid> = lost.into_iter().collect();
        let mut committed = Vec::with_capacity(decided.len());
        for (head, sent) in decided {
            if lost.contains(&head.id) {
                chunk.total.lost += 1;
                (chunk.tell)(ReplayEvent::Lost(head.id));
                continue;
            }
            (chunk.tell)(ReplayEvent::Sent(&head, &sent.row.destination));
            committed.push(sent);
        }
        Ok(committed)
    }

    async fn saga_statuses(
        &self,
        heads: &[LetterHead],
    ) -> Result<HashMap<SagaId, Status>, DeadLetterError> {
        let sagas: HashSet<SagaId> = heads.iter().filter_map(|head| head.saga).collect();
        // No entry comes after the largest number that every database can hold.
        let after = i64::MAX.unsigned_abs();
        let requests: Vec<_> = sagas
            .into_iter()
            .map(|id| LoadRequest { id, after })
            .collect();
        let loaded = self.sagas.load(&requests).await?;
        let heads = loaded.into_iter().flatten().map(|saga| saga.head);
        Ok(heads.map(|head| (head.id, head.status)).collect())
    }
}
