//! Acting on many sagas: which they are is shown before anything is done.

use askama::Template;
use axum::Form;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{Answer, Failure, Reader};
use super::cookies::keeping_name;
use super::now::Count;
use super::sagas::{ACTIONS, Query, Row};
use super::shell::{Refusal, Shell, page};
use super::text::Text;

/// How many a second are worked on when nothing else is said: what one participant on a small machine can take.
const RATE_DEFAULT: &str = "20/s";
/// What is put down for a look that changes nothing.
const LOOK: &str = "a look at what would be done";

/// What would be done, as the API says.
#[derive(Debug, Deserialize)]
struct DryRun {
    total: Count,
    sample: Vec<Row>,
}

#[derive(Template)]
#[template(path = "act.html")]
struct ActPage {
    shell: Shell,
    action: Text,
    words: &'static str,
    filter: String,
    dry_run: Answer<DryRun>,
    said: Order,
}

/// What the form says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Order {
    #[serde(default)]
    action: String,
    #[serde(default)]
    filter: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    rate: String,
    #[serde(default)]
    canary: String,
    #[serde(default)]
    reply: String,
    #[serde(default)]
    signal: String,
    #[serde(default)]
    payload: String,
    #[serde(default)]
    once: String,
}

/// `GET /ui/act?action=…`: with `all=true` what the rest of the query finds, else the sagas `id`.
pub(super) async fn preview(
    reader: Reader,
    RawQuery(asked): RawQuery,
) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    let action = query.get("action").to_owned();
    let filter = if query.get("all") == "true" {
        query.get("filter").to_owned()
    } else {
        let ids: Vec<&str> = query.all("id").collect();
        if ids.is_empty() {
            let reason = "no saga was chosen: tick some, or choose all that the filter finds";
            let failure = Failure::new(StatusCode::BAD_REQUEST, reason);
            return Err(Refusal::new(&reader, failure));
        }
        let chosen = ids
            .iter()
            .fold(Query::default(), |chosen, id| chosen.with("id", id));
        chosen.text()
    };
    let said = Order {
        action,
        filter,
        rate: RATE_DEFAULT.to_owned(),
        canary: "1".to_owned(),
        ..Order::default()
    };
    Ok(shown(&reader, said, None).await)
}

/// The view of an order, with what it would be about.
async fn shown(reader: &Reader, said: Order, failure: Option<Failure>) -> Response {
    let words = ACTIONS.iter().find(|(name, _)| *name == said.action);
    let words = words.map_or("Act", |(_, words)| *words);
    let mut look = Map::new();
    look.insert("action".into(), json!(said.action));
    look.insert("filter".into(), json!(said.filter));
    look.insert("why".into(), json!(LOOK));
    look.insert("dry_run".into(), json!(true));
    if !reader.is_signed_in {
        look.insert("by".into(), json!("the page"));
    }
    if said.action == "signal" {
        look.insert("signal".into(), json!("any"));
    }
    let dry_run = reader.post("/jobs", &Value::Object(look)).await;
    let mut shell = Shell::new(format!("{words}: many sagas"), "/ui/sagas", reader);
    shell.failure = failure;
    page(&ActPage {
        shell,
        action: Text::from(said.action.as_str()),
        words,
        filter: said.filter.clone(),
        dry_run,
        said,
    })
}

/// A job that was made.
#[derive(Deserialize)]
struct Made {
    #[serde(alias = "id")]
    job: Text,
}

/// `POST /ui/act`: makes the job.
pub(super) async fn make(reader: Reader, Form(said): Form<Order>) -> Response {
    let body = match body_of(&said) {
        Ok(body) => body,
        Err(failure) => return shown(&reader, said, Some(failure)).await,
    };
    let made: Made = match reader.post_once("/jobs", &body, &said.once).await {
        Ok(made) => made,
        Err(failure) => return shown(&reader, said, Some(failure)).await,
    };
    let to = format!("/ui/jobs/{}", super::address::segment(made.job.as_str()));
    keeping_name(Redirect::to(&to).into_response(), &said.by)
}

fn body_of(said: &Order) -> Answer<Value> {
    let mut body = Map::new();
    let mut put = |name: &str, text: &str| {
        if !text.is_empty() {
            body.insert(name.to_owned(), json!(text));
        }
    };
    put("action", &said.action);
    put("filter", &said.filter);
    put("by", &said.by);
    put("rate", &said.rate);
    put("signal", &said.signal);
    body.insert("why".to_owned(), json!(said.why));
    if !said.canary.is_empty() {
        let canary: u32 = said.canary.parse().map_err(|_| {
            let reason = "how many go first must be a whole number";
            Failure::new(StatusCode::BAD_REQUEST, reason)
        })?;
        body.insert("canary".to_owned(), json!(canary));
    }
    for (name, text) in [("reply", &said.reply), ("payload", &said.payload)] {
        if let Some(value) = json_of(name, text)? {
            body.insert(name.to_owned(), value);
        }
    }
    Ok(Value::Object(body))
}

/// What stands in a field for JSON; none if it is empty.
pub(super) fn json_of(name: &str, text: &str) -> Answer<Option<Value>> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let value = serde_json::from_str(text).map_err(|error| {
        let reason = format!("`{name}` is not JSON: {error}");
        Failure::new(StatusCode::BAD_REQUEST, reason)
    })?;
    Ok(Some(value))
}
