//! Working on a job: a few sagas, written down, and the next few.

use std::time::Duration;

use futures_util::future::join_all;

use super::{JobAction, Jobs, LOOK_EVERY};
use crate::engine::limit::within;
use crate::engine::{Addressee, OperateError, SignalError};
use crate::environment::Shutdown;
use crate::id::{SagaId, Timestamp};
use crate::saga::{OperatorAction, Status};
use crate::store::search::{Cursor, SearchPage};
use crate::store::{Filter, JobResult, JobRow, JobState, Progress, SagaHead, StoreError};

/// How long a node holds a job before another one may go on with it.
const HOLD: Duration = Duration::from_secs(5);
/// Sagas that are worked on at once.
const AT_ONCE: usize = 50;
/// Steps a second at most, when there is a rate: a slow one is kept by small steps, not by bursts.
const STEPS_A_SECOND: u32 = 5;
/// Longest time that a worker may take over one saga.
const ACT_TIME_MAX: Duration = Duration::from_secs(30);
/// Why a saga is tried again whose worker took longer.
const NO_ANSWER: &str = "no answer in time";
/// Pause when the database or a worker could not do it.
const PAUSE: Duration = Duration::from_secs(1);
/// How long those that come first may take to move on.
const CANARY_TIME_MAX: Duration = Duration::from_secs(30);
/// How often they are looked at.
const CANARY_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest refusal that is kept, in bytes.
const REFUSAL_BYTES_MAX: usize = 1_000;

/// Why a job is left to whoever comes next.
enum Left {
    /// It has changed, or come to its end.
    Over,
    /// The node stops.
    Stopping,
    /// The database.
    Store(StoreError),
}

impl From<StoreError> for Left {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A job that this node holds.
struct Held {
    row: JobRow,
    filter: Filter,
    action: JobAction,
}

impl Jobs {
    pub(super) async fn work(&self, stop: &Shutdown) {
        while !stop.is_requested() {
            let now = self.engine.now();
            let holding = self.jobs.hold_job(now, now.after(HOLD));
            match within(&*self.environment, holding).await {
                Ok(Some(row)) => self.work_on(row, stop).await,
                Ok(None) => self.pause(LOOK_EVERY, stop).await,
                Err(error) => {
                    tracing::warn!(%error, "can't look for jobs; trying again");
                    self.pause(PAUSE, stop).await;
                }
            }
        }
    }

    async fn work_on(&self, row: JobRow, stop: &Shutdown) {
        let id = row.id;
        tracing::info!(job.id = %id, done = row.done, "working on a job");
        let since = self.engine.now();
        let read = Filter::read(&row.filter, since).map_err(|error| error.to_string());
        let action = serde_json::from_str(&row.action).map_err(|error| error.to_string());
        let mut held = match (read, action) {
            (Ok(filter), Ok(action)) => Held {
                row,
                filter,
                action,
            },
            (Err(why), _) | (_, Err(why)) => {
                // Made by a newer release.
                let note = format!("this node can't read the job: {why}");
                let paused = Progress {
                    state: Some((JobState::Paused, Some(note))),
                    ..Progress::default()
                };
                let written = self.jobs.advance_job(id, row.version, since, &paused);
                if let Err(error) = within(&*self.environment, written).await {
                    tracing::warn!(job.id = %id, %error, "a job that can't be read is not paused; trying again");
                }
                return;
            }
        };
        loop {
            match self.next_few(&mut held, stop).await {
                Ok(()) => {}
                Err(Left::Over) => return,
                Err(Left::Stopping) => {
                    let given_up = Progress::default();
                    let (version, now) = (held.row.version, self.engine.now());
                    let written = self.jobs.advance_job(id, version, now, &given_up);
                    if let Err(error) = within(&*self.environment, written).await {
                        tracing::debug!(job.id = %id, %error, "another node takes the job when its hold is over");
                    }
                    return;
                }
                Err(Left::Store(error)) => {
                    tracing::warn!(job.id = %id, %error, "a job is interrupted; it goes on where it was");
                    return self.pause(PAUSE, stop).await;
                }
            }
        }
    }

    /// Works on the next few sagas and writes down what became of them.
    async fn next_few(&self, held: &mut Held, stop: &Shutdown) -> Result<(), Left> {
        if stop.is_requested() {
            return Err(Left::Stopping);
        }
        let worked = held.row.done + held.row.refused;
        let first = u64::from(held.row.canary).saturating_sub(worked);
        if held.row.canary > 0 && first == 0 && !held.row.canary_seen {
            return self.see_canary(held, stop).await;
        }
        let mut most = match held.row.per_minute {
            None => AT_ONCE,
            Some(rate) => (rate.div_ceil(60 * STEPS_A_SECOND) as usize).min(AT_ONCE),
        };
        if first > 0 {
            most = most.min(usize::try_from(first).unwrap_or(most));
        }
        let page = SearchPage {
            ascending: true,
            after: held.row.cursor.map(Cursor::Started),
            below: Some(SagaId(held.row.id)),
            ..SearchPage::newest(most)
        };
        let began = self.engine.now();
        let searching = self.search.search(&held.filter, &page);
        let heads = within(&*self.environment, searching).await?;
        if heads.is_empty() {
            let is_whole = held.row.canary == 0 || held.row.canary_seen || worked == 0;
            if !is_whole {
                // All of them came first: whether it helped is still to be seen.
                return self.see_canary(held, stop).await;
            }
            return self.end(held, JobState::Done, None).await;
        }
        let done = join_all(heads.iter().map(|head| self.act(held, head))).await;
        let at = self.engine.now();
        let mut results = Vec::new();
        for (head, done) in heads.iter().zip(done) {
            let refusal = match done {
                Ok(()) => None,
                Err(Refused::Saga(why)) => Some(shortened(why)),
                // What comes behind it is done again, which changes nothing.
                Err(Refused::Node(why)) => {
                    tracing::warn!(job.id = %held.row.id, why, "a job waits");
                    break;
                }
            };
            let saga = head.id;
            results.push(JobResult { saga, refusal, at });
        }
        let stuck = results.len() < heads.len();
        let wait = if stuck {
            PAUSE
        } else {
            held.wait(results.len(), at.since(began))
        };
        self.write(held, results, wait).await?;
        if !wait.is_zero() {
            self.pause(wait, stop).await;
        }
        Ok(())
    }

    /// Does it to one saga.
    async fn act(&self, held: &Held, saga: &SagaHead) -> Result<(), Refused> {
        let id = format!("job {}", held.row.id);
        let kind = held.action.of(saga).map_err(Refused::Saga)?;
        if let Some(kind) = kind {
            let action = OperatorAction {
                id,
                by: held.row.by.clone(),
                why: held.row.why.clone(),
                kind,
            };
            let acting = self.engine.operate(saga.id, action);
            let stuck = || Err(OperateError::Unavailable(NO_ANSWER.to_owned()));
            return match self.in_time(acting).await.unwrap_or_else(stuck) {
                Ok(()) => Ok(()),
                Err(OperateError::Refused(wrong)) => Err(Refused::Saga(wrong.to_string())),
                Err(OperateError::Unavailable(why)) => Err(Refused::Node(why)),
            };
        }
        let JobAction::Signal { signal, payload } = &held.action else {
            return Err(Refused::Saga("nothing can be done to it".to_owned()));
        };
        let to = Addressee::Saga(saga.id);
        let signalling = self.engine.signal(to, signal, id, payload.clone());
        let stuck = || Err(SignalError::Unavailable(NO_ANSWER.to_owned()));
        match self.in_time(signalling).await.unwrap_or_else(stuck) {
            Ok(_) => Ok(()),
            Err(SignalError::Refused(wrong)) => Err(Refused::Saga(wrong.to_string())),
            Err(SignalError::Unavailable(why)) => Err(Refused::Node(why)),
        }
    }

    /// What a worker answers, if it does in time.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = self.environment.sleep(ACT_TIME_MAX) => None,
        }
    }

    /// Writes down how far it has come, and holds it on through a pause.
    async fn write(
        &self,
        held: &mut Held,
        results: Vec<JobResult>,
        wait: Duration,
    ) -> Result<(), Left> {
        let now = self.engine.now();
        let progress = Progress {
            results,
            held_until: now.after(HOLD + wait),
            ..Progress::default()
        };
        self.advance(held, now, &progress).await
    }

    async fn end(
        &self,
        held: &mut Held,
        state: JobState,
        note: Option<String>,
    ) -> Result<(), Left> {
        let now = self.engine.now();
        let progress = Progress {
            state: Some((state, note)),
            ..Progress::default()
        };
        self.advance(held, now, &progress).await?;
        let JobRow {
            id, done, refused, ..
        } = held.row;
        tracing::info!(job.id = %id, done, refused, %state, "a job has come to a stop");
        Err(Left::Over)
    }

    async fn advance(
        &self,
        held: &mut Held,
        now: Timestamp,
        progress: &Progress,
    ) -> Result<(), Left> {
        let Held { row, .. } = held;
        let advanced = self.jobs.advance_job(row.id, row.version, now, progress);
        *row = within(&*self.environment, advanced)
            .await?
            .ok_or(Left::Over)?;
        Ok(())
    }

    /// Waits until those that came first are home, or have been on their way for a while. If one of them is
    /// in trouble then, still or again, a person must look. (That it has none at the first look says
    /// nothing: the participant may not have answered yet.)
    async fn see_canary(&self, held: &mut Held, stop: &Shutdown) -> Result<(), Left> {
        let began = self.engine.now();
        loop {
            let results = self.jobs.job_results(held.row.id, false, None, AT_ONCE);
            let results = within(&*self.environment, results).await?;
            let done = results.iter().filter(|result| result.refusal.is_none());
            let ids: Vec<SagaId> = done.map(|result| result.saga).collect();
            if ids.is_empty() {
                let note = "all that came first refused it; look at the results".to_owned();
                return self.end(held, JobState::Paused, Some(note)).await;
            }
            let filter = Filter {
                ids: ids.clone(),
                ..Filter::default()
            };
            let all = SearchPage::newest(AT_ONCE);
            let searching = self.search.search(&filter, &all);
            let heads = within(&*self.environment, searching).await?;
            // Where it is done they may also be told to stand still.
            let still = heads.iter().filter(|head| held.stands_in_the_way(head));
            let still: Vec<SagaId> = still.map(|head| head.id).collect();
            let are_home = heads.iter().all(|head| held.is_home(head));
            let now = self.engine.now();
            let is_time_over = now.since(began) >= CANARY_TIME_MAX;
            if still.is_empty() && (are_home || is_time_over) {
                let seen = Progress {
                    held_until: now.after(HOLD),
                    canary_seen: true,
                    ..Progress::default()
                };
                return self.advance(held, now, &seen).await;
            }
            if let Some(one) = still.first().filter(|_| is_time_over) {
                let note = format!(
                    "{} of the {} that came first are in trouble still or again, as {one} is; to go on all the same: resume",
                    still.len(),
                    ids.len()
                );
                return self.end(held, JobState::Paused, Some(note)).await;
            }
            self.write(held, Vec::new(), CANARY_LOOK_EVERY).await?;
            self.pause(CANARY_LOOK_EVERY, stop).await;
            if stop.is_requested() {
                return Err(Left::Stopping);
            }
        }
    }
}

/// Why it was not done.
enum Refused {
    /// The saga does not stand where that is possible.
    Saga(String),
    /// The node can't.
    Node(String),
}

impl Held {
    /// How long to wait so that no more sagas are worked on than the rate allows, after a step about so many
    /// that took so long. Time that was lost, with canaries say, is not made up for: that would be a flood.
    fn wait(&self, sagas: usize, took: Duration) -> Duration {
        let Some(rate) = self.row.per_minute else {
            return Duration::ZERO;
        };
        let micros = (sagas as u64).saturating_mul(60_000_000) / u64::from(rate.max(1));
        Duration::from_micros(micros).saturating_sub(took)
    }

    /// Whether a saga that came first can get into no trouble any more, as far as the action goes.
    fn is_home(&self, head: &SagaHead) -> bool {
        head.status.is_ended() || self.action.as_str() == "pause"
    }

    /// Whether a saga that came first has not been helped. What an action leads to by itself is no
    /// trouble: a pause suspends, and a cancelled saga rolls back.
    fn stands_in_the_way(&self, head: &SagaHead) -> bool {
        let JobAction::Operate(kind) = &self.action else {
            return head.status == Status::Suspended;
        };
        match kind.as_str() {
            "pause" => false,
            "retry" | "resume" => head.cause.is_some() && !head.status.is_ended(),
            _ => head.status == Status::Suspended,
        }
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REFUSAL_BYTES_MAX));
    text
}
