//! The worker: load, decide, commit, acknowledge, relay — a batch at a time.
//!
//! A worker takes whatever is waiting, never lingers for more, and commits it in one transaction.
//! If another node was faster with some of the sagas, those alone are loaded and decided again.
//! What befalls a batch when the database can't, or won't, is [`settle`](super::settle)'s business.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::EngineOptions;
use super::batch::{Batch, Decided, Parts};
use super::buried::Buried;
use super::cache::{Cache, Open};
use super::catalogue::{Catalogue, Unusable};
use super::clock::SharedClock;
use super::damage::Damage;
use super::events::{EventRules, Strays};
use super::found::{Found, Known};
use super::hearing::Hearing;
use super::limit;
use super::newer::{Newer, needed};
use super::presence::Presence;
use super::receipt::{Receipt, panicked};
use super::relay::Relay;
use super::room::Room;
use super::signals::SignalAnswer;
use super::work::{Job, Origin, StartAnswer, Work};
use crate::broker::{Acks, DeliveryTag};
use crate::environment::{Environment, Shutdown};
use crate::error::code;
use crate::id::{SagaId, Timestamp};
use crate::limits::DECODED_BYTES;
use crate::message::correlation::Secret;
use crate::metric;
use crate::saga::format::{Newer as WrittenNewer, unknown};
use crate::saga::journal::JournalError;
use crate::saga::{PlantedBug, Saga, journal};
use crate::store::{Conflict, KeyMatch, LoadRequest, LoadedSaga, SagaKey, Store, StoreError};

/// Most works in a batch. Most of what batching gains is there at 50 to 200.
pub(super) const BATCH_MAX: usize = 200;
/// Batches during which cached sagas are checked against the database after a conflict: with
/// several nodes on the same queues, looking first is cheaper than deciding twice.
const WARY_BATCHES: u32 = 64;

/// What all parts of a node share.
pub(super) struct Shared {
    /// Goes by the shared clock.
    pub(super) environment: Arc<dyn Environment>,
    pub(super) clock: Arc<SharedClock>,
    pub(super) store: Arc<dyn Store>,
    pub(super) catalogue: Catalogue,
    pub(super) events: Mutex<Arc<EventRules>>,
    pub(super) strays: Mutex<Strays>,
    pub(super) newer: Newer,
    pub(super) damage: Damage,
    pub(super) secret: Secret,
    pub(super) options: EngineOptions,
    pub(super) relay: Arc<Relay>,
    pub(super) cache: Mutex<Cache>,
    /// When it was last looked up what other nodes have stored; held while it is.
    pub(super) last_look: tokio::sync::Mutex<Option<Duration>>,
    pub(super) wary: AtomicU32,
    pub(super) presence: Presence,
    pub(super) hearing: Hearing,
    pub(super) room: Room,
    pub(super) latency: super::latency::Latency,
    /// Held while a suspect is handled.
    pub(super) trials: tokio::sync::Mutex<()>,
    pub(super) stop: Shutdown,
}

impl Shared {
    /// Another node is faster: look before deciding, for a while.
    pub(super) fn be_wary(&self) {
        self.wary.store(WARY_BATCHES, Ordering::Relaxed);
    }

    /// One time round. Returns the works that must be decided again, or all of them if nothing
    /// was stored. With `remove_sent` it removes published outbox rows as well.
    pub(super) async fn attempt(
        &self,
        works: Vec<Work>,
        remove_sent: bool,
    ) -> Result<Left, (Vec<Work>, StoreError)> {
        if let Err(error) = self.within(self.clock.refresh(&*self.store)).await {
            return Err((works, error));
        }
        let began = self.environment.elapsed();
        let (now, known) = match self.look_up(&works).await {
            Ok(known) => known,
            Err(error) => return Err((works, error)),
        };
        let mut batch = Batch::new(self, now, known);
        let mut works = works.into_iter();
        while let Some(work) = works.next() {
            if batch.is_full() || batch.is_later(&work) {
                batch.again.push(work);
                continue;
            }
            let receipt = Receipt::of(&work);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| batch.decide(work))) {
                // What it left behind can't be relied on: all others are decided anew.
                metric::worker_panicked();
                let what = panicked(&*panic);
                tracing::error!(what, "handling one message panicked; it is set aside");
                let Parts { decided, again, .. } = batch.into_parts();
                let decided = decided.into_iter().map(|decided| decided.work);
                let culprit = receipt.map(|receipt| receipt.bury(&what));
                let again = decided.chain(again).chain(works).chain(culprit).collect();
                return Ok(Left {
                    again,
                    ..Left::default()
                });
            }
        }
        let Parts {
            mut commit,
            open,
            later,
            decided,
            again,
        } = batch.into_parts();
        if self.options.sabotage.has(PlantedBug::AckBeforeCommit) {
            acknowledge(&decided);
        }
        if self.options.sabotage.has(PlantedBug::LoseLetters) {
            commit.dead_letters.clear();
        }
        if remove_sent {
            commit.sent.extend(self.relay.take_sent());
        }
        let letters: Vec<_> = commit.dead_letters.iter().map(Buried::of).collect();
        let (sent, mut outbox) = (commit.sent.clone(), commit.outbox.clone());
        commit.outbox.extend(later);
        let outboxes: Vec<_> = commit
            .sagas
            .iter()
            .map(|write| (write.head.id, write.outbox.clone()))
            .collect();
        let outcome = match self.within(self.store.commit(commit)).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.relay.give_back(sent);
                for decided in &decided {
                    // It may be stored all the same.
                    if let Job::Signal(request) = &decided.work.job {
                        request.uncertain.store(true, Ordering::Relaxed);
                    }
                }
                let works = decided
                    .into_iter()
                    .map(|decided| decided.work)
                    .chain(again)
                    .collect();
                return Err((works, error));
            }
        };
        self.presence.succeeded();
        let conflicts = BTreeMap::from_iter(outcome.conflicts);
        for letter in &letters {
            letter.tell(&outcome.known_letters);
        }
        let took = self.environment.elapsed().saturating_sub(began);
        metric::committed(decided.len(), took.as_secs_f64());
        for (id, rows) in outboxes {
            if !conflicts.contains_key(&id) {
                outbox.extend(rows);
            }
        }
        let (stored, mut left) = sort_out(decided, &conflicts);
        left.again.splice(0..0, again);
        left.unfinished = unfinished(&open, &conflicts);
        self.keep(open, &conflicts);
        if !self.options.sabotage.has(PlantedBug::AckBeforeCommit) {
            acknowledge(&stored);
        }
        answer(stored);
        self.relay.send(outbox).await;
        Ok(left)
    }

    /// Waits for the store, but not for ever.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.options.sabotage.has(PlantedBug::WaitForEver) {
            return call.await;
        }
        limit::within(&*self.environment, call).await
    }

    /// All that has to be known before works can be decided, and when they are.
    async fn look_up(&self, works: &[Work]) -> Result<(Timestamp, Known), StoreError> {
        let (found, keys) = self.load(works).await?;
        self.look_for_heirs(works, &found).await?;
        let now = self.environment.now();
        let unsent = self.look_for_unsent(works, &found, now).await?;
        let known = Known {
            found,
            keys,
            unsent,
        };
        Ok((now, known))
    }

    /// Finds the batch's sagas: in the cache, or in the store.
    async fn load(
        &self,
        works: &[Work],
    ) -> Result<(BTreeMap<SagaId, Found>, BTreeMap<SagaKey, Option<KeyMatch>>), StoreError> {
        let keys = self.find_keys(works).await?;
        let jobs = works.iter().map(|work| &work.job);
        let ids: BTreeSet<SagaId> = jobs.filter_map(|job| needed(job, &keys)).collect();
        let wary = self.wary.load(Ordering::Relaxed);
        let mut found = BTreeMap::new();
        let mut requests = Vec::new();
        let mut stale = BTreeMap::new();
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                match cache.take(id) {
                    Some(open) if wary == 0 => {
                        found.insert(id, Found::Open(Box::new(open)));
                    }
                    Some(open) => {
                        requests.push(LoadRequest {
                            id,
                            after: open.head.revision,
                        });
                        stale.insert(id, open);
                    }
                    None => requests.push(LoadRequest { id, after: 0 }),
                }
            }
        }
        if wary > 0 {
            self.wary.store(wary - 1, Ordering::Relaxed);
        }
        if !requests.is_empty() {
            let loaded = self.within(self.store.load(&requests)).await?;
            let mut weight = 0;
            for (request, loaded) in requests.iter().zip(loaded) {
                let saga = match loaded {
                    None => Found::Missing,
                    Some(loaded) if loaded.left_out || weight >= DECODED_BYTES => Found::Later,
                    Some(loaded) => self.open(stale.remove(&request.id), loaded).await?,
                };
                match &saga {
                    Found::Open(open) => weight += open.weight(),
                    Found::Unreadable { code, why } if *code == code::JOURNAL_UNREADABLE => {
                        let now = self.environment.now();
                        self.damage.note_journal(now, request.id, why);
                    }
                    _ => {}
                }
                found.insert(request.id, saga);
            }
        }
        Ok((found, keys))
    }

    async fn find_keys(
        &self,
        works: &[Work],
    ) -> Result<BTreeMap<SagaKey, Option<KeyMatch>>, StoreError> {
        let keys: BTreeSet<SagaKey> = works.iter().filter_map(|work| work.job.key()).collect();
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let keys: Vec<SagaKey> = keys.into_iter().collect();
        let matches = self.within(self.store.find(&keys)).await?;
        Ok(keys.into_iter().zip(matches).collect())
    }

    /// Brings a cached saga up to date, or rebuilds it from its snapshot and journal.
    async fn open(
        &self,
        cached: Option<Open>,
        mut loaded: LoadedSaga,
    ) -> Result<Found, StoreError> {
        let format = match self.unmark(&mut loaded) {
            Ok(format) => format,
            Err(newer) => return Ok(Found::Newer(newer.to_string())),
        };
        let LoadedSaga {
            head,
            snapshot,
            entries,
            ..
        } = loaded;
        let (name, version) = (&head.name, head.version);
        let definition = self.catalogue.version(&*self.store, name, version);
        let Some(definition) = self.within(definition).await? else {
            return Ok(torn(format!(
                "its definition `{name}` version {version} is not stored",
            )));
        };
        let definition = match definition {
            Ok(definition) => definition,
            Err(Unusable::Damaged) => {
                let now = self.environment.now();
                self.damage.note_definition(now, name, version);
                return Ok(Found::Unreadable {
                    code: code::DEFINITION_DAMAGED,
                    why: format!(
                        "its definition `{name}` version {version} is damaged: it has not the hash that it was stored with"
                    ),
                });
            }
            Err(Unusable::Newer(problems)) => {
                let what = format!("its definition `{name}` version {version}: {problems}");
                return Ok(Found::Newer(WrittenNewer(what).to_string()));
            }
        };
        let known = cached.as_ref().map_or(1, |cached| cached.format);
        let (mut saga, revision, tail) = match (cached, snapshot) {
            (Some(cached), _) => (cached.saga, cached.head.revision, cached.tail),
            (None, Some(snapshot)) => match serde_json::from_slice(&snapshot.body) {
                Ok(saga) => (saga, snapshot.revision, 0),
                Err(error) => return Ok(unreadable(&error)),
            },
            (None, None) => (
                Saga::new(head.id, &head.name, &head.key, head.started_at),
                0,
                0,
            ),
        };
        if let Err(error) = journal::fold(&mut saga, revision, &entries) {
            if let JournalError::Newer { .. } = error {
                return Ok(Found::Newer(error.to_string()));
            }
            return Ok(torn(error.to_string()));
        }
        if revision + entries.len() as u64 != head.revision {
            return Ok(torn(format!(
                "its row is at entry {}, its journal ends at {}",
                head.revision,
                revision + entries.len() as u64
            )));
        }
        let tail = tail + entries.len() as u64;
        Ok(Found::Open(Box::new(Open {
            saga,
            head,
            definition,
            tail,
            format: format.max(known),
            fresh: true,
        })))
    }

    fn keep(&self, open: Vec<Open>, conflicts: &BTreeMap<SagaId, Conflict>) {
        if !conflicts.is_empty() {
            metric::conflicts(conflicts.len());
            if conflicts
                .values()
                .any(|conflict| *conflict != Conflict::KeyTaken)
            {
                self.be_wary();
            }
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        for open in open {
            if !conflicts.contains_key(&open.head.id) {
                cache.keep(open);
            }
        }
        metric::cached(cache.weight());
    }
}

/// What was stored of a saga, if it is not there as it was.
fn torn(why: String) -> Found {
    let code = code::JOURNAL_UNREADABLE;
    Found::Unreadable { code, why }
}

/// A snapshot that can't be read.
fn unreadable(error: &serde_json::Error) -> Found {
    match unknown(error) {
        Some(newer) => Found::Newer(format!("snapshot: {newer}")),
        None => torn(format!("snapshot: {error}")),
    }
}

/// What was stored of a batch, and what was not.
fn sort_out(decided: Vec<Decided>, conflicts: &BTreeMap<SagaId, Conflict>) -> (Vec<Decided>, Left) {
    let mut left = Left::default();
    let mut stored = Vec::with_capacity(decided.len());
    for decided in decided {
        match decided.saga.and_then(|id| conflicts.get(&id)) {
            None => stored.push(decided),
            Some(Conflict::Locked) => left.locked.push(decided.work),
            Some(_) => left.again.push(undecided(decided, conflicts)),
        }
    }
    (stored, left)
}

/// A work whose saga conflicted, as it goes into the next round.
fn undecided(lost: Decided, conflicts: &BTreeMap<SagaId, Conflict>) -> Work {
    let mut work = lost.work;
    let conflict = lost.saga.and_then(|id| conflicts.get(&id));
    let taken = conflict == Some(&Conflict::KeyTaken);
    match &mut work.job {
        Job::Start { request, key_taken } => {
            *key_taken = taken;
            if let Some(succession) = &mut request.succeeds {
                succession.stored = conflict == Some(&Conflict::Revision);
            }
        }
        Job::Child(wanted) => wanted.key_taken = taken,
        Job::Succeed { .. }
        | Job::Tell { .. }
        | Job::TellAndBury { .. }
        | Job::Signal(_)
        | Job::Leave { .. }
        | Job::Bury { .. } => {}
    }
    work
}

/// Acknowledges deliveries, one call for each consumer.
fn acknowledge(stored: &[Decided]) {
    let mut tags: Vec<(&Arc<dyn Acks>, Vec<DeliveryTag>)> = Vec::new();
    for decided in stored {
        if let Origin::Delivery { acks, tag, .. } = &decided.work.origin {
            match tags.iter_mut().find(|(known, _)| Arc::ptr_eq(known, acks)) {
                Some((_, tags)) => tags.push(*tag),
                None => tags.push((acks, vec![*tag])),
            }
        }
    }
    for (acks, tags) in tags {
        acks.ack(&tags);
    }
}

fn answer(stored: Vec<Decided>) {
    for Decided {
        work,
        answer,
        told,
        signalled,
        ..
    } in stored
    {
        if let Some(Ok(StartAnswer::Started(_))) = &answer {
            match &work.job {
                Job::Start { request, .. } => metric::started(&request.definition.name),
                Job::Child(wanted) => metric::started(&wanted.name),
                _ => {}
            }
        }
        if let Some(Ok(SignalAnswer::Accepted(_))) = &signalled {
            metric::signalled();
        }
        // The caller may have gone away; the saga runs all the same.
        match (work.origin, answer) {
            (Origin::Caller(Some(caller)), Some(answer)) => drop(caller.send(answer)),
            (Origin::Operator(operator), _) => drop(operator.send(told)),
            (Origin::Signaller(sender), _) => drop(signalled.map(|heard| sender.send(heard))),
            _ => {}
        }
    }
}

/// The sagas that have more to do at once.
fn unfinished(open: &[Open], conflicts: &BTreeMap<SagaId, Conflict>) -> Vec<SagaId> {
    let unfinished = open.iter().filter(|open| open.saga.is_left_off());
    let ids = unfinished.map(|open| open.head.id);
    ids.filter(|id| !conflicts.contains_key(id)).collect()
}

/// What is left of a batch that was stored.
#[derive(Default)]
pub(super) struct Left {
    /// Works that must be decided again.
    pub(super) again: Vec<Work>,
    /// Works whose sagas another transaction holds.
    pub(super) locked: Vec<Work>,
    /// Sagas that have left off in the middle.
    pub(super) unfinished: Vec<SagaId>,
}

pub(super) fn give_back(work: &Work) {
    if let Origin::Delivery { acks, tag, .. } = &work.origin {
        acks.requeue(&[*tag]);
    }
}

#[cfg(test)]
mod tests;
