//! Schedules: how far each has come, its next ticks, and setting it back, on, or to rest.

use askama::Template;
use axum::Form;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::address::segment;
use super::api::{Answer, Failure, Reader};
use super::cookies::keeping_name;
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::{Text, When};

/// A position that no schedule reaches: nothing ticks before it.
const NEVER: &str = "9000-01-01T00:00:00Z";

#[derive(Debug, Deserialize)]
struct All {
    /// The time by which they tick.
    now: Text,
    schedules: Vec<Schedule>,
}

#[derive(Debug, Deserialize)]
struct Schedule {
    saga: Text,
    rhythm: Text,
    position: When,
    #[serde(default)]
    ahead_of_time: bool,
    #[serde(default)]
    absent_since: When,
    #[serde(default)]
    moved: Option<Moved>,
    #[serde(default)]
    next: Vec<When>,
}

/// Who set a position.
#[derive(Debug, Deserialize)]
struct Moved {
    by: Text,
    why: Text,
    at: When,
}

impl Schedule {
    fn address(&self) -> String {
        format!("/ui/schedules/{}", segment(self.saga.as_str()))
    }
}

#[derive(Template)]
#[template(path = "schedules.html")]
struct SchedulesPage {
    shell: Shell,
    all: All,
    said: Said,
}

impl SchedulesPage {
    /// Whether what was typed was meant for this one.
    fn is_meant(&self, schedule: &Schedule) -> bool {
        self.said.name == schedule.saga.as_str() && self.said.rhythm == schedule.rhythm.as_str()
    }
}

/// What the form of a schedule says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(skip)]
    name: String,
    #[serde(default)]
    rhythm: String,
    #[serde(default)]
    to: String,
    /// `pause`, `go-on`, or to set it to `to`.
    #[serde(default)]
    what: String,
    /// The time when the page was made.
    #[serde(default)]
    now: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    once: String,
}

/// `GET /ui/schedules`.
pub(super) async fn view(reader: Reader, RawQuery(asked): RawQuery) -> Result<Response, Refusal> {
    let done = Query::read(asked.as_deref()).get("done") == "moved";
    shown(&reader, Said::default(), done, None).await
}

async fn shown(
    reader: &Reader,
    said: Said,
    done: bool,
    failure: Option<Failure>,
) -> Result<Response, Refusal> {
    let all = reader.get("/schedules").await.map_err(reader.refused())?;
    let mut shell = Shell::new("Schedules", "/ui/schedules", reader);
    shell.failure = failure;
    shell.done = done.then(|| Text::from("The position is set."));
    Ok(page(&SchedulesPage { shell, all, said }))
}

/// `POST /ui/schedules/{saga}`: sets the position.
pub(super) async fn set(
    reader: Reader,
    Path(name): Path<String>,
    Form(said): Form<Said>,
) -> Result<Response, Refusal> {
    let said = Said { name, ..said };
    if let Err(failure) = send(&reader, &said).await {
        return shown(&reader, said, false, Some(failure)).await;
    }
    let response = Redirect::to("/ui/schedules?done=moved").into_response();
    Ok(keeping_name(response, &said.by))
}

async fn send(reader: &Reader, said: &Said) -> Answer<Value> {
    let to = match said.what.as_str() {
        "pause" => NEVER,
        "go-on" => &said.now,
        _ => &said.to,
    };
    let mut body = Map::new();
    body.insert("to".to_owned(), json!(to));
    body.insert("rhythm".to_owned(), json!(said.rhythm));
    body.insert("why".to_owned(), json!(said.why));
    if !said.by.is_empty() {
        body.insert("by".to_owned(), json!(said.by));
    }
    let path = format!("/schedules/{}", segment(&said.name));
    let body = Value::Object(body);
    reader.post_once(&path, &body, &said.once).await
}
