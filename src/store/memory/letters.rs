//! Dead letters in memory.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use uuid::Uuid;

use super::{MemoryStore, State};
use crate::id::Timestamp;
use crate::message::Message;
use crate::store::dead_letters::audit::{self, AuditEntry, AuditHead, Unlinked};
use crate::store::dead_letters::occurrence::{
    self, NewLetter, ParentWanted, Settled, Sighting, Twin,
};
use crate::store::dead_letters::plan::{self, Current};
use crate::store::dead_letters::{
    Actor, DeadLetterStore, GROUPS_MAX, LETTER_ROWS_MAX, Letter, LetterChange, LetterCount,
    LetterEdit, LetterFacts, LetterFilter, LetterGroup, LetterHead, LetterPage, LetterStatus,
    PublishedReplays,
};
use crate::store::{DeadLetter, LIST_ROWS_MAX, StoreError};

/// A letter and what became of it.
#[derive(Debug)]
pub(super) struct LetterRecord {
    pub(super) letter: DeadLetter,
    facts: LetterFacts,
    /// The replays since it is a letter included.
    current: Current,
    seen_again: u32,
    edits: Vec<LetterEdit>,
}

impl LetterRecord {
    fn new(letter: DeadLetter, facts: LetterFacts) -> Self {
        let current = Current {
            version: 0,
            status: LetterStatus::Open,
            replays: facts.replays,
            edits: 0,
            outbox: None,
            handled_at: None,
        };
        Self {
            letter,
            facts,
            current,
            seen_again: 0,
            edits: Vec::new(),
        }
    }

    /// As an open letter that a redelivery may fall together with.
    fn twin(&self) -> Twin {
        let Sighting { session, earlier } = self.letter.sighting;
        Twin {
            id: self.letter.id,
            key: self.facts.key,
            session,
            deliveries: i64::from(earlier.count()),
        }
    }

    fn is_parent_of(&self, wanted: &ParentWanted<'_>) -> bool {
        let properties = &self.letter.message.properties;
        let Some(id) = wanted.message_id else {
            return self.facts.key == wanted.key;
        };
        let same_place = self.letter.queue == wanted.queue
            || self.facts.origin.queue.as_deref() == Some(wanted.queue);
        properties.message_id.as_deref() == Some(id)
            && ((!wanted.strict && self.current.status != LetterStatus::Discarded)
                || (same_place && properties.kind.as_deref() == wanted.kind))
    }

    fn head(&self) -> LetterHead {
        let Self {
            letter,
            facts,
            current,
            ..
        } = self;
        LetterHead {
            id: letter.id,
            at: letter.at,
            queue: letter.queue.clone(),
            code: letter.code,
            reason: letter.reason.clone(),
            origin: facts.origin.clone(),
            kind: letter.message.properties.kind.clone(),
            message_id: letter.message.properties.message_id.clone(),
            fingerprint: facts.fingerprint.clone(),
            saga: facts.saga,
            step: facts.step.clone(),
            status: current.status,
            version: current.version,
            replays: current.replays,
            came_back_from: facts.came_back_from,
            seen_again: self.seen_again,
            edits: current.edits,
            body_bytes: letter.message.body.len() as u64,
            handled_at: current.handled_at,
        }
    }

    fn place(&self) -> (Timestamp, Uuid) {
        (self.letter.at, self.letter.id)
    }

    fn fits(&self, filter: &LetterFilter) -> bool {
        let same =
            |wanted: &Option<String>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
        let properties = &self.letter.message.properties;
        let queue = filter.queue.as_deref();
        let from_queue =
            |queue| self.letter.queue == queue || self.facts.origin.queue.as_deref() == Some(queue);
        queue.is_none_or(from_queue)
            && same(&filter.kind, properties.kind.as_deref())
            && same(&filter.message_id, properties.message_id.as_deref())
            && same(&filter.fingerprint, Some(&self.facts.fingerprint))
            && (filter.saga.is_none() || filter.saga == self.facts.saga)
            && filter
                .status
                .is_none_or(|status| status == self.current.status)
            && filter.since.is_none_or(|since| self.letter.at >= since)
            && filter.until.is_none_or(|until| self.letter.at < until)
            && filter
                .reason
                .as_ref()
                .is_none_or(|text| self.letter.reason.contains(text.as_str()))
            && filter
                .body
                .as_ref()
                .is_none_or(|text| contains(&self.letter.message.body, text))
    }
}

fn contains(body: &[u8], text: &str) -> bool {
    text.is_empty() || body.windows(text.len()).any(|part| part == text.as_bytes())
}

/// The audit log.
#[derive(Debug, Default)]
pub(super) struct Audit {
    head: AuditHead,
    entries: Vec<AuditEntry>,
}

impl Audit {
    pub(super) fn append(&mut self, actor: &Actor, entries: Vec<Unlinked>) {
        self.entries
            .extend(audit::link(&mut self.head, actor, entries));
    }
}

impl State {
    /// Keeps letters of any origin: inserts those that are new, counts those that are seen again.
    pub(super) fn keep<'a>(&mut self, letters: Vec<NewLetter<'a>>) -> Settled<'a> {
        let (wanted, most) = occurrence::twins_wanted(&letters);
        let mut twins = Vec::new();
        for of in &wanted {
            let records = self.dead_letters.values();
            let open = records.filter(|record| record.current.status == LetterStatus::Open);
            let fits = |twin: &Twin| {
                twin.key == of.key && twin.session != of.session && twin.deliveries < of.below
            };
            twins.extend(open.map(LetterRecord::twin).filter(fits).take(most));
        }
        let mut parents = Vec::new();
        for of in occurrence::parents_wanted(&letters) {
            let records = self.dead_letters.values();
            let handled = records.filter(|record| record.current.handled_at.is_some());
            let parent = handled
                .filter(|record| record.is_parent_of(&of))
                .max_by_key(|record| (record.current.handled_at, record.letter.id));
            parents.extend(parent.map(|found| (of.place, found.letter.id, found.current.replays)));
        }
        let settled = occurrence::place(letters, twins, parents);
        for new in &settled.new {
            let record = LetterRecord::new(new.letter.clone(), new.facts.clone());
            self.dead_letters.entry(new.letter.id).or_insert(record);
        }
        for (id, seen) in &settled.again {
            if let Some(record) = self.dead_letters.get_mut(id) {
                record.seen_again += 1;
                let known = &mut record.letter.sighting;
                known.session = seen.session;
                if seen.earlier.count() > known.earlier.count() {
                    known.earlier = seen.earlier;
                }
            }
        }
        settled
    }

    fn letters_that_fit(&self, filter: &LetterFilter) -> Vec<&LetterRecord> {
        let letters = self.dead_letters.values();
        let mut letters: Vec<_> = letters.filter(|record| record.fits(filter)).collect();
        letters.sort_by_key(|record| record.place());
        letters
    }

    fn edit(&mut self, letter: Uuid, number: u32, actor: &Actor, message: &Message) {
        if let Some(record) = self.dead_letters.get_mut(&letter) {
            record.edits.push(LetterEdit {
                number,
                at: actor.at,
                by: actor.by.clone(),
                why: actor.why.clone(),
                message: message.clone(),
            });
        }
    }
}

#[async_trait]
impl DeadLetterStore for MemoryStore {
    async fn store_drained(
        &self,
        queue: &str,
        at: Timestamp,
        letters: &[DeadLetter],
    ) -> Result<usize, StoreError> {
        if letters.is_empty() {
            return Ok(0);
        }
        let mut state = self.state();
        let settled = state.keep(NewLetter::all(letters)?);
        let entry = plan::drain_entry(queue, &settled);
        let new = settled.new.len();
        state.audit.append(&plan::drainer(at), vec![entry]);
        Ok(new)
    }

    async fn store_imported(
        &self,
        actor: &Actor,
        letters: &[DeadLetter],
    ) -> Result<usize, StoreError> {
        let mut state = self.state();
        let settled = state.keep(NewLetter::all(letters)?);
        let new = settled.new.len();
        state.audit.append(actor, plan::import_entries(&settled));
        Ok(new)
    }

    async fn imported(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let state = self.state();
        let imports = state.audit.entries.iter();
        let imports = imports.filter(|entry| entry.action == plan::IMPORT);
        let imported: BTreeSet<Uuid> = imports.filter_map(|entry| entry.letter).collect();
        let is_imported = |id: &Uuid| imported.contains(id);
        Ok(letters.iter().copied().filter(is_imported).collect())
    }

    async fn letters(
        &self,
        filter: &LetterFilter,
        page: &LetterPage,
    ) -> Result<Vec<LetterHead>, StoreError> {
        let state = self.state();
        let mut letters = state.letters_that_fit(filter);
        if !page.oldest_first {
            letters.reverse();
        }
        let beyond = |record: &&LetterRecord| match page.after {
            None => true,
            Some(last) if page.oldest_first => record.place() > last,
            Some(last) => record.place() < last,
        };
        let limit = page.limit.min(LETTER_ROWS_MAX);
        let letters = letters.into_iter().filter(beyond).take(limit);
        Ok(letters.map(LetterRecord::head).collect())
    }

    async fn load_letters(&self, ids: &[Uuid]) -> Result<Vec<Letter>, StoreError> {
        let state = self.state();
        let records = ids.iter().filter_map(|id| state.dead_letters.get(id));
        let letter = |record: &LetterRecord| Letter {
            head: record.head(),
            original: record.letter.message.clone(),
            edited: record.edits.last().map(|edit| edit.message.clone()),
        };
        Ok(records.map(letter).collect())
    }

    async fn letter_groups(
        &self,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<LetterGroup>, StoreError> {
        let state = self.state();
        let mut groups: BTreeMap<&str, LetterGroup> = BTreeMap::new();
        for record in state.letters_that_fit(filter) {
            let cause = record.facts.fingerprint.as_str();
            let group = groups.entry(cause).or_insert_with(|| LetterGroup {
                fingerprint: cause.to_owned(),
                count: 0,
                open: 0,
                first_at: record.letter.at,
                last_at: record.letter.at,
                newest: record.head(),
            });
            group.count += 1;
            group.open += u64::from(record.current.status == LetterStatus::Open);
            group.last_at = record.letter.at;
            group.newest = record.head();
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups.truncate(limit.min(GROUPS_MAX));
        Ok(groups)
    }

    async fn letter_counts(&self) -> Result<Vec<LetterCount>, StoreError> {
        let state = self.state();
        let mut counts: BTreeMap<(&str, &str), (LetterStatus, u64)> = BTreeMap::new();
        for record in state.dead_letters.values() {
            let status = record.current.status;
            let key = (record.letter.queue.as_str(), status.as_str());
            counts.entry(key).or_insert((status, 0)).1 += 1;
        }
        let count = |((queue, _), (status, count)): ((&str, _), _)| LetterCount {
            queue: queue.to_owned(),
            status,
            count,
        };
        Ok(counts.into_iter().map(count).collect())
    }

    async fn change_letters(
        &self,
        actor: &Actor,
        changes: &[LetterChange],
        published: &PublishedReplays,
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut state = self.state();
        let touched = plan::touched(changes, published);
        let letters = touched
            .into_iter()
            .filter_map(|id| Some((id, state.dead_letters.get(&id)?.current)))
            .collect();
        let plan = plan::plan(letters, actor, changes, published);
        state.remove_sent(&plan.remove);
        state.put_outbox(plan.outbox.into_iter().cloned().collect());
        for (letter, number, message) in plan.edits {
            state.edit(letter, number, actor, message);
        }
        for (letter, current) in plan.updates {
            if let Some(record) = state.dead_letters.get_mut(&letter) {
                record.current = current;
            }
        }
        state.audit.append(actor, plan.entries);
        Ok(plan.lost)
    }

    async fn settle_replays(&self) -> Result<u64, StoreError> {
        let mut state = self.state();
        let State {
            dead_letters,
            outbox,
            ..
        } = &mut *state;
        let mut left = 0;
        for record in dead_letters.values_mut() {
            let current = &mut record.current;
            if current.status != LetterStatus::Replaying {
                continue;
            }
            if current.outbox.is_some_and(|row| outbox.contains_key(&row)) {
                left += 1;
            } else {
                current.status = LetterStatus::Replayed;
                current.version += 1;
                current.outbox = None;
            }
        }
        Ok(left)
    }

    async fn came_back(&self, letters: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let state = self.state();
        let parents = state
            .dead_letters
            .values()
            .filter_map(|of| of.facts.came_back_from);
        let parents: BTreeSet<Uuid> = parents.filter(|id| letters.contains(id)).collect();
        Ok(parents.into_iter().collect())
    }

    async fn purge_letters(
        &self,
        actor: &Actor,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let mut state = self.state();
        let handled = |record: &&LetterRecord| {
            let done = matches!(
                record.current.status,
                LetterStatus::Replayed | LetterStatus::Discarded
            );
            done && record.current.handled_at.is_some_and(|at| at < before)
        };
        let mut old: Vec<_> = state.dead_letters.values().filter(handled).collect();
        old.sort_by_key(|record| (record.current.handled_at, record.letter.id));
        let ids: Vec<Uuid> = old
            .iter()
            .take(limit)
            .map(|record| record.letter.id)
            .collect();
        if ids.is_empty() {
            return Ok(0);
        }
        for id in &ids {
            state.dead_letters.remove(id);
        }
        state
            .audit
            .append(actor, vec![plan::purge_entry(before, &ids)]);
        Ok(ids.len() as u64)
    }

    async fn letter_edits(&self, letter: Uuid) -> Result<Vec<LetterEdit>, StoreError> {
        let state = self.state();
        let record = state.dead_letters.get(&letter);
        Ok(record
            .map(|record| record.edits.clone())
            .unwrap_or_default())
    }

    async fn letter_audit(
        &self,
        letter: Option<Uuid>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let state = self.state();
        let entries = state.audit.entries.iter();
        let entries = entries
            .filter(|entry| entry.seq > after && (letter.is_none() || entry.letter == letter));
        Ok(entries.take(limit.min(LIST_ROWS_MAX)).cloned().collect())
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        Ok(self.state().audit.head)
    }
}
