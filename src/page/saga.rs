//! One saga: why it stands where it stands, what is still to come, what happened, and what can be done.

mod told;

use askama::Template;
use axum::Form;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::act::json_of;
use super::address::segment;
use super::api::{Answer, Failure, Reader};
use super::cookies::keeping_name;
use super::diagram::{Diagram, Stages, Trouble};
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::{self, Text};
use told::{Drawn, Head, Letters, Saga, Step, StepStages, Steps, Timeline};

/// Steps of a page.
const STEPS_SHOWN: usize = 100;
/// Journal entries of a page.
const MOMENTS_SHOWN: usize = 50;
/// Longest journal that is verified with each look, in entries.
const VERIFIED_ENTRIES: u64 = 500;

#[derive(Template)]
#[template(path = "saga.html")]
struct SagaPage {
    shell: Shell,
    saga: Saga,
    steps: Answer<Steps>,
    timeline: Answer<Timeline>,
    query: Query,
    diagram: Option<Diagram>,
    letters: Answer<Letters>,
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
        let shown = self.steps.as_ref().map_or(&[][..], |page| &page.steps);
        let is_stuck = |step: &&Step| {
            let waiting = step.waiting.as_ref();
            waiting.is_some_and(|it| it.r#for.as_str() == "person")
        };
        let stuck = shown.iter().filter(is_stuck);
        stuck.map(|step| &step.step).collect()
    }

    /// The same view with something else in its address, at one of its parts.
    fn with(&self, name: &str, value: &str, part: &str) -> String {
        let names = match name {
            // Another part of the steps begins at their beginning.
            "step" | "stage" => &[name, "after", "done"][..],
            _ => &[name, "done"],
        };
        let query = self.query.without(names).with(name, value).text();
        format!("{}?{query}#{part}", self.address())
    }

    fn is_at(&self, name: &str) -> bool {
        !self.query.get(name).is_empty()
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
    #[serde(default)]
    once: String,
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
    let head: Head = reader
        .get(&format!("{path}?only=head"))
        .await
        .map_err(reader.refused())?;
    let is_verified = head.revision <= VERIFIED_ENTRIES || query.get("verify") == "true";
    let verify = if is_verified { "&verify=true" } else { "" };
    let summary = format!("{path}?only=summary{verify}");
    let of_steps = [("path", "step"), ("stage", "stage"), ("after", "after")];
    let of_steps = format!("{path}/steps?{}", asked(&query, STEPS_SHOWN, &of_steps));
    let of_timeline = asked(&query, MOMENTS_SHOWN, &[("before", "before")]);
    let of_timeline = format!("{path}/timeline?{of_timeline}");
    let letters = format!("/dead-letters?saga={}&limit=20", segment(id));
    let (saga, steps, timeline, letters) = tokio::join!(
        reader.get::<Saga>(&summary),
        reader.get(&of_steps),
        reader.get(&of_timeline),
        reader.get(&letters),
    );
    let saga = saga.map_err(reader.refused())?;
    let definition = format!(
        "/definitions/{}?version={}",
        segment(saga.saga.as_str()),
        saga.version
    );
    let drawn: Option<Drawn> = reader.get(&definition).await.ok();
    let diagram = drawn.map(|drawn| {
        let id = segment(saga.saga_id.as_str());
        let address = |path: &Text| {
            let step = segment(path.as_str());
            Some(format!("/ui/sagas/{id}?step={step}#steps"))
        };
        Diagram::of(
            &drawn.tree,
            &stages(&saga),
            trouble(&saga).as_ref(),
            &address,
        )
    });
    let mut shell = Shell::new(saga.key.clone(), "/ui/sagas", reader);
    shell.done = done(query.get("done"));
    shell.failure = failure;
    Ok(page(&SagaPage {
        shell,
        saga,
        steps,
        timeline,
        query,
        diagram,
        letters,
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

/// What of an address is asked of the API, under its own names.
fn asked(query: &Query, limit: usize, names: &[(&str, &str)]) -> String {
    let mut asked = Query::default().with("limit", &limit.to_string());
    for (theirs, ours) in names {
        let value = query.get(ours);
        if !value.is_empty() {
            asked = asked.with(theirs, value);
        }
    }
    asked.text()
}

fn stages(saga: &Saga) -> Stages {
    let steps = saga.stages.steps.iter();
    let of_step = |step: &StepStages| (step.step.clone(), step.stages.clone());
    steps.map(of_step).collect()
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
    Ok(keeping_name(Redirect::to(&to).into_response(), &said.by))
}

async fn send(reader: &Reader, id: &str, action: &str, said: &Said) -> Answer<Value> {
    let saga = segment(id);
    if action == "signal" {
        let payload = json_of("payload", &said.payload)?.unwrap_or(Value::Null);
        let path = format!("/sagas/{saga}/signals/{}", segment(&said.signal));
        return reader.post_once(&path, &payload, &said.once).await;
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
    let body = Value::Object(body);
    reader.post_once(&path, &body, &said.once).await
}
