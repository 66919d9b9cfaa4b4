//! *Now*: what needs somebody, first; then how the node and its surroundings do.

use askama::Template;
use axum::response::Response;
use serde::Deserialize;

use super::address::segment;
use super::api::{Answer, Reader};
use super::shell::{Refusal, Shell, page};
use super::text::{Text, When};

/// Groups of a kind that are shown; the list has the rest.
const GROUPS_SHOWN: usize = 20;
/// Height of the picture of the last hour, in its units.
const BARS_HEIGHT: u64 = 60;

/// A number that was not counted to its end.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Count {
    pub(super) sagas: u64,
    #[serde(default)]
    pub(super) or_more: bool,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.or_more { "+" } else { "" };
        write!(f, "{}{more}", self.sagas)
    }
}

impl askama::filters::HtmlSafe for Count {}

/// Sagas with one cause.
#[derive(Debug, Deserialize)]
pub(super) struct Group {
    cause: Text,
    saga: Text,
    #[serde(default)]
    step: Text,
    #[serde(default)]
    phase: Text,
    reason: Text,
    count: Count,
    oldest: When,
    last_hour: Count,
    hour_before: Count,
}

impl Group {
    /// Where the sagas of the group are listed.
    fn address(&self, statuses: &str) -> String {
        let (saga, cause) = (segment(self.saga.as_str()), segment(self.cause.as_str()));
        format!("/ui/sagas?name={saga}&cause={cause}&{statuses}")
    }

    /// Whether it grows: more came in the last hour than in the one before.
    fn trend(&self) -> &'static str {
        match self.last_hour.sagas.cmp(&self.hour_before.sagas) {
            std::cmp::Ordering::Greater => "▲ more",
            std::cmp::Ordering::Less => "▼ fewer",
            std::cmp::Ordering::Equal => "as before",
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Letters {
    #[serde(alias = "stats")]
    groups: Vec<LetterGroup>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LetterGroup {
    fingerprint: Text,
    open: u64,
    last_at: When,
    newest: NewestLetter,
}

#[derive(Debug, Deserialize)]
pub(super) struct NewestLetter {
    queue: Text,
    code: Text,
    reason: Text,
}

/// What `/readyz` says.
#[derive(Debug, Deserialize)]
#[allow(clippy::struct_field_names)] // the API's names
struct Ready {
    ready: bool,
    #[serde(default)]
    reasons: Vec<Reason>,
    #[serde(default)]
    warnings: Vec<Reason>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    part: Text,
    reason: Text,
}

/// What `/overview` says.
#[derive(Debug, Deserialize)]
pub(super) struct Overview {
    now: When,
    node: Node,
    database: Database,
    broker: Broker,
    outcomes: Outcomes,
    live: Vec<Live>,
    steps: Vec<Latency>,
    queues: Vec<Queue>,
}

#[derive(Debug, Deserialize)]
struct Node {
    version: Text,
    started_at: When,
}

#[derive(Debug, Deserialize)]
struct Database {
    kind: Text,
    reachable: bool,
}

#[derive(Debug, Deserialize)]
struct Broker {
    reachable: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Outcomes {
    #[serde(default)]
    minutes: Vec<Minute>,
}

#[derive(Debug, Default, Deserialize)]
struct Minute {
    #[serde(default)]
    at: When,
    #[serde(default)]
    started: u64,
    #[serde(default)]
    completed: u64,
    #[serde(default)]
    compensated: u64,
}

#[derive(Debug, Deserialize)]
struct Live {
    name: Text,
    status: Text,
    count: u64,
    oldest: When,
}

#[derive(Debug, Deserialize)]
struct Latency {
    saga: Text,
    step: Text,
    phase: Text,
    outcome: Text,
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Debug, Deserialize)]
#[allow(clippy::struct_field_names)] // the API's names
struct Queue {
    queue: Text,
    #[serde(default)]
    length: Option<u64>,
    #[serde(default)]
    consumers: Option<u64>,
    #[serde(default)]
    used_by: Vec<Text>,
}

impl Queue {
    /// Whether messages lie there and nobody takes them.
    fn is_left_alone(&self) -> bool {
        self.consumers == Some(0)
    }

    fn users(&self) -> String {
        let names: Vec<_> = self.used_by.iter().map(Text::as_str).collect();
        names.join(", ")
    }
}

/// A minute of the last hour, as bars.
struct Bar {
    x: usize,
    completed: (u64, u64),
    compensated: (u64, u64),
    minute: Minute,
}

impl Outcomes {
    fn totals(&self) -> (u64, u64, u64) {
        let sum = |of: fn(&Minute) -> u64| self.minutes.iter().map(of).sum();
        (
            sum(|minute| minute.started),
            sum(|minute| minute.completed),
            sum(|minute| minute.compensated),
        )
    }

    /// The minutes, each as high as what ended in it.
    fn bars(&self) -> Vec<Bar> {
        let ended = |minute: &Minute| minute.completed + minute.compensated;
        let most = self.minutes.iter().map(ended).max().unwrap_or(0).max(1);
        let height = |count: u64| (count * BARS_HEIGHT).div_ceil(most);
        self.minutes
            .iter()
            .enumerate()
            .map(|(position, minute)| {
                let (good, bad) = (height(minute.completed), height(minute.compensated));
                let good = good.min(BARS_HEIGHT);
                let bad = bad.min(BARS_HEIGHT - good);
                Bar {
                    x: position * 10,
                    completed: (BARS_HEIGHT - good, good),
                    compensated: (BARS_HEIGHT - good - bad, bad),
                    minute: Minute { ..*minute },
                }
            })
            .collect()
    }
}

#[derive(Template)]
#[template(path = "now.html")]
struct NowPage {
    shell: Shell,
    suspended: Answer<Groups>,
    failing: Answer<Groups>,
    letters: Answer<Letters>,
    ready: Answer<Ready>,
    overview: Answer<Overview>,
}

/// `GET /ui`.
pub(super) async fn view(reader: Reader) -> Result<Response, Refusal> {
    let suspended = format!("/sagas/groups?status=suspended&limit={GROUPS_SHOWN}");
    let failing = format!(
        "/sagas/groups?status=running&status=confirming&status=compensating&limit={GROUPS_SHOWN}"
    );
    let letters = format!("/dead-letters/groups?status=open&limit={GROUPS_SHOWN}");
    let (suspended, failing, letters, ready, overview) = tokio::join!(
        reader.get(&suspended),
        reader.get(&failing),
        reader.get(&letters),
        reader.get_any("/readyz"),
        reader.get("/overview"),
    );
    // Whoever may see nothing at all must sign in.
    if let Err(failure) = &suspended
        && failure.status == 401
    {
        return Err(Refusal::new(&reader, failure.clone()));
    }
    Ok(page(&NowPage {
        shell: Shell::new("Now", "/ui", &reader),
        suspended,
        failing,
        letters,
        ready,
        overview,
    }))
}
