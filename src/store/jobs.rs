//! Jobs: one action on many sagas, kept so that any node can go on with it.
//!
//! A node holds a job for a while at a time; if it dies, the next one goes on behind the last saga that
//! was written down. Every change names the version it was decided on, so a node whose hold has passed
//! to another, or whose job a person has paused, finds that out before it writes. Making a job and
//! stopping it are entries of the audit log.
//!
//! Deliberately absent: what an action is, and how fast it is done. Filter and action are text here.

use async_trait::async_trait;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::StoreError;
use super::dead_letters::Actor;
use super::dead_letters::audit::Unlinked;
use super::rows::{number, parsed};
use super::search::BoundedCount;
use crate::id::{SagaId, Timestamp};

/// Most jobs, and most results, of a page.
pub const JOB_ROWS_MAX: usize = 1_000;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Its id; sagas that started after it have larger ones and are not its business.
    pub id: Uuid,
    /// When it was made.
    pub made_at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why.
    pub why: String,
    /// Which sagas, as text.
    pub filter: String,
    /// What is done to each, as text.
    pub action: String,
    /// Most sagas a minute.
    pub per_minute: Option<u32>,
    /// How many come first, to see whether it helps.
    pub canary: u32,
    /// How many sagas fitted when it was made.
    pub total: BoundedCount,
    /// Where it stands.
    pub state: JobState,
    /// Why it stands there.
    pub note: Option<String>,
    /// The last saga that is done with.
    pub cursor: Option<SagaId>,
    /// To how many sagas it was done.
    pub done: u64,
    /// How many have refused it.
    pub refused: u64,
    /// Whether those that come first were found well.
    pub canary_seen: bool,
    /// Counts its changes.
    pub version: u64,
    /// Until when a node holds it.
    pub held_until: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Nodes work on it.
    Running,
    /// A person must say that it goes on.
    Paused,
    /// It has come to its end.
    Done,
    /// A person has ended it.
    Aborted,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Done, Self::Aborted];

    /// The name in the database and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Aborted => "aborted",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Aborted)
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for JobState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|state| state.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not the state of a job"))
    }
}

/// What became of one saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobResult {
    /// The saga.
    pub saga: SagaId,
    /// Why it was not done to it, if it was not.
    pub refusal: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// How far a node has come with a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What became of sagas, in order of id; the last one is the job's new cursor.
    pub results: Vec<JobResult>,
    /// Until when the node holds the job from now on.
    pub held_until: Timestamp,
    /// Where the job stands now, and why, if that changes.
    pub state: Option<(JobState, Option<String>)>,
    /// Those that come first were found well.
    pub canary_seen: bool,
}

/// What a person says about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobCommand {
    /// Stand still.
    Pause,
    /// Go on, also when its first sagas did not come home.
    Resume,
    /// End.
    Abort,
}

impl JobCommand {
    /// From which states, and to which.
    fn moves(self, state: JobState) -> Option<JobState> {
        match (self, state) {
            (Self::Pause, JobState::Running) => Some(JobState::Paused),
            (Self::Resume, JobState::Paused) => Some(JobState::Running),
            (Self::Abort, JobState::Running | JobState::Paused) => Some(JobState::Aborted),
            _ => None,
        }
    }

    fn audited(self) -> &'static str {
        match self {
            Self::Pause => "job-pause",
            Self::Resume => "job-resume",
            Self::Abort => "job-abort",
        }
    }
}

/// Keeps jobs. See the module's documentation for the invariants.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Keeps a new job, with an entry in the audit log.
    async fn put_job(&self, job: &JobRow) -> Result<(), StoreError>;

    /// A job.
    async fn job(&self, id: Uuid) -> Result<Option<JobRow>, StoreError>;

    /// Jobs, newest first.
    async fn jobs(&self, before: Option<Uuid>, limit: usize) -> Result<Vec<JobRow>, StoreError>;

    /// A running job that no node holds; from now on the caller does, until that time.
    async fn hold_job(
        &self,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<JobRow>, StoreError>;

    /// Writes down how far a job has come, and returns it as it is then; `None` if it has changed since
    /// `version`, or is not running.
    async fn advance_job(
        &self,
        id: Uuid,
        version: u64,
        at: Timestamp,
        progress: &Progress,
    ) -> Result<Option<JobRow>, StoreError>;

    /// Does as a person says, with an entry in the audit log, and returns the job; `None` if there is no
    /// such job. One that stands where that is not possible is returned as it is.
    async fn command_job(
        &self,
        id: Uuid,
        command: JobCommand,
        actor: &Actor,
    ) -> Result<Option<JobRow>, StoreError>;

    /// What became of a job's sagas, in order of id; all, or those that refused.
    async fn job_results(
        &self,
        id: Uuid,
        only_refused: bool,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<JobResult>, StoreError>;
}

impl JobRow {
    /// The job after a node has come further; `None` if that node is not the one to say so.
    pub(super) fn advanced(&self, version: u64, at: Timestamp, to: &Progress) -> Option<Self> {
        if self.version != version || self.state != JobState::Running {
            return None;
        }
        let (state, note) = to
            .state
            .clone()
            .unwrap_or((JobState::Running, self.note.clone()));
        let refused = to.results.iter().filter(|it| it.refusal.is_some()).count() as u64;
        let last = to.results.last().map(|result| result.saga);
        Some(Self {
            state,
            note,
            cursor: last.or(self.cursor),
            done: self.done + to.results.len() as u64 - refused,
            refused: self.refused + refused,
            canary_seen: self.canary_seen || to.canary_seen,
            version: version + 1,
            held_until: to.held_until,
            updated_at: at,
            ..self.clone()
        })
    }

    /// The job after what a person has said; `None` if that changes nothing.
    pub(super) fn commanded(&self, command: JobCommand, actor: &Actor) -> Option<Self> {
        let state = command.moves(self.state)?;
        Some(Self {
            state,
            note: Some(format!("{state} by {}: {}", actor.by, actor.why)),
            // Whoever lets it go on has seen those that came first.
            canary_seen: self.canary_seen || command == JobCommand::Resume,
            version: self.version + 1,
            held_until: Timestamp::default(),
            updated_at: actor.at,
            ..self.clone()
        })
    }

    /// Who made it.
    pub(super) fn maker(&self) -> Actor {
        Actor {
            by: self.by.clone(),
            why: self.why.clone(),
            at: self.made_at,
        }
    }
}

/// The audit log's entry about a new job.
pub(super) fn made(job: &JobRow) -> Unlinked {
    Unlinked {
        action: "job-create",
        letter: None,
        detail: serde_json::json!({
            "job": job.id,
            "filter": job.filter,
            "action": job.action,
        }),
    }
}

/// The audit log's entry about what a person said.
pub(super) fn commanded(job: &JobRow, command: JobCommand) -> Unlinked {
    Unlinked {
        action: command.audited(),
        letter: None,
        detail: serde_json::json!({ "job": job.id }),
    }
}

/// The columns of a [`JobColumns`].
macro_rules! job_columns {
    () => {
        "id, made_at, by, why, filter, action, per_minute, canary, total, total_or_more, state, \
         note, cursor, done, refused, canary_seen, version, held_until, updated_at"
    };
}
pub(super) use job_columns;

/// A job's row.
pub(super) struct JobColumns(JobRow);

impl<'r, R> FromRow<'r, R> for JobColumns
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        let id: Uuid = row.try_get(0)?;
        let damaged = |error: StoreError| sqlx::Error::Decode(error.into());
        let what = || format!("job {id}");
        let count = |place: usize| -> sqlx::Result<u64> {
            number(row.try_get(place)?, what).map_err(damaged)
        };
        let time = |place: usize| -> sqlx::Result<Timestamp> {
            Ok(Timestamp::from_micros(row.try_get(place)?))
        };
        let per_minute: Option<i64> = row.try_get(6)?;
        let per_minute = per_minute.map(|rate| number(rate, what)).transpose();
        let cursor: Option<Uuid> = row.try_get(12)?;
        Ok(Self(JobRow {
            id,
            made_at: time(1)?,
            by: row.try_get(2)?,
            why: row.try_get(3)?,
            filter: row.try_get(4)?,
            action: row.try_get(5)?,
            per_minute: per_minute.map_err(damaged)?,
            canary: number(row.try_get(7)?, what).map_err(damaged)?,
            total: BoundedCount {
                sagas: count(8)?,
                or_more: row.try_get(9)?,
            },
            state: parsed(&row.try_get::<String, _>(10)?, what).map_err(damaged)?,
            note: row.try_get(11)?,
            cursor: cursor.map(SagaId),
            done: count(13)?,
            refused: count(14)?,
            canary_seen: row.try_get(15)?,
            version: count(16)?,
            held_until: time(17)?,
            updated_at: time(18)?,
        }))
    }
}

impl From<JobColumns> for JobRow {
    fn from(columns: JobColumns) -> Self {
        columns.0
    }
}

/// `saga_id, refused, reason, at` of `job_results`.
pub(super) type ResultColumns = (Uuid, bool, Option<String>, i64);

/// A result from its columns.
pub(super) fn result((saga, refused, reason, at): ResultColumns) -> JobResult {
    JobResult {
        saga: SagaId(saga),
        refusal: refused.then(|| reason.unwrap_or_default()),
        at: Timestamp::from_micros(at),
    }
}
