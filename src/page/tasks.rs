//! Tasks: what sagas wait for somebody to do, and a form for the signals among them.

use askama::Template;
use axum::Form;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;

use super::act::json_of;
use super::address::segment;
use super::api::{Answer, Failure, Reader};
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::{Text, When};

/// Tasks of a page.
const TASKS_SHOWN: usize = 50;
/// Fields of the form, and what they are about.
const FIELDS: [(&str, &str, &str); 3] = [
    ("name", "Definition", "place-order"),
    ("key_prefix", "Key begins with", "order-4711"),
    ("label", "Label", "customer=ada"),
];

#[derive(Debug, Default, Deserialize)]
struct List {
    tasks: Vec<Task>,
    next: Option<Text>,
}

/// Something that a saga waits for somebody to do.
#[derive(Debug, Deserialize)]
struct Task {
    saga_id: Text,
    saga: Text,
    key: Text,
    status: Text,
    text: Text,
    r#for: Text,
    #[serde(default)]
    step: Text,
    #[serde(default)]
    signal: Text,
    since: When,
    until: When,
}

impl Task {
    fn address(&self) -> String {
        format!("/ui/sagas/{}", segment(self.saga_id.as_str()))
    }

    fn is_signal(&self) -> bool {
        self.r#for.as_str() == "signal" && !self.signal.is_empty()
    }
}

#[derive(Template)]
#[template(path = "tasks.html")]
struct TasksPage {
    shell: Shell,
    query: Query,
    list: List,
    said: Said,
}

impl TasksPage {
    fn following(&self) -> Option<String> {
        let next = self.list.next.as_ref()?;
        let query = self.query.without(&["after", "done"]);
        Some(format!(
            "/ui/tasks?{}",
            query.with("after", next.as_str()).text()
        ))
    }

    fn field(&self, name: &str) -> Text {
        Text::from(self.query.get(name))
    }

    fn filter_text(&self) -> String {
        self.query.without(&["done"]).text()
    }

    /// Whether what was typed was meant for this one.
    fn is_meant(&self, task: &Task) -> bool {
        self.said.saga == task.saga_id.as_str() && self.said.signal == task.signal.as_str()
    }

    /// What was typed for it.
    fn payload(&self, task: &Task) -> Text {
        let typed = if self.is_meant(task) {
            self.said.payload.as_str()
        } else {
            ""
        };
        Text::from(typed)
    }
}

/// What the form of a signal says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    saga: String,
    #[serde(default)]
    signal: String,
    #[serde(default)]
    payload: String,
    /// Which tasks were shown.
    #[serde(default)]
    filter: String,
    #[serde(default)]
    once: String,
}

/// `GET /ui/tasks`.
pub(super) async fn view(reader: Reader, RawQuery(asked): RawQuery) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    shown(&reader, query, Said::default(), None).await
}

async fn shown(
    reader: &Reader,
    query: Query,
    said: Said,
    failure: Option<Failure>,
) -> Result<Response, Refusal> {
    let of_list = query.without(&["done", "limit"]);
    let of_list = of_list.with("limit", &TASKS_SHOWN.to_string());
    let mut shell = Shell::new("Tasks", "/ui/tasks", reader);
    shell.failure = failure;
    if query.get("done") == "signal" {
        shell.done = Some(Text::from("The signal was sent."));
    }
    let list = match reader.get(&format!("/tasks?{}", of_list.text())).await {
        Ok(list) => list,
        // Of what is wrong with the filter, the form beside it is the place.
        Err(failure) if failure.status == 400 => {
            shell.failure = Some(failure);
            List::default()
        }
        Err(failure) => return Err(Refusal::new(reader, failure)),
    };
    Ok(page(&TasksPage {
        shell,
        query,
        list,
        said,
    }))
}

/// `POST /ui/tasks`: sends a signal.
pub(super) async fn signal(reader: Reader, Form(said): Form<Said>) -> Result<Response, Refusal> {
    let query = Query::read(Some(&said.filter));
    if let Err(failure) = send(&reader, &said).await {
        return shown(&reader, query, said, Some(failure)).await;
    }
    let to = format!("/ui/tasks?{}", query.with("done", "signal").text());
    Ok(Redirect::to(&to).into_response())
}

async fn send(reader: &Reader, said: &Said) -> Answer<Value> {
    let payload = json_of("payload", &said.payload)?.unwrap_or(Value::Null);
    let (saga, signal) = (segment(&said.saga), segment(&said.signal));
    let path = format!("/sagas/{saga}/signals/{signal}");
    reader.post_once(&path, &payload, &said.once).await
}
