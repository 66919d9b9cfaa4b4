//! Jobs on an engine of this process.

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::definition::parse;
use crate::engine::{EngineOptions, EngineParts, StartAnswer};
use crate::environment::TokioEnvironment;
use crate::id::{SagaId, Timestamp};
use crate::saga::{OperatorKind, Status};
use crate::store::dead_letters::Actor;
use crate::store::memory::MemoryStore;
use crate::store::search::BoundedCount;
use crate::store::{Filter, JobCommand, JobResult, JobRow, JobState, Store};

const APPROVAL: &str = "
saga: approval
version: 1
key: ${ input.id }
steps:
  - wait: approved
    timeout: none
";

struct Bundle {
    store: MemoryStore,
    engine: Arc<Engine>,
}

impl Bundle {
    async fn start() -> Self {
        let store = MemoryStore::new();
        let engine = Engine::start(EngineParts {
            environment: Arc::new(TokioEnvironment),
            store: Arc::new(store.clone()),
            broker: Arc::new(MemoryBroker::new()),
            definitions: vec![parse(APPROVAL, "approval.yaml").unwrap().into()],
            options: EngineOptions::default(),
        });
        let engine = engine.await.unwrap();
        Self { store, engine }
    }

    fn jobs(&self) -> Jobs {
        Jobs {
            environment: Arc::new(TokioEnvironment),
            engine: Arc::clone(&self.engine),
            search: Arc::new(self.store.clone()),
            jobs: Arc::new(self.store.clone()),
        }
    }

    async fn sagas(&self, ids: std::ops::Range<usize>) {
        for number in ids {
            let started = self
                .engine
                .start_saga("approval", json!({ "id": number.to_string() }));
            assert!(matches!(started.await, Ok(StartAnswer::Started(_))));
        }
    }

    async fn put(&self, action: &JobAction, change: impl FnOnce(&mut JobRow)) -> Uuid {
        let now = self.engine.now();
        let mut job = JobRow {
            id: self.engine.new_id(),
            made_at: now,
            by: "ann".to_owned(),
            why: "night shift".to_owned(),
            filter: "name=approval&status=live".to_owned(),
            action: serde_json::to_string(action).unwrap(),
            per_minute: None,
            canary: 0,
            total: BoundedCount::default(),
            state: JobState::Running,
            note: None,
            cursor: None,
            done: 0,
            refused: 0,
            canary_seen: false,
            version: 0,
            held_until: Timestamp::default(),
            updated_at: now,
        };
        change(&mut job);
        self.store.put_job(&job).await.unwrap();
        job.id
    }

    async fn job(&self, id: Uuid) -> JobRow {
        self.store.job(id).await.unwrap().unwrap()
    }

    async fn until(&self, id: Uuid, is_it: impl Fn(&JobRow) -> bool) -> JobRow {
        let come = async {
            loop {
                let job = self.job(id).await;
                if is_it(&job) {
                    return job;
                }
                tokio::task::yield_now().await;
            }
        };
        let come = tokio::time::timeout(Duration::from_mins(1), come).await;
        come.expect("the job comes there")
    }

    async fn results(&self, id: Uuid) -> Vec<JobResult> {
        self.store
            .job_results(id, false, None, 1_000)
            .await
            .unwrap()
    }

    async fn count(&self, status: &str) -> u64 {
        let filter = Filter::read(&format!("status={status}"), self.engine.now()).unwrap();
        self.store.count(&filter, 1_000).await.unwrap().sagas
    }
}

fn approve() -> JobAction {
    JobAction::Signal {
        signal: "approved".to_owned(),
        payload: Value::Null,
    }
}

#[tokio::test]
async fn a_job_does_it_to_each_saga_that_fits_and_began_before_it() {
    let bundle = Bundle::start().await;
    bundle.sagas(0..120).await;
    let id = bundle.put(&approve(), |_| {}).await;
    bundle.sagas(120..125).await;
    let stop = Shutdown::default();
    let working = bundle.jobs().start(stop.clone());
    let job = bundle.until(id, |job| job.state == JobState::Done).await;
    assert_eq!((job.done, job.refused), (120, 0));
    let results = bundle.results(id).await;
    assert_eq!(results.len(), 120);
    assert!(results.is_sorted_by_key(|result| result.saga));
    assert_eq!(bundle.count("completed").await, 120);
    assert_eq!(bundle.count("live").await, 5, "those began later");
    stop.request();
    working.ended().await;
    bundle.engine.stop().await;
}

#[tokio::test]
async fn who_refuses_is_kept_with_the_reason_and_the_others_go_on() {
    let bundle = Bundle::start().await;
    bundle.sagas(0..10).await;
    let retry = JobAction::Operate(OperatorKind::Retry {
        step: None,
        with: None,
    });
    let id = bundle.put(&retry, |_| {}).await;
    let stop = Shutdown::default();
    let working = bundle.jobs().start(stop.clone());
    let job = bundle.until(id, |job| job.state == JobState::Done).await;
    assert_eq!(
        (job.done, job.refused),
        (0, 10),
        "nothing waits for a person"
    );
    let results = bundle.results(id).await;
    assert!(results.iter().all(|result| result.refusal.is_some()));
    stop.request();
    working.ended().await;
    bundle.engine.stop().await;
}

#[tokio::test]
async fn another_node_goes_on_where_one_has_stopped_and_nothing_is_done_twice() {
    let bundle = Bundle::start().await;
    bundle.sagas(0..60).await;
    let pause = JobAction::Operate(OperatorKind::Pause);
    let id = bundle.put(&pause, |job| job.per_minute = Some(6_000)).await;
    let stop = Shutdown::default();
    let first = bundle.jobs().start(stop.clone());
    bundle.until(id, |job| job.done >= 20).await;
    stop.request();
    first.ended().await;
    let left = bundle.job(id).await;
    assert!((20..60).contains(&left.done), "{} of 60", left.done);
    // As if it had died before it could write down what it had done.
    let all = crate::store::ListFilter {
        limit: 100,
        ..crate::store::ListFilter::default()
    };
    let heads = bundle.store.list(&all).await.unwrap();
    let next = heads
        .iter()
        .map(|head| head.id)
        .filter(|id| Some(*id) > left.cursor)
        .min();
    let again = crate::saga::OperatorAction {
        id: format!("job {id}"),
        by: "ann".to_owned(),
        why: "night shift".to_owned(),
        kind: OperatorKind::Pause,
    };
    let next: SagaId = next.unwrap();
    bundle.engine.operate(next, again).await.unwrap();
    let stop = Shutdown::default();
    let second = bundle.jobs().start(stop.clone());
    let job = bundle.until(id, |job| job.state == JobState::Done).await;
    assert_eq!((job.done, job.refused), (60, 0));
    assert_eq!(bundle.count("suspended").await, 60);
    let heads = bundle.store.list(&all).await.unwrap();
    let head = heads.iter().find(|head| head.id == next).unwrap();
    assert_eq!((head.status, head.revision), (Status::Suspended, 2), "once");
    stop.request();
    second.ended().await;
    bundle.engine.stop().await;
}

#[tokio::test]
async fn a_person_stops_it_at_the_saga_that_is_worked_on() {
    let bundle = Bundle::start().await;
    bundle.sagas(0..100).await;
    let id = bundle
        .put(&approve(), |job| job.per_minute = Some(600))
        .await;
    let stop = Shutdown::default();
    let working = bundle.jobs().start(stop.clone());
    bundle.until(id, |job| job.done >= 2).await;
    let ann = Actor {
        by: "ann".to_owned(),
        why: "wait".to_owned(),
        at: bundle.engine.now(),
    };
    let say = async |command| bundle.store.command_job(id, command, &ann).await.unwrap();
    let paused = say(JobCommand::Pause).await.unwrap();
    assert_eq!(paused.state, JobState::Paused);
    say(JobCommand::Abort).await.unwrap();
    stop.request();
    working.ended().await;
    let job = bundle.job(id).await;
    assert_eq!((job.state, job.done), (JobState::Aborted, paused.done));
    let left = bundle.count("live").await;
    // What was under way at that moment is done, and the rest is not.
    assert!(left >= 90, "{left} are left");
    bundle.engine.stop().await;
}

#[tokio::test]
async fn a_job_that_a_newer_release_has_made_waits_for_it() {
    let bundle = Bundle::start().await;
    bundle.sagas(0..1).await;
    let id = bundle
        .put(&approve(), |job| job.action = "\"teleport\"".to_owned())
        .await;
    let stop = Shutdown::default();
    let working = bundle.jobs().start(stop.clone());
    let job = bundle.until(id, |job| job.state == JobState::Paused).await;
    assert!(job.note.unwrap().contains("can't read"));
    stop.request();
    working.ended().await;
    bundle.engine.stop().await;
}
