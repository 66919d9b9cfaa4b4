//! One saga: why it stands where it stands, what is still to come, what happened, and what can be done.

use std::collections::BTreeMap;

use askama::Template;
use axum::Form;
use axum::extract::{Path, RawQuery};
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::act::json_of;
use super::api::{Answer, Failure, Reader, segment};
use super::diagram::{Diagram, Node, Stages, Trouble};
use super::sagas::Query;
use super::session::keep_name;
use super::shell::{Refusal, Shell, page};
use super::text::{self, Text, When};

/// Steps of a page.
const STEPS_SHOWN: usize = 100;
/// Journal entries of a page.
const MOMENTS_SHOWN: usize = 100;

/// A saga as the API tells it.
#[derive(Debug, Deserialize)]
struct Saga {
    saga_id: Text,
    saga: Text,
    version: u32,
    key: Text,
    status: Text,
    reason: Text,
    started_at: When,
    updated_at: When,
    ended_at: When,
    why: Option<Why>,
    description: Text,
    input: Value,
    output: Option<Value>,
    #[serde(default)]
    output_error: Text,
    deadline: When,
    #[serde(default)]
    parent: Option<Parent>,
    #[serde(default)]
    steps: Vec<Step>,
    #[serde(default)]
    signals: Vec<Signal>,
    #[serde(default)]
    timeline: Vec<Moment>,
    journal: Journal,
}

#[derive(Debug, Deserialize)]
struct Why {
    text: Text,
    r#for: Text,
    #[serde(default)]
    step: Text,
    since: When,
    until: When,
    #[serde(default)]
    trouble: Text,
    #[serde(default)]
    other_saga: Text,
    #[serde(default)]
    open_letters: Option<u64>,
    #[serde(default)]
    others: u64,
}

#[derive(Debug, Deserialize)]
struct Parent {
    saga_id: Text,
    step: Text,
}

#[derive(Debug, Deserialize)]
struct Step {
    step: Text,
    depth: usize,
    status: Text,
    #[serde(default)]
    phase: Text,
    attempt: u32,
    attempts_max: Option<u32>,
    waiting: Option<Waiting>,
    with: Option<Value>,
    reply: Option<Value>,
    #[serde(default)]
    reason: Text,
    #[serde(default)]
    commands: BTreeMap<String, Text>,
    #[serde(default)]
    child: Option<Child>,
}

#[derive(Debug, Deserialize)]
struct Waiting {
    r#for: Text,
    until: When,
}

#[derive(Debug, Deserialize)]
struct Child {
    saga_id: Text,
    saga: Text,
}

impl Step {
    /// Its path without the positions in lists.
    fn path(&self) -> Text {
        let text = self.step.as_str();
        Text::from(text.split('[').next().unwrap_or(text))
    }

    /// The command that was sent last.
    fn command(&self) -> Text {
        let known = self.commands.get(self.phase.as_str());
        known.cloned().unwrap_or_default()
    }

    fn stage(&self) -> String {
        self.status.as_str().replace('_', " ")
    }

    fn class(&self) -> &'static str {
        super::diagram::class_of_stage(self.status.as_str())
    }

    fn indent(&self) -> usize {
        self.depth.min(6)
    }
}

#[derive(Debug, Deserialize)]
struct Signal {
    name: Text,
    id: Text,
    body: Value,
    #[serde(default)]
    at: When,
}

#[derive(Debug, Deserialize)]
struct Moment {
    seq: u64,
    at: When,
    after_us: u64,
    #[serde(default)]
    cause: Text,
    events: Vec<Value>,
}

impl Moment {
    /// Since the saga started.
    fn after(&self) -> String {
        let millis = self.after_us / 1_000;
        match millis {
            0..10_000 => format!("+{millis} ms"),
            10_000..600_000 => format!("+{} s", millis / 1_000),
            600_000..36_000_000 => format!("+{} min", millis / 60_000),
            _ => format!("+{} h", millis / 3_600_000),
        }
    }

    /// What happened, in words.
    fn words(&self) -> Vec<Text> {
        let texts = self
            .events
            .iter()
            .filter_map(|event| event["text"].as_str());
        texts.map(Text::from).collect()
    }

    /// All of it, as the journal has it.
    fn events(&self) -> Text {
        let mut events = self.events.clone();
        for event in &mut events {
            if let Some(fields) = event.as_object_mut() {
                fields.remove("text");
            }
        }
        text::json(&Value::Array(events))
    }
}

#[derive(Debug, Deserialize)]
struct Journal {
    entries: u64,
    verified: bool,
    #[serde(default)]
    problem: Text,
}

#[derive(Debug, Deserialize)]
struct Drawn {
    tree: Node,
}

#[derive(Debug, Deserialize)]
struct Letters {
    dead_letters: Vec<Letter>,
}

#[derive(Debug, Deserialize)]
struct Letter {
    id: Text,
    at: When,
    queue: Text,
    status: Text,
    code: Text,
    reason: Text,
}

#[derive(Template)]
#[template(path = "saga.html")]
struct SagaPage {
    shell: Shell,
    saga: Saga,
    query: Query,
    diagram: Option<Diagram>,
    letters: Answer<Letters>,
    /// How many steps fit, of which `steps` are shown.
    steps_found: usize,
    said: Said,
}

impl SagaPage {
    fn address(&self) -> String {
        format!("/ui/sagas/{}", segment(self.saga.saga_id.as_str()))
    }

    fn is_live(&self) -> bool {
        self.saga.ended_at.is_none()
    }

    /// Steps that can be skipped or tried again alone.
    fn stuck(&self) -> Vec<&Text> {
        let stuck = |step: &&Step| {
            step.waiting
                .as_ref()
                .is_some_and(|it| it.r#for.as_str() == "person")
        };
        let steps = self.saga.steps.iter().filter(stuck);
        steps.map(|step| &step.step).take(STEPS_SHOWN).collect()
    }
}

/// What the form of an action says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    step: String,
    #[serde(default)]
    with: String,
    #[serde(default)]
    reply: String,
    #[serde(default)]
    signal: String,
    #[serde(default)]
    payload: String,
}

/// `GET /ui/sagas/{saga}`.
pub(super) async fn view(
    reader: Reader,
    Path(id): Path<String>,
    RawQuery(asked): RawQuery,
) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    shown(&reader, &id, query, Said::default(), None).await
}

async fn shown(
    reader: &Reader,
    id: &str,
    query: Query,
    said: Said,
    failure: Option<Failure>,
) -> Result<Response, Refusal> {
    let path = format!("/sagas/{}", segment(id));
    let of_saga = format!("/dead-letters?saga={}&limit=20", segment(id));
    let (saga, letters) = tokio::join!(reader.get::<Saga>(&path), reader.get(&of_saga));
    let mut saga = saga.map_err(reader.refused())?;
    let definition = format!(
        "/definitions/{}?version={}",
        segment(saga.saga.as_str()),
        saga.version
    );
    let drawn: Option<Drawn> = reader.get(&definition).await.ok();
    let diagram = drawn.map(|drawn| {
        let address = |path: &Text| Some(format!("?step={}#steps", segment(path.as_str())));
        Diagram::of(
            &drawn.tree,
            &stages(&saga),
            trouble(&saga).as_ref(),
            &address,
        )
    });
    let (wanted, stage) = (query.get("step").to_owned(), query.get("stage").to_owned());
    saga.steps.retain(|step| {
        (wanted.is_empty() || step.path().as_str() == wanted || step.step.as_str() == wanted)
            && (stage.is_empty() || step.status.as_str() == stage)
    });
    let steps_found = saga.steps.len();
    saga.steps.truncate(STEPS_SHOWN);
    saga.timeline.reverse();
    saga.timeline.truncate(MOMENTS_SHOWN);
    let mut shell = Shell::new(saga.key.clone(), "/ui/sagas", reader);
    shell.done = done(query.get("done"));
    shell.failure = failure;
    Ok(page(&SagaPage {
        shell,
        saga,
        query,
        diagram,
        letters,
        steps_found,
        said,
    }))
}

/// What was done, in words of ours: the address is anybody's.
fn done(action: &str) -> Option<Text> {
    let words = match action {
        "retry" => "It is tried again.",
        "skip" => "The step is skipped.",
        "cancel" => "It is rolled back.",
        "pause" => "It is paused.",
        "resume" => "It goes on.",
        "signal" => "The signal was sent.",
        "force-complete" | "force-compensated" => "It was ended by force.",
        _ => return None,
    };
    Some(Text::from(words))
}

fn stages(saga: &Saga) -> Stages {
    let mut stages = Stages::new();
    for step in &saga.steps {
        let of_step = stages.entry(step.path()).or_default();
        *of_step.entry(step.status.clone()).or_default() += 1;
    }
    stages
}

/// Where it is stuck, and how.
fn trouble(saga: &Saga) -> Option<Trouble> {
    let why = saga.why.as_ref()?;
    let class = match why.r#for.as_str() {
        "person" => "suspended",
        "retry" => "failing",
        _ if !why.trouble.is_empty() => "failing",
        _ => return None,
    };
    let path = why.step.as_str().split('[').next().unwrap_or_default();
    Some(Trouble {
        path: Text::from(path),
        class,
    })
}

/// `POST /ui/sagas/{saga}/{action}`.
pub(super) async fn act(
    reader: Reader,
    Path((id, action)): Path<(String, String)>,
    Form(said): Form<Said>,
) -> Result<Response, Refusal> {
    let sent = send(&reader, &id, &action, &said).await;
    if let Err(failure) = sent {
        return shown(&reader, &id, Query::default(), said, Some(failure)).await;
    }
    let to = format!("/ui/sagas/{}?done={}", segment(&id), segment(&action));
    let mut response = Redirect::to(&to).into_response();
    if let Some(cookie) = keep_name(&said.by).filter(|_| !said.by.is_empty()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn send(reader: &Reader, id: &str, action: &str, said: &Said) -> Answer<Value> {
    let saga = segment(id);
    if action == "signal" {
        let payload = json_of("payload", &said.payload)?.unwrap_or(Value::Null);
        let path = format!("/sagas/{saga}/signals/{}", segment(&said.signal));
        return reader.post(&path, &payload).await;
    }
    let mut body = Map::new();
    body.insert("why".to_owned(), json!(said.why));
    if !said.by.is_empty() {
        body.insert("by".to_owned(), json!(said.by));
    }
    let is_of_a_step = action == "skip" || (action == "retry" && !said.step.is_empty());
    if is_of_a_step {
        body.insert("step".to_owned(), json!(said.step));
    }
    for (name, text, only) in [
        ("with", &said.with, "retry"),
        ("reply", &said.reply, "skip"),
    ] {
        if let Some(value) = json_of(name, text)?.filter(|_| action == only) {
            body.insert(name.to_owned(), value);
        }
    }
    let path = format!("/sagas/{saga}/{}", segment(action));
    reader.post(&path, &Value::Object(body)).await
}
