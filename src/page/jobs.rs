//! Jobs: one action on many sagas, how far it has come, and what became of each.

use askama::Template;
use axum::Form;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::address::segment;
use super::api::{Answer, Failure, Reader};
use super::cookies::keeping_name;
use super::now::Count;
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::{Text, When};

/// Jobs of a page.
const JOBS_SHOWN: usize = 50;
/// Results of a page.
const RESULTS_SHOWN: usize = 100;

#[derive(Debug, Deserialize)]
struct Job {
    id: Text,
    state: Text,
    note: Text,
    action: Text,
    filter: String,
    by: Text,
    why: Text,
    rate: Text,
    canary: u64,
    total: Count,
    done: u64,
    refused: u64,
    made_at: When,
    updated_at: When,
}

impl Job {
    fn address(&self) -> String {
        format!("/ui/jobs/{}", segment(self.id.as_str()))
    }

    /// The filter, as a list's address has it.
    fn list_address(&self) -> String {
        format!("/ui/sagas?{}", Query::read(Some(&self.filter)).text())
    }

    fn filter_words(&self) -> Text {
        Text::from(self.filter.as_str())
    }

    /// Sagas that it is through with.
    fn through(&self) -> u64 {
        self.done + self.refused
    }

    /// All that there are, as far as is known.
    fn most(&self) -> u64 {
        self.total.sagas.max(self.through()).max(1)
    }

    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "aborted")
    }

    /// How its state looks.
    fn class(&self) -> &'static str {
        match self.state.as_str() {
            "running" => "running",
            "paused" => "warn",
            "done" => "good",
            _ => "bad",
        }
    }
}

#[derive(Debug, Deserialize)]
struct List {
    jobs: Vec<Job>,
    next: Option<Text>,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    shell: Shell,
    list: List,
}

/// `GET /ui/jobs`.
pub(super) async fn list(reader: Reader, RawQuery(asked): RawQuery) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    let mut of_list = Query::default().with("limit", &JOBS_SHOWN.to_string());
    if !query.get("before").is_empty() {
        of_list = of_list.with("before", query.get("before"));
    }
    let path = format!("/jobs?{}", of_list.text());
    let list = reader.get(&path).await.map_err(reader.refused())?;
    let shell = Shell::new("Jobs", "/ui/jobs", &reader);
    Ok(page(&JobsPage { shell, list }))
}

#[derive(Debug, Default, Deserialize)]
struct Results {
    results: Vec<Outcome>,
    next: Option<Text>,
}

/// What became of one saga.
#[derive(Debug, Deserialize)]
struct Outcome {
    saga_id: Text,
    refused: Text,
    at: When,
}

impl Outcome {
    fn address(&self) -> String {
        format!("/ui/sagas/{}", segment(self.saga_id.as_str()))
    }
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    shell: Shell,
    job: Job,
    results: Answer<Results>,
    only_refused: bool,
    said: Said,
}

impl JobPage {
    fn following(&self) -> Option<String> {
        let next = self.results.as_ref().ok()?.next.as_ref()?;
        let mut query = Query::default().with("after", next.as_str());
        if self.only_refused {
            query = query.with("refused", "true");
        }
        Some(format!("{}?{}", self.job.address(), query.text()))
    }
}

/// What the form of a command says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    once: String,
}

/// `GET /ui/jobs/{job}`.
pub(super) async fn view(
    reader: Reader,
    Path(id): Path<String>,
    RawQuery(asked): RawQuery,
) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    shown(&reader, &id, &query, Said::default(), None).await
}

async fn shown(
    reader: &Reader,
    id: &str,
    query: &Query,
    said: Said,
    failure: Option<Failure>,
) -> Result<Response, Refusal> {
    let path = format!("/jobs/{}", segment(id));
    let only_refused = query.get("refused") == "true";
    let mut asked = Query::default().with("limit", &RESULTS_SHOWN.to_string());
    if only_refused {
        asked = asked.with("refused", "true");
    }
    if !query.get("after").is_empty() {
        asked = asked.with("after", query.get("after"));
    }
    let of_results = format!("{path}/results?{}", asked.text());
    let (job, results) = tokio::join!(reader.get::<Job>(&path), reader.get(&of_results));
    let job = job.map_err(reader.refused())?;
    let title = Text::from(format!("Job: {}", job.action));
    let mut shell = Shell::new(title, "/ui/jobs", reader);
    shell.failure = failure;
    shell.done = match query.get("done") {
        "pause" => Some(Text::from("It is paused.")),
        "resume" => Some(Text::from("It goes on.")),
        "abort" => Some(Text::from("It is given up; what was done stays done.")),
        _ => None,
    };
    Ok(page(&JobPage {
        shell,
        job,
        results,
        only_refused,
        said,
    }))
}

/// `POST /ui/jobs/{job}/{command}`.
pub(super) async fn command(
    reader: Reader,
    Path((id, command)): Path<(String, String)>,
    Form(said): Form<Said>,
) -> Result<Response, Refusal> {
    let mut body = Map::new();
    body.insert("why".to_owned(), json!(said.why));
    if !said.by.is_empty() {
        body.insert("by".to_owned(), json!(said.by));
    }
    let (job, command) = (segment(&id), segment(&command));
    let path = format!("/jobs/{job}/{command}");
    let body = Value::Object(body);
    let sent: Answer<Value> = reader.post_once(&path, &body, &said.once).await;
    if let Err(failure) = sent {
        return shown(&reader, &id, &Query::default(), said, Some(failure)).await;
    }
    let to = format!("/ui/jobs/{job}?done={command}");
    Ok(keeping_name(Redirect::to(&to).into_response(), &said.by))
}
