//! Bringing a batch to its end, whatever the database does meanwhile.
//!
//! What befalls a batch need not befall all of it. One that the database refuses, or takes too
//! long over, is taken apart until the one work is found that it is about; that one is set aside as
//! a dead letter, and its sender told. Works whose saga is locked (another node decides on it, or
//! stands still in the middle) wait for a moment in a [lane](Lanes) of their own, and all others go
//! on. Only a database that can't be used at all is waited for; and if that takes long, what is in
//! work is given up, so that another node can do it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::presence::BATCH_PATIENCE;
use super::work::{Job, OperateError, Origin, StartError, Work};
use super::worker::Shared;
use crate::engine::signals::SignalError;
use crate::error::{Class, Code, code};
use crate::id::{SagaId, Timestamp};
use crate::saga::Input;
use crate::store::{DeadLetter, StoreError};

/// First and longest pause while the database is away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// First and longest pause of a work that waits while others go on.
const LANE_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// How often a single work may take too long, while other things succeed, before it is set aside.
const SLOW_TRIES_MAX: u32 = 3;

/// Works that are tried together.
pub(super) struct Part {
    works: Vec<Work>,
    /// When it was first tried.
    since: Timestamp,
    /// How often it took too long, and how much had succeeded when it first did.
    slow: u32,
    successes: u64,
    /// How long it last waited in its lane.
    waited: Duration,
    /// Whether it met a lock: what need not be done with it is then left to others.
    locked: bool,
}

impl Part {
    pub(super) fn new(works: Vec<Work>, since: Timestamp) -> Self {
        Self {
            works,
            since,
            slow: 0,
            successes: 0,
            waited: Duration::ZERO,
            locked: false,
        }
    }

    pub(super) fn works(&self) -> &[Work] {
        &self.works
    }

    fn with(&self, works: Vec<Work>) -> Self {
        Self { works, ..*self }
    }
}

/// Works that wait while others go on.
#[derive(Default)]
pub(super) struct Lanes {
    /// Those about one saga, or key, in their order.
    lanes: BTreeMap<u64, Lane>,
    /// Sagas whose last decision has left off in the middle.
    unfinished: BTreeSet<SagaId>,
}

struct Lane {
    /// The first part is what the others wait for.
    parts: VecDeque<Part>,
    due: Timestamp,
}

impl Lanes {
    /// Puts works behind those about the same saga that wait already; returns the others.
    pub(super) fn hold_back(&mut self, works: Vec<Work>, now: Timestamp) -> Vec<Work> {
        if self.lanes.is_empty() {
            return works;
        }
        let mut free = Vec::with_capacity(works.len());
        for work in works {
            match self.lanes.get_mut(&work.job.lane()) {
                Some(lane) => lane.parts.push_back(Part::new(vec![work], now)),
                None => free.push(work),
            }
        }
        free
    }

    /// Has works wait, each behind those about the same saga that were put here before.
    fn put(&mut self, part: Part, now: Timestamp) {
        let waited = (part.waited * 2).clamp(LANE_PAUSE.0, LANE_PAUSE.1);
        let due = now.after(waited);
        let mut lanes: BTreeMap<u64, Vec<Work>> = BTreeMap::new();
        let template = part.with(Vec::new());
        for work in part.works {
            lanes.entry(work.job.lane()).or_default().push(work);
        }
        for (number, works) in lanes {
            let lane = self.lanes.entry(number).or_insert_with(|| Lane {
                parts: VecDeque::new(),
                due,
            });
            let mut part = template.with(works);
            part.waited = waited;
            lane.parts.push_front(part);
        }
    }

    /// What has waited long enough, if anything: the first of a lane, and, if that goes well, what
    /// stands behind it.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<Part> {
        let due = self.lanes.iter().find(|(_, lane)| lane.due <= now);
        let Some(number) = due.map(|(number, _)| *number) else {
            return Vec::new();
        };
        let lane = self.lanes.remove(&number);
        lane.map_or_else(Vec::new, |lane| lane.parts.into())
    }

    /// When the next one has.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.lanes.values().map(|lane| lane.due).min()
    }

    /// Since when the oldest has waited.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let firsts = self.lanes.values().filter_map(|lane| lane.parts.front());
        firsts.map(|part| part.since).min()
    }

    /// What goes on with one of the sagas that have left off; one at a time, so that others have
    /// their turn between.
    pub(super) fn take_unfinished(&mut self) -> Option<Work> {
        let saga = self.unfinished.pop_first()?;
        let input = Input::GoOn;
        Some(Work {
            job: Job::Tell { saga, input },
            origin: Origin::Timer,
        })
    }

    fn take_all(&mut self) -> Vec<Work> {
        let lanes = std::mem::take(&mut self.lanes).into_values();
        let parts = lanes.flat_map(|lane| lane.parts);
        parts.flat_map(|part| part.works).collect()
    }
}

impl Shared {
    /// Brings parts to their end, one after the other; some may be left waiting in lanes.
    pub(super) async fn settle_parts(&self, parts: Vec<Part>, lanes: &mut Lanes) {
        let mut parts = VecDeque::from(parts);
        let mut pause = PAUSE.0;
        while let Some(part) = parts.pop_front() {
            // What stands behind others about the same saga stays there.
            let works = lanes.hold_back(part.works, self.environment.now());
            let part = Part { works, ..part };
            if part.works.is_empty() {
                continue;
            }
            let Part { locked, .. } = part;
            let (template, works) = (part.with(Vec::new()), part.works);
            match self.attempt(works, !locked).await {
                Ok(left) => {
                    pause = PAUSE.0;
                    let now = self.environment.now();
                    lanes.unfinished.extend(left.unfinished);
                    if !left.locked.is_empty() {
                        lanes.put(template.with(left.locked), now);
                    }
                    if !left.again.is_empty() {
                        parts.push_front(template.with(left.again));
                    }
                }
                Err((works, error)) => {
                    let part = template.with(works);
                    if let Some(part) = self.remedy(part, &error, &mut parts, lanes).await {
                        let failed = self.wait_for_database(part, &error, &mut pause).await;
                        match failed {
                            Ok(part) => parts.push_front(part),
                            Err(part) => {
                                give_up(part.works, &error);
                                for part in parts {
                                    give_up(part.works, &error);
                                }
                                give_up(lanes.take_all(), &error);
                                return;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Does what can be done about an error. Gives the part back if that is only to wait.
    async fn remedy(
        &self,
        mut part: Part,
        error: &StoreError,
        parts: &mut VecDeque<Part>,
        lanes: &mut Lanes,
    ) -> Option<Part> {
        let now = self.environment.now();
        let divisible = part.works.len() > 1;
        match error {
            StoreError::TooSlow(_) | StoreError::Locked(_) if divisible => {
                tracing::warn!(%error, works = part.works.len(), "a batch is taken apart");
                part.locked |= matches!(error, StoreError::Locked(_));
                let second = part.works.split_off(part.works.len() / 2);
                parts.push_front(part.with(second));
                parts.push_front(part);
            }
            StoreError::Locked(_) => {
                part.locked = true;
                lanes.put(part, now);
            }
            StoreError::TooSlow(_) => {
                if part.slow == 0 {
                    part.successes = self.presence.successes();
                }
                part.slow += 1;
                // That nothing else succeeds either is not this work's fault.
                let others_go_on = self.presence.successes() > part.successes;
                if part.slow >= SLOW_TRIES_MAX && others_go_on {
                    for work in part.works {
                        self.set_aside(work, code::STORE_TOO_SLOW, error).await;
                    }
                } else {
                    tracing::warn!(%error, tries = part.slow, "one work takes too long; it waits");
                    lanes.put(part, now);
                }
            }
            error if error.class() == Class::Retry => return Some(part),
            error if divisible => {
                tracing::error!(%error, works = part.works.len(), "the database refuses a batch; trying its parts");
                let works = std::mem::take(&mut part.works);
                for work in works.into_iter().rev() {
                    parts.push_front(part.with(vec![work]));
                }
            }
            error => {
                for work in part.works {
                    self.set_aside(work, code::STORE_REFUSED, error).await;
                }
            }
        }
        None
    }

    /// Waits for a moment; or says that waiting is over, because the node stops or others are to
    /// do it.
    async fn wait_for_database(
        &self,
        part: Part,
        error: &StoreError,
        pause: &mut Duration,
    ) -> Result<Part, Part> {
        let now = self.environment.now();
        self.presence.failed(now, error);
        if now.since(part.since) >= BATCH_PATIENCE {
            self.presence.lose(now);
        }
        if self.stop.is_requested() || self.presence.is_lost() {
            return Err(part);
        }
        tracing::warn!(%error, works = part.works.len(), "batch waits for the database");
        self.environment.sleep(*pause).await;
        *pause = (*pause * 2).min(PAUSE.1);
        Ok(part)
    }

    /// Keeps a message that can't be handled as a dead letter, or tells who waits.
    pub(super) async fn set_aside(&self, work: Work, code: Code, error: &StoreError) {
        let Origin::Delivery {
            acks,
            tag,
            letter,
            space,
        } = work.origin
        else {
            tracing::error!(%error, "something can't be stored, and nobody can be told but its caller");
            return refuse(work.origin, error);
        };
        let starter = work.job.starter();
        let buried = DeadLetter {
            code,
            reason: format!("what follows from this message can't be stored: {error}"),
            ..letter()
        };
        let work = Work {
            job: Job::Bury {
                letter: Box::new(buried),
                starter,
            },
            origin: Origin::Delivery {
                acks,
                tag,
                letter,
                space,
            },
        };
        let mut works = vec![work];
        loop {
            match self.attempt(works, false).await {
                Ok(_) => return,
                Err((again, error)) if error.class() == Class::Retry => {
                    let now = self.environment.now();
                    self.presence.failed(now, &error);
                    if self.stop.is_requested() || self.presence.is_lost() {
                        return give_up(again, &error);
                    }
                    self.environment.sleep(PAUSE.1).await;
                    works = again;
                }
                Err((again, error)) => {
                    tracing::error!(%error, "not even a dead letter can be stored");
                    again.iter().for_each(super::worker::give_back);
                    return;
                }
            }
        }
    }
}

/// Leaves works undone. Messages are unacknowledged and their consumers go, so the broker gives
/// them to another node; who waits in this process is told.
fn give_up(works: Vec<Work>, error: &StoreError) {
    for work in works {
        refuse(work.origin, error);
    }
}

/// Tells who waits in this process that it could not be done.
fn refuse(origin: Origin, error: &StoreError) {
    // Whoever has gone away does not hear it.
    match origin {
        Origin::Caller(Some(caller)) => {
            drop(caller.send(Err(StartError::Unavailable(error.to_string()))));
        }
        Origin::Operator(operator) => {
            drop(operator.send(Err(OperateError::Unavailable(error.to_string()))));
        }
        Origin::Signaller(sender) => {
            drop(sender.send(Err(SignalError::Unavailable(error.to_string()))));
        }
        Origin::Delivery { .. } | Origin::Caller(None) | Origin::Outbox(_) | Origin::Timer => {}
    }
}

#[cfg(test)]
impl Shared {
    /// Brings a batch to its end, but for what waits in lanes.
    pub(super) async fn settle(&self, works: Vec<Work>) {
        let part = Part::new(works, self.environment.now());
        self.settle_parts(vec![part], &mut Lanes::default()).await;
    }
}
