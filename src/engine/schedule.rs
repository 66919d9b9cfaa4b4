//! `start.every`: each node starts sagas when schedules tick, and all nodes together once a tick.
//!
//! Every node watches every schedule. A tick's saga is started first, then the tick is settled in
//! the database. A crash in between, or another node at the same time, starts it again: that is
//! the same start, because its input and id are made of the tick. A tick that can't start a saga
//! becomes a dead letter, once, and the schedule goes on.
//!
//! A schedule counts from when a node first loads its rhythm, also if its definition has had
//! another one before. One that nodes ran without, and that comes back, counts from then anew:
//! `catch_up` is about time in which no node ran, not about time in which nobody wanted it. So
//! nodes note which schedules they run without, and those that have one take the note away.
//!
//! Invariants: a tick is settled only after its saga, or its dead letter, is committed; a node acts
//! on what the database says, not on what it remembers; a schedule that is new begins now; a node
//! whose clock is wrong starts nothing. Deliberately absent: a leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::clock::CLOCK_OFF_MAX;
use super::decode::{Undecodable, start_of};
use super::intake::Workers;
use super::work::{Job, Origin, StartAnswer, StartError, Work};
use super::worker::Shared;
use crate::definition::{CatchUp, Definition, Every};
use crate::error::code;
use crate::id::Timestamp;
use crate::message::{CONTENT_TYPE_JSON, Message, Properties, START_QUEUE};
use crate::store::dead_letters::{Earlier, Sighting};
use crate::store::{DeadLetter, ScheduleKey, ScheduleRow, StoreError};

/// Most ticks of one schedule started before the others have their turn.
const TICKS_AT_ONCE: usize = 50;
/// Pause when the database or a worker could not do it, or the node's clock is wrong.
const PAUSE: Duration = Duration::from_secs(1);

/// A schedule that this node has loaded.
struct Scheduled {
    key: ScheduleKey,
    definition: Arc<Definition>,
    /// Whether this node has made sure, since it started, where the schedule counts from.
    joined: bool,
}

/// A tick is not done with; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Postponed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Unavailable(String),
}

impl Shared {
    /// Starts sagas as schedules tick, until the stop.
    pub(super) async fn keep_schedules(self: Arc<Self>, workers: Workers) {
        // Those of this node's own files, also when it has learned newer versions since: whoever has
        // those keeps their schedules, and a deployment disturbs neither.
        let known = self.catalogue.known();
        let newest = known.newest_of_all();
        let mut scheduled: Vec<Scheduled> = newest.filter_map(Scheduled::of).collect();
        drop(known);
        loop {
            let pause = match self.round(&mut scheduled, &workers).await {
                Ok(Some(pause)) => pause,
                // None here, and none anywhere that would have to know.
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "can't read how far schedules have come; trying again");
                    PAUSE
                }
            };
            tokio::select! {
                biased;
                () = self.stop.requested() => return,
                () = self.environment.sleep(pause) => {}
            }
        }
    }

    /// Goes over all schedules once; returns how long nothing will be due.
    async fn round(
        &self,
        scheduled: &mut [Scheduled],
        workers: &Workers,
    ) -> Result<Option<Duration>, Postponed> {
        if !self.within(self.clock.is_right(&*self.store)).await? {
            return Ok(Some(PAUSE));
        }
        let now = self.environment.now();
        let rows = self.within(self.store.schedules()).await?;
        if scheduled.is_empty() && rows.is_empty() {
            return Ok(None);
        }
        self.note_what_is_missing(&rows, scheduled, now).await?;
        let mut rows: BTreeMap<ScheduleKey, ScheduleRow> =
            rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut pause = self.options.read_clock_every;
        for schedule in scheduled {
            let row = rows.remove(&schedule.key);
            match self.advance(schedule, row, now, workers).await {
                Ok(None) => {}
                Ok(Some(next)) => pause = pause.min(next.since(self.environment.now())),
                Err(error) => {
                    // The others are not to wait for this one.
                    tracing::warn!(saga.name = %schedule.key.name, %error, "a tick waits; trying again");
                    pause = pause.min(PAUSE);
                }
            }
            if self.stop.is_requested() {
                break;
            }
        }
        Ok(Some(pause))
    }

    /// Notes which schedules this node runs without.
    async fn note_what_is_missing(
        &self,
        rows: &[ScheduleRow],
        scheduled: &[Scheduled],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let own: BTreeSet<&ScheduleKey> = scheduled.iter().map(|it| &it.key).collect();
        let missing = rows.iter().filter(|row| !own.contains(&row.key));
        for row in missing.filter(|row| row.absent_since.is_none()) {
            self.store.mark_absent(&row.key, Some(now)).await?;
        }
        Ok(())
    }

    /// Starts and settles what is due of one schedule; returns when it is to be looked at again.
    async fn advance(
        &self,
        schedule: &mut Scheduled,
        row: Option<ScheduleRow>,
        now: Timestamp,
        workers: &Workers,
    ) -> Result<Option<Timestamp>, Postponed> {
        let mut settled = self.join(schedule, row, now).await?;
        let Scheduled {
            key, definition, ..
        } = schedule;
        let Some(every) = &definition.start.every else {
            return Ok(None);
        };
        if settled > now.after(CLOCK_OFF_MAX) {
            tracing::warn!(
                saga.name = %key.name, %settled,
                "the schedule's position lies in the future, so nothing ticks until then; to set it back: backstitch schedules move"
            );
        }
        let due = every.due(settled, now, TICKS_AT_ONCE);
        tell_given_up(&key.name, every, settled, &due);
        for tick in due {
            if settled >= tick {
                // Another node was faster.
                continue;
            }
            self.start_tick(definition, every, tick, workers).await?;
            let settling = self.store.settle(key, Some(settled), tick);
            settled = self.within(settling).await?;
        }
        Ok(every.next_due(settled, now))
    }

    /// Where the schedule stands. One that nodes have run without begins now; a node that has it
    /// loaded all the time knows better than those who have noted that.
    async fn join(
        &self,
        schedule: &mut Scheduled,
        row: Option<ScheduleRow>,
        now: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let key = &schedule.key;
        let settled = match row {
            None => self.store.settle(key, None, now).await?,
            Some(row) => {
                let mut settled = row.settled;
                if let Some(since) = row.absent_since {
                    if !schedule.joined && settled < now {
                        settled = self.store.settle(key, Some(settled), now).await?;
                        tracing::info!(
                            saga.name = %key.name, %since,
                            "nodes ran without this schedule, so it counts from now"
                        );
                    }
                    self.store.mark_absent(key, None).await?;
                }
                settled
            }
        };
        schedule.joined = true;
        Ok(settled)
    }

    /// Starts the tick's saga, or keeps why that is not possible.
    async fn start_tick(
        &self,
        definition: &Arc<Definition>,
        every: &Every,
        tick: Timestamp,
        workers: &Workers,
    ) -> Result<(), Postponed> {
        let name = &definition.name;
        let input = match every.input_of(tick) {
            Ok(input) => input,
            Err(error) => {
                let wrong = Undecodable {
                    code: code::TICK_FAILED,
                    reason: error.to_string(),
                };
                let input = json!({ "tick": tick.to_string() });
                return self.bury_tick(name, tick, &input, wrong, workers).await;
            }
        };
        // Its own version: what a tick says need not suit another one.
        let mut request = match start_of(definition, input.clone(), None, None) {
            Ok(request) => request,
            Err(wrong) => return self.bury_tick(name, tick, &input, wrong, workers).await,
        };
        request.id = Some(tick_id(name, tick));
        let (caller, answer) = oneshot::channel();
        let job = Job::Start {
            request,
            key_taken: false,
        };
        let origin = Origin::Caller(Some(caller));
        workers.give(Work { job, origin }).await;
        match answer.await {
            Ok(Ok(started)) => {
                tell_started(name, tick, &started);
                Ok(())
            }
            Ok(Err(StartError::Unavailable(why))) => Err(Postponed::Unavailable(why)),
            Ok(Err(error)) => {
                let wrong = match error {
                    StartError::Refused(wrong) => wrong,
                    conflict => Undecodable {
                        code: code::KEY_CONFLICT,
                        reason: conflict.to_string(),
                    },
                };
                self.bury_tick(name, tick, &input, wrong, workers).await
            }
            Err(_) => Err(Postponed::Unavailable("the node is stopping".to_owned())),
        }
    }

    /// Keeps a tick as the start message that somebody could have sent for it, so that it can be
    /// looked at, edited and replayed like any other.
    async fn bury_tick(
        &self,
        name: &str,
        tick: Timestamp,
        input: &Value,
        wrong: Undecodable,
        workers: &Workers,
    ) -> Result<(), Postponed> {
        let Undecodable { code, reason } = wrong;
        let id = tick_id(name, tick);
        let letter = DeadLetter {
            id: self.environment.new_id(),
            at: self.environment.now(),
            queue: START_QUEUE.to_owned(),
            code,
            reason: format!("tick {tick} of `{name}`: {reason}"),
            message: Message {
                properties: Properties {
                    message_id: Some(id),
                    kind: Some(name.to_owned()),
                    content_type: Some(CONTENT_TYPE_JSON.to_owned()),
                    timestamp: Some(tick),
                    ..Properties::default()
                },
                body: Bytes::from(input.to_string()),
            },
            // A tick that was not settled afterwards comes again.
            sighting: Sighting {
                session: self.environment.new_id(),
                earlier: Earlier::Perhaps,
            },
        };
        let job = Job::Bury {
            letter: Box::new(letter),
            starter: None,
        };
        let (waiting, kept) = oneshot::channel();
        let origin = Origin::Operator(waiting);
        workers.give(Work { job, origin }).await;
        match kept.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Postponed::Unavailable(error.to_string())),
            Err(_) => Err(Postponed::Unavailable("the node is stopping".to_owned())),
        }
    }
}

/// What the definition's schedule is known by, if it has one.
pub fn schedule_of(definition: &Definition) -> Option<ScheduleKey> {
    let every = definition.start.every.as_ref()?;
    Some(ScheduleKey {
        name: definition.name.clone(),
        rhythm: every.rhythm(),
    })
}

impl Scheduled {
    fn of(definition: &Arc<Definition>) -> Option<Self> {
        Some(Self {
            key: schedule_of(definition)?,
            definition: Arc::clone(definition),
            joined: false,
        })
    }
}

/// What a tick's start is known by, whichever node does it.
fn tick_id(name: &str, tick: Timestamp) -> String {
    format!("tick/{name}/{tick}")
}

fn tell_started(name: &str, tick: Timestamp, started: &StartAnswer) {
    match started {
        StartAnswer::Started(id) => {
            tracing::info!(saga.id = %id, saga.name = %name, %tick, "started by its schedule");
        }
        StartAnswer::Restarting { saga, replaces, .. } => {
            tracing::info!(saga.id = %saga, saga.name = %name, %tick, %replaces, "restarts by its schedule");
        }
        StartAnswer::Existing(..) => {}
    }
}

/// Ticks that nobody starts a saga for are no secret.
fn tell_given_up(name: &str, every: &Every, settled: Timestamp, due: &[Timestamp]) {
    let Some(first) = due.first() else { return };
    let missed = every.next_after(settled);
    if every.catch_up != CatchUp::All && missed.is_some_and(|missed| missed < *first) {
        tracing::warn!(
            saga.name = %name, since = %settled, tick = %first,
            "earlier ticks were missed and are given up, as `catch_up` says"
        );
    }
}
