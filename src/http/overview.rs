//! How all goes, on one page: the node, database and broker, what lives and what has become of sagas in the
//! last hour, how long participants take, and who takes from their queues.
//!
//! Ten open pages cost what one costs: each part is looked at by one of those who ask, and kept for the
//! others. What can't be had (the database is away, the broker does not answer) is left out and stands under
//! the node's problems.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::activity::{Hour, MinuteView, Totals};
use super::cached::Cached;
use super::problem::Problem;
use super::{Context, Shared, health};
use crate::broker::Health;
use crate::engine::StepTimes;
use crate::id::Timestamp;
use crate::saga::Status;
use crate::store::{LiveGroup, StoreError};

/// For how long an answer is good enough.
const KEPT: Duration = Duration::from_secs(1);
/// The same of queues: the broker is asked about each.
const QUEUES_KEPT: Duration = Duration::from_secs(5);
/// Most queues that are shown.
const QUEUES_MAX: usize = 200;
/// Queues that are asked about at once.
const QUEUES_AT_ONCE: usize = 8;
/// Longest time for a look at one queue, and for the look at all of them.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(1);
const QUEUES_TIME_MAX: Duration = Duration::from_secs(3);
/// Longest time for one question to the database.
const DATABASE_TIME_MAX: Duration = Duration::from_secs(2);

/// What is kept for those who look.
pub(super) struct Kept {
    started_at: Timestamp,
    hour: Mutex<Hour>,
    numbers: Cached<Numbers>,
    queues: Cached<Vec<QueueLine>>,
    overview: Cached<Overview>,
}

impl Kept {
    /// Of a node that starts at this moment.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            started_at: now,
            hour: Mutex::default(),
            numbers: Cached::new(KEPT),
            queues: Cached::new(QUEUES_KEPT),
            overview: Cached::new(KEPT),
        }
    }
}

/// What is read from the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers {
    minutes: Vec<MinuteView>,
    live: Vec<LiveLine>,
}

impl Numbers {
    /// Those that a page shows as they change.
    pub(super) fn counters(&self) -> Value {
        json!({ "outcomes": Totals::of(&self.minutes), "live": self.live })
    }
}

/// The answer of `GET /overview`.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    now: String,
    node: NodeLine,
    database: DatabaseLine,
    broker: BrokerLine,
    outcomes: Outcomes,
    live: Vec<LiveLine>,
    steps: Vec<StepLine>,
    queues: Vec<QueueLine>,
}

#[derive(Debug, Serialize)]
struct NodeLine {
    version: &'static str,
    started_at: String,
    ready: bool,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DatabaseLine {
    kind: &'static str,
    reachable: bool,
}

#[derive(Debug, Serialize)]
struct BrokerLine {
    reachable: bool,
}

#[derive(Debug, Serialize)]
struct Outcomes {
    /// Oldest first.
    minutes: Vec<MinuteView>,
    /// Of all of them together.
    totals: Totals,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LiveLine {
    name: String,
    status: Status,
    count: u64,
    /// When the one of them last moved that has not moved for the longest, RFC 3339.
    oldest: String,
}

impl From<LiveGroup> for LiveLine {
    fn from(group: LiveGroup) -> Self {
        Self {
            name: group.name,
            status: group.status,
            count: group.count,
            oldest: group.oldest.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
struct StepLine {
    saga: String,
    step: String,
    phase: &'static str,
    outcome: &'static str,
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
}

impl From<StepTimes> for StepLine {
    fn from(times: StepTimes) -> Self {
        let millis = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        Self {
            saga: times.saga,
            step: times.step,
            phase: times.phase.as_str(),
            outcome: times.outcome.as_str(),
            count: times.count,
            p50_ms: millis(times.p50),
            p99_ms: millis(times.p99),
        }
    }
}

/// A queue that commands go to by name.
#[derive(Debug, Clone, Serialize)]
pub(super) struct QueueLine {
    queue: String,
    /// Whether it exists; none if the broker did not say.
    exists: Option<bool>,
    /// Messages that wait.
    length: Option<u64>,
    consumers: Option<u64>,
    /// Definitions whose steps send to it.
    used_by: Vec<String>,
}

/// `GET /overview`.
pub(super) async fn overview(State(context): Shared) -> Result<Json<Arc<Overview>>, Problem> {
    let make = async { Ok::<_, Infallible>(look(&context).await) };
    let environment = &*context.api.environment;
    match context.overview.overview.get(environment, make).await {
        Ok(overview) => Ok(Json(overview)),
        Err(never) => match never {},
    }
}

async fn look(context: &Context) -> Overview {
    let api = &context.api;
    let (numbers, readiness, queues) = tokio::join!(
        numbers(context),
        health::readiness(context),
        queues(context)
    );
    let mut problems = readiness.problems();
    let is_reachable = numbers.is_ok();
    let (minutes, live) = match numbers {
        Ok(numbers) => (numbers.minutes.clone(), numbers.live.clone()),
        Err(error) => {
            problems.push(format!("database: {error}"));
            (Vec::new(), Vec::new())
        }
    };
    Overview {
        now: api.engine.now().to_string(),
        node: NodeLine {
            version: env!("CARGO_PKG_VERSION"),
            started_at: context.overview.started_at.to_string(),
            ready: readiness.is_ready(),
            problems,
        },
        database: DatabaseLine {
            kind: api.database,
            reachable: is_reachable,
        },
        broker: BrokerLine {
            reachable: api.engine.broker_health() == Health::Up,
        },
        outcomes: Outcomes {
            totals: Totals::of(&minutes),
            minutes,
        },
        live,
        steps: api
            .engine
            .step_times()
            .into_iter()
            .map(Into::into)
            .collect(),
        queues: queues.to_vec(),
    }
}

/// What is read from the database, for all who look at it.
pub(super) async fn numbers(context: &Context) -> Result<Arc<Numbers>, StoreError> {
    let census = &*context.api.census;
    let make = async {
        let mut hour = context.overview.hour.lock().await;
        let looking = async {
            let minutes = hour.look(census, context.api.engine.now()).await?;
            let found = census.census().await?;
            let live = found.live.into_iter().map(Into::into).collect();
            Ok(Numbers { minutes, live })
        };
        let looked = tokio::time::timeout(DATABASE_TIME_MAX, looking).await;
        looked.unwrap_or_else(|_| Err(StoreError::TooSlow("no answer in time".into())))
    };
    let environment = &*context.api.environment;
    context.overview.numbers.get(environment, make).await
}

async fn queues(context: &Context) -> Arc<Vec<QueueLine>> {
    let make = async { Ok::<_, Infallible>(ask_about_queues(context).await) };
    let environment = &*context.api.environment;
    match context.overview.queues.get(environment, make).await {
        Ok(queues) => queues,
        Err(never) => match never {},
    }
}

async fn ask_about_queues(context: &Context) -> Vec<QueueLine> {
    let broker = context.api.engine.broker();
    let mut lines: BTreeMap<String, QueueLine> = used(context)
        .into_iter()
        .take(QUEUES_MAX)
        .map(|(queue, used_by)| {
            let line = QueueLine {
                queue: queue.clone(),
                exists: None,
                length: None,
                consumers: None,
                used_by: used_by.into_iter().collect(),
            };
            (queue, line)
        })
        .collect();
    if broker.health() != Health::Up {
        return lines.into_values().collect();
    }
    let names: Vec<String> = lines.keys().cloned().collect();
    let mut looks = stream::iter(names)
        .map(|queue| async move {
            let look = tokio::time::timeout(QUEUE_TIME_MAX, broker.queue_counts(&queue)).await;
            (queue, look)
        })
        .buffer_unordered(QUEUES_AT_ONCE);
    let looking = async {
        while let Some((queue, look)) = looks.next().await {
            let (Ok(Ok(facts)), Some(line)) = (look, lines.get_mut(&queue)) else {
                continue;
            };
            line.exists = Some(facts.is_some());
            line.length = facts.as_ref().map(|facts| facts.waiting);
            line.consumers = facts.and_then(|facts| facts.consumers);
        }
    };
    // What was not seen in time stays unknown.
    let _ = tokio::time::timeout(QUEUES_TIME_MAX, looking).await;
    drop(looks);
    lines.into_values().collect()
}

/// Queues that commands are sent to by name, and the definitions that do.
fn used(context: &Context) -> BTreeMap<String, BTreeSet<String>> {
    let known = context.api.engine.catalogue().known();
    let mut used = BTreeMap::<String, BTreeSet<String>>::new();
    for definition in known.all_versions() {
        for call in definition
            .calls()
            .filter(|call| call.to.exchange.is_empty())
        {
            let by = used.entry(call.to.routing_key.clone()).or_default();
            by.insert(definition.name.clone());
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::Bundle;
    use crate::broker::Health;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_overview_says_what_lives_what_ended_and_how_long_participants_took() {
        let node = Bundle::start().await;
        for (id, second) in [("o-1", "succeeded"), ("o-2", "")] {
            node.order(id).await;
            node.answer("succeeded").await;
            if !second.is_empty() {
                node.answer(second).await;
            }
        }
        let overview = node
            .until_get("/overview", |seen| {
                let totals = &seen["outcomes"]["totals"];
                // Its parts are looked at one by one, and kept for a moment.
                totals["started"] == 2
                    && totals["completed"] == 1
                    && seen["steps"][1]["count"] == 2
                    && seen["live"][0]["status"] == "confirming"
            })
            .await;
        assert_eq!(overview["node"]["ready"], json!(true));
        assert_eq!(overview["node"]["problems"], json!([]));
        assert_eq!(
            (&overview["database"], &overview["broker"]),
            (
                &json!({ "kind": "memory", "reachable": true }),
                &json!({ "reachable": true })
            )
        );
        assert_eq!(
            overview["outcomes"]["minutes"].as_array().unwrap().len(),
            60
        );
        let live = &overview["live"][0];
        assert_eq!(
            (&live["name"], &live["status"], &live["count"]),
            (&json!("order"), &json!("confirming"), &json!(1))
        );
        let phases: Vec<&Value> = [0, 1].map(|it| &overview["steps"][it]["phase"]).into();
        assert_eq!(phases, [&json!("confirm"), &json!("reserve")]);
        assert!(overview["steps"][1]["p50_ms"].as_f64().unwrap() < 10_000.0);
        let queue = &overview["queues"][0];
        assert_eq!(
            (&queue["queue"], &queue["exists"], &queue["used_by"]),
            (&json!("payments"), &json!(true), &json!(["order"]))
        );
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_overview_is_there_while_the_broker_is_not() {
        let node = Bundle::start().await;
        *node.broker.health.lock().unwrap() = Health::Down("gone".to_owned());
        let (status, overview) = node.get("/overview").await;
        assert_eq!(
            (status, &overview["broker"]),
            (200, &json!({ "reachable": false }))
        );
        assert_eq!(overview["node"]["ready"], json!(false));
        let problem = overview["node"]["problems"][0].as_str().unwrap();
        assert!(problem.contains("gone"), "{problem}");
        assert_eq!(overview["queues"][0]["length"], Value::Null);
        node.stop().await;
    }
}
