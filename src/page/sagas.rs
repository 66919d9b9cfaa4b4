//! Lists of sagas: what is looked for stands in the address, and can be kept under a name.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::extract::RawQuery;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::address::segment;
use super::api::{Failure, Reader};
use super::now::Count;
use super::shell::{Refusal, Shell, page};
use super::text::{Text, When};
use super::views::{self, SavedView};

/// Parameters that say which page of a list, not which sagas.
const OF_THE_PAGE: [&str; 5] = ["after", "before", "sort", "limit", "count"];
/// What can be done to many sagas: the API's name for it and words.
pub(super) const ACTIONS: [(&str, &str); 8] = [
    ("retry", "Retry"),
    ("cancel", "Cancel"),
    ("skip", "Skip the step"),
    ("pause", "Pause"),
    ("resume", "Resume"),
    ("signal", "Send a signal"),
    ("force-complete", "Force complete"),
    ("force-compensated", "Force compensated"),
];
/// A saga's statuses, in the order of its life.
const STATUSES: [&str; 6] = [
    "running",
    "confirming",
    "compensating",
    "suspended",
    "completed",
    "compensated",
];
/// Fields of the form, and what they are about.
const FIELDS: [(&str, &str, &str); 8] = [
    ("name", "Definition", "place-order"),
    ("key_prefix", "Key begins with", "order-4711"),
    ("label", "Label", "customer=ada, amount>100"),
    ("reason", "Reason contains", "timed out"),
    ("step", "At the step", "stock"),
    ("cause", "Cause", ""),
    ("older_than", "Older than", "15m"),
    ("younger_than", "Younger than", "1h"),
];

/// A saga in a list.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub(super) saga_id: Text,
    pub(super) saga: Text,
    pub(super) version: u32,
    pub(super) key: Text,
    pub(super) status: Text,
    #[serde(default)]
    reason: Text,
    #[serde(default)]
    awaits: Option<Spot>,
    #[serde(default)]
    cause: Option<Cause>,
    pub(super) started_at: When,
    pub(super) ended_at: When,
    #[serde(default)]
    labels: BTreeMap<Text, Value>,
}

#[derive(Debug, Deserialize)]
struct Spot {
    step: Text,
    phase: Text,
}

#[derive(Debug, Deserialize)]
struct Cause {
    reason: Text,
}

impl Row {
    /// Where it is shown.
    pub(super) fn address(&self) -> String {
        format!("/ui/sagas/{}", segment(self.saga_id.as_str()))
    }

    /// What stands in its way, in words.
    fn trouble(&self) -> Text {
        let cause = self.cause.as_ref().map(|cause| &cause.reason);
        cause.unwrap_or(&self.reason).short()
    }

    /// What it is labelled with under a name.
    fn label(&self, name: &Text) -> Text {
        match self.labels.get(name) {
            Some(Value::String(text)) => Text::from(text.as_str()).short(),
            Some(value) => Text::from(value.to_string()).short(),
            None => Text::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct List {
    sagas: Vec<Row>,
    next: Option<String>,
    #[serde(default)]
    count: Option<Count>,
}

#[derive(Debug, Default, Deserialize)]
struct Definitions {
    definitions: Vec<Definition>,
}

#[derive(Debug, Deserialize)]
struct Definition {
    name: Text,
}

/// What stands in an address, without what was left empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let pairs = pairs.filter(|(_, value)| !value.is_empty());
        Self(
            pairs
                .map(|(a, b)| (a.into_owned(), b.into_owned()))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    fn has(&self, name: &str, value: &str) -> bool {
        let wanted = |(n, v): &(String, String)| n == name && v == value;
        self.0.iter().any(wanted)
    }

    /// All values of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of = move |(known, _): &&(String, String)| known == name;
        self.0.iter().filter(of).map(|(_, value)| value.as_str())
    }

    /// Without some names.
    pub(super) fn without(&self, names: &[&str]) -> Self {
        let kept = self.0.iter();
        let kept = kept.filter(|(name, _)| !names.contains(&name.as_str()));
        Self(kept.cloned().collect())
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn text(&self) -> String {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(&self.0);
        text.finish()
    }

    /// Which sagas, without which page of them.
    pub(super) fn filter(&self) -> Self {
        self.without(&OF_THE_PAGE)
    }

    /// Conditions that the form has no field for, so that it keeps them.
    fn others(&self) -> Vec<(&str, &str)> {
        let known = |name: &str| {
            name == "status"
                || name == "in_trouble"
                || OF_THE_PAGE.contains(&name)
                || FIELDS.iter().any(|(field, ..)| *field == name)
        };
        let pairs = self.0.iter().map(|(a, b)| (a.as_str(), b.as_str()));
        pairs.filter(|(name, _)| !known(name)).collect()
    }
}

#[derive(Template)]
#[template(path = "sagas.html")]
struct SagasPage {
    shell: Shell,
    query: Query,
    list: List,
    labels: Vec<Text>,
    definitions: Vec<Definition>,
    views: Vec<SavedView>,
}

impl SagasPage {
    /// The next page.
    fn following(&self) -> Option<String> {
        let next = self.list.next.as_deref()?;
        let query = self.query.without(&["after", "before"]);
        Some(format!("/ui/sagas?{}", query.with("after", next).text()))
    }

    /// The first page, if this is another one.
    fn first(&self) -> Option<String> {
        let query = self.query.without(&["after", "before"]);
        (!self.query.get("after").is_empty()).then(|| format!("/ui/sagas?{}", query.text()))
    }

    fn filter_text(&self) -> String {
        self.query.filter().text()
    }

    fn more_is_set(&self) -> bool {
        let fields = ["label", "reason", "step", "cause", "older_than"];
        fields.iter().any(|name| !self.query.get(name).is_empty())
    }

    fn field(&self, name: &str) -> Text {
        Text::from(self.query.get(name))
    }
}

/// `GET /ui/sagas`.
pub(super) async fn view(
    reader: Reader,
    RawQuery(asked): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    let counted = query.without(&["count"]).with("count", "true");
    let path = format!("/sagas?{}", counted.text());
    let (list, definitions) = tokio::join!(reader.get::<List>(&path), reader.get("/definitions"));
    let mut shell = Shell::new("Sagas", "/ui/sagas", &reader);
    let list = match list {
        Ok(list) => list,
        // Of what is wrong with the filter, the form beside it is the place.
        Err(failure) if failure.status == 400 => {
            shell.failure = Some(failure);
            List {
                sagas: Vec::new(),
                next: None,
                count: None,
            }
        }
        Err(failure) => return Err(Refusal::new(&reader, failure)),
    };
    let labels = list.sagas.iter().flat_map(|row| row.labels.keys());
    let labels: BTreeSet<&Text> = labels.collect();
    Ok(page(&SagasPage {
        shell,
        labels: labels.into_iter().cloned().collect(),
        list,
        query,
        definitions: definitions
            .map_or_else(|_: Failure| Vec::new(), |all: Definitions| all.definitions),
        views: views::saved(&headers),
    }))
}
