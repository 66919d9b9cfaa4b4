//! Definitions: which there are and who lives by them, each as a picture and as it was written, and a form to start one.

use askama::Template;
use axum::Form;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::act::json_of;
use super::address::segment;
use super::api::{Answer, Failure, Reader};
use super::diagram::{Diagram, Node, Stages};
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::{self, Text, When};

/// Deepest part of a schema that an example is made of.
const EXAMPLE_DEPTH_MAX: usize = 8;

#[derive(Debug, Deserialize)]
struct All {
    definitions: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    name: Text,
    version: u32,
    starts: Option<u32>,
    #[serde(default)]
    description: Text,
    versions: Vec<Version>,
}

#[derive(Debug, Deserialize)]
#[allow(clippy::struct_field_names)] // the API's names
struct Version {
    version: u32,
    live: u64,
    #[serde(default)]
    or_more: bool,
}

impl Version {
    fn live(&self) -> String {
        let more = if self.or_more { "+" } else { "" };
        format!("{}{more}", self.live)
    }
}

impl Line {
    fn address(&self) -> String {
        format!("/ui/definitions/{}", segment(self.name.as_str()))
    }

    fn lives_by(&self, version: &Version) -> String {
        let name = segment(self.name.as_str());
        format!(
            "/ui/sagas?name={name}&version={}&status=live",
            version.version
        )
    }
}

#[derive(Template)]
#[template(path = "definitions.html")]
struct ListPage {
    shell: Shell,
    all: All,
}

/// `GET /ui/definitions`.
pub(super) async fn list(reader: Reader) -> Result<Response, Refusal> {
    let all = reader.get("/definitions").await.map_err(reader.refused())?;
    Ok(page(&ListPage {
        shell: Shell::new("Definitions", "/ui/definitions", &reader),
        all,
    }))
}

/// One version.
#[derive(Debug, Deserialize)]
struct Shown {
    name: Text,
    version: u32,
    #[serde(default)]
    description: Text,
    known_since: When,
    source: Text,
    #[serde(default)]
    problem: Text,
    #[serde(default)]
    key: Text,
    #[serde(default)]
    labels: Vec<Label>,
    #[serde(default)]
    input_schema: Option<Value>,
    #[serde(default)]
    tree: Option<Node>,
}

#[derive(Debug, Deserialize)]
struct Label {
    name: Text,
    value: Text,
}

#[derive(Template)]
#[template(path = "definition.html")]
struct DefinitionPage {
    shell: Shell,
    shown: Shown,
    line: Option<Line>,
    diagram: Option<Diagram>,
    input: Text,
}

/// What the form for a start says.
#[derive(Debug, Deserialize)]
pub(super) struct Start {
    #[serde(default)]
    input: String,
}

/// `GET /ui/definitions/{name}`.
pub(super) async fn view(
    reader: Reader,
    Path(name): Path<String>,
    RawQuery(asked): RawQuery,
) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    shown(&reader, &name, query.get("version"), None, None).await
}

async fn shown(
    reader: &Reader,
    name: &str,
    version: &str,
    input: Option<String>,
    failure: Option<Failure>,
) -> Result<Response, Refusal> {
    let name = segment(name);
    let asked = match version {
        "" => String::new(),
        version => format!("?version={}", segment(version)),
    };
    let (one, all) = (
        format!("/definitions/{name}{asked}"),
        format!("/definitions?name={name}"),
    );
    let (shown, all) = tokio::join!(reader.get::<Shown>(&one), reader.get::<All>(&all));
    let shown = shown.map_err(reader.refused())?;
    let mut shell = Shell::new(shown.name.clone(), "/ui/definitions", reader);
    shell.failure = failure;
    let diagram = shown.tree.as_ref().map(|tree| {
        let address = |path: &Text| {
            let (saga, step) = (segment(shown.name.as_str()), segment(path.as_str()));
            Some(format!("/ui/sagas?name={saga}&step={step}&status=live"))
        };
        Diagram::of(tree, &Stages::new(), None, &address)
    });
    let input = input.map_or_else(
        || {
            let example = shown.input_schema.as_ref().map(|schema| example(schema, 0));
            text::json(&example.unwrap_or_else(|| json!({})))
        },
        Text::from,
    );
    Ok(page(&DefinitionPage {
        shell,
        diagram,
        line: all.ok().and_then(|all| all.definitions.into_iter().next()),
        input,
        shown,
    }))
}

/// A saga that was started.
#[derive(Deserialize)]
struct Started {
    saga_id: Text,
}

/// `POST /ui/definitions/{name}/start`.
pub(super) async fn start(
    reader: Reader,
    Path(name): Path<String>,
    Form(said): Form<Start>,
) -> Result<Response, Refusal> {
    let started: Answer<Started> = match json_of("input", &said.input) {
        Ok(input) => {
            let input = input.unwrap_or(Value::Null);
            reader
                .post(&format!("/sagas/{}", segment(&name)), &input)
                .await
        }
        Err(failure) => Err(failure),
    };
    match started {
        Ok(started) => {
            let to = format!("/ui/sagas/{}", segment(started.saga_id.as_str()));
            Ok(Redirect::to(&to).into_response())
        }
        Err(failure) if failure.status == StatusCode::UNAUTHORIZED.as_u16() => {
            Err(Refusal::new(&reader, failure))
        }
        Err(failure) => shown(&reader, &name, "", Some(said.input), Some(failure)).await,
    }
}

/// Something of the shape that a schema asks for, to be written over.
fn example(schema: &Value, depth: usize) -> Value {
    for given in ["const", "default"] {
        if let Some(value) = schema.get(given) {
            return value.clone();
        }
    }
    let first = |name: &str| schema.get(name).and_then(|all| all.get(0)).cloned();
    if let Some(value) = first("enum").or_else(|| first("examples")) {
        return value;
    }
    let kind = schema.get("type");
    let kind = kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    match kind {
        _ if depth > EXAMPLE_DEPTH_MAX => Value::Null,
        Some("object") => {
            let mut object = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, schema) in properties.into_iter().flatten() {
                object.insert(name.clone(), example(schema, depth + 1));
            }
            Value::Object(object)
        }
        Some("array") => {
            let item = schema.get("items");
            json!(
                item.map(|item| example(item, depth + 1))
                    .into_iter()
                    .collect::<Vec<_>>()
            )
        }
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(false),
        Some("string") => json!(""),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_has_the_shape_of_the_schema() {
        let schema = json!({ "type": "object", "properties": {
            "order": { "type": "string" },
            "items": { "type": "array", "items": { "type": "object", "properties": { "count": { "type": "integer", "minimum": 2 } } } },
            "currency": { "enum": ["EUR", "USD"] },
        } });
        assert_eq!(
            example(&schema, 0),
            json!({ "order": "", "items": [{ "count": 2 }], "currency": "EUR" })
        );
    }
}
