//! `start.every`: each node starts sagas when schedules tick, and all nodes together once a tick.
//!
//! Every node watches every schedule. A tick's saga is started first, then the tick is settled in
//! the database. A crash in between, or another node at the same time, starts it again: that is
//! the same start, because its input and id are made of the tick. A tick that can't start a saga
//! becomes a dead letter, once, and the schedule goes on.
//!
//! Invariants: a tick is settled only after its saga, or its dead letter, is committed; a node acts
//! on what the database says, not on what it remembers; a schedule that is new begins now.
//! Deliberately absent: a leader, and clocks that agree; a node that is ahead starts the tick so
//! much too early, and then it is settled for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::decode::{Undecodable, check_start};
use super::intake::Workers;
use super::work::{Job, Origin, StartAnswer, StartError, Work};
use super::worker::Node;
use crate::definition::{CatchUp, Definition, Every};
use crate::error::code;
use crate::id::Timestamp;
use crate::message::{CONTENT_TYPE_JSON, Message, Properties, START_QUEUE};
use crate::store::{DeadLetter, StoreError};

/// Most ticks of one schedule started before the others have their turn.
const TICKS_AT_ONCE: usize = 50;
/// Pause when the database or a worker could not do it.
const PAUSE: Duration = Duration::from_secs(1);

/// How far schedules have come, by name, as last read.
type Positions = BTreeMap<String, Timestamp>;

/// A tick is not done with; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Postponed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Unavailable(String),
}

impl Node {
    /// Starts sagas as schedules tick, until the stop.
    pub(super) async fn keep_schedules(self: Arc<Self>, workers: Workers) {
        let scheduled: Vec<Arc<Definition>> = self
            .catalogue
            .newest_of_all()
            .filter(|definition| definition.start.every.is_some())
            .cloned()
            .collect();
        if scheduled.is_empty() {
            return;
        }
        let mut positions = Positions::new();
        loop {
            let pause = match self.round(&scheduled, &mut positions, &workers).await {
                Ok(pause) => pause,
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
        scheduled: &[Arc<Definition>],
        positions: &mut Positions,
        workers: &Workers,
    ) -> Result<Duration, Postponed> {
        let now = self.environment.now();
        if is_due(scheduled, positions, now) {
            let rows = self.store.schedules().await?.into_iter();
            *positions = rows.map(|row| (row.name, row.settled)).collect();
        }
        let mut pause = self.options.read_clock_every;
        for definition in scheduled {
            match self.advance(definition, now, positions, workers).await {
                Ok(None) => {}
                Ok(Some(next)) => pause = pause.min(next.since(self.environment.now())),
                Err(error) => {
                    // The others are not to wait for this one.
                    tracing::warn!(saga.name = %definition.name, %error, "a tick waits; trying again");
                    pause = pause.min(PAUSE);
                }
            }
            if self.stop.is_requested() {
                break;
            }
        }
        Ok(pause)
    }

    /// Starts and settles what is due of one schedule; returns when it is to be looked at again.
    async fn advance(
        &self,
        definition: &Definition,
        now: Timestamp,
        positions: &mut Positions,
        workers: &Workers,
    ) -> Result<Option<Timestamp>, Postponed> {
        let name = &definition.name;
        let Some(every) = &definition.start.every else {
            return Ok(None);
        };
        let mut settled = match positions.get(name) {
            Some(settled) => *settled,
            None => self.store.settle(name, None, now).await?,
        };
        positions.insert(name.clone(), settled);
        let due = every.due(settled, now, TICKS_AT_ONCE);
        tell_given_up(definition, every, settled, &due);
        for tick in due {
            if settled >= tick {
                // Another node was faster.
                continue;
            }
            self.start_tick(name, every, tick, workers).await?;
            settled = self.store.settle(name, Some(settled), tick).await?;
            positions.insert(name.clone(), settled);
        }
        Ok(every.next_due(settled, now))
    }

    /// Starts the tick's saga, or keeps why that is not possible.
    async fn start_tick(
        &self,
        name: &str,
        every: &Every,
        tick: Timestamp,
        workers: &Workers,
    ) -> Result<(), Postponed> {
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
        let mut request = match check_start(&self.catalogue, name, input.clone(), None) {
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
            id: Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()),
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

/// Whether anything may be due as far as we remember: reason enough to ask the database.
fn is_due(scheduled: &[Arc<Definition>], positions: &Positions, now: Timestamp) -> bool {
    scheduled.iter().any(|definition| {
        let every = definition.start.every.as_ref();
        match (every, positions.get(&definition.name)) {
            (Some(every), Some(settled)) => {
                let next = every.next_due(*settled, now);
                next.is_some_and(|next| next <= now)
            }
            _ => true,
        }
    })
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
fn tell_given_up(definition: &Definition, every: &Every, settled: Timestamp, due: &[Timestamp]) {
    let Some(first) = due.first() else { return };
    let missed = every.next_after(settled);
    if every.catch_up != CatchUp::All && missed.is_some_and(|missed| missed < *first) {
        tracing::warn!(
            saga.name = %definition.name, since = %settled, tick = %first,
            "earlier ticks were missed and are given up, as `catch_up` says"
        );
    }
}
