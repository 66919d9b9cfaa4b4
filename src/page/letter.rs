//! One dead letter: what it says, how it died, what was done to it; and mending it.

use std::fmt::Write as _;

use askama::Template;
use axum::Form;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::address::segment;
use super::api::{Answer, Failure, Reader};
use super::cookies::keeping_name;
use super::letters::{self, Letter, Sagas};
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::{self, Text, When};

/// A letter as the API tells it.
#[derive(Debug, Deserialize)]
struct Whole {
    #[serde(flatten)]
    head: Letter,
    #[serde(flatten)]
    message: Message,
    #[serde(default)]
    original: Option<Message>,
    /// What was done to it.
    #[serde(default)]
    history: Vec<Deed>,
    origin: Origin,
}

#[derive(Debug, Deserialize)]
struct Message {
    properties: Value,
    #[serde(default)]
    body: Text,
    #[serde(default)]
    body_hex: Text,
    body_cut: bool,
}

/// Where it died first.
#[derive(Debug, Deserialize)]
struct Origin {
    exchange: Text,
    routing_key: Text,
    queue: Text,
    reason: Text,
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Deed {
    #[serde(default)]
    at: When,
    #[serde(default)]
    action: Text,
    #[serde(default)]
    edit: Option<u64>,
    #[serde(default)]
    by: Text,
    #[serde(default)]
    why: Text,
}

/// What the broker wrote down each time the message died.
struct Death {
    queue: Text,
    reason: Text,
    count: Text,
    exchange: Text,
    keys: Text,
    time: Text,
}

impl Message {
    /// All but what has a place of its own.
    fn headers(&self) -> Text {
        let mut properties = self.properties.clone();
        if let Some(headers) = properties.get_mut("headers").and_then(Value::as_object_mut) {
            headers.remove("x-death");
        }
        text::json(&properties)
    }

    /// The message's way through the broker, the newest death first, as the header `x-death` has it.
    fn deaths(&self) -> Vec<Death> {
        let deaths = self.properties["headers"]["x-death"].as_array();
        let deaths = deaths.into_iter().flatten();
        deaths
            .map(|death| {
                let word = |name: &str| plain(&death[name]);
                Death {
                    queue: word("queue"),
                    reason: word("reason"),
                    count: word("count"),
                    exchange: word("exchange"),
                    keys: word("routing-keys"),
                    time: word("time"),
                }
            })
            .collect()
    }

    /// The body as people read it: JSON indented, other text as it is, else in hexadecimal.
    fn shown(&self) -> Text {
        if self.body.is_empty() {
            return self.body_hex.clone();
        }
        let read = serde_json::from_str::<Value>(self.body.as_str());
        read.map_or_else(|_| self.body.clone(), |value| text::json(&value))
    }
}

/// A value in a word or a few.
fn plain(value: &Value) -> Text {
    match value {
        Value::Null => Text::default(),
        Value::String(text) => Text::from(text.as_str()),
        Value::Array(all) => {
            let all: Vec<String> = all.iter().map(|one| plain(one).to_string()).collect();
            Text::from(all.join(", "))
        }
        other => Text::from(other.to_string()),
    }
}

/// A line of a difference.
struct Line {
    mark: char,
    text: Text,
}

#[derive(Template)]
#[template(path = "letter.html")]
struct LetterPage {
    shell: Shell,
    letter: Whole,
    sagas: Sagas,
    /// What an edit changes, or why there is none.
    document: Answer<Text>,
    difference: Option<Vec<Line>>,
    said: Edit,
}

impl LetterPage {
    fn act(&self, action: &str) -> String {
        let id = segment(self.letter.head.id.as_str());
        format!("/ui/letters/act?action={action}&id={id}")
    }
}

/// What the form of an edit says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Edit {
    #[serde(default)]
    document: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    apply: bool,
    #[serde(default)]
    once: String,
}

/// `GET /ui/letters/{letter}`.
pub(super) async fn view(
    reader: Reader,
    Path(id): Path<String>,
    RawQuery(asked): RawQuery,
) -> Result<Response, Refusal> {
    let done = letters::done(&Query::read(asked.as_deref()));
    shown(&reader, &id, Edit::default(), done, Ok(None)).await
}

async fn shown(
    reader: &Reader,
    id: &str,
    said: Edit,
    done: Option<Text>,
    difference: Answer<Option<Vec<Line>>>,
) -> Result<Response, Refusal> {
    let path = format!("/dead-letters/{}", segment(id));
    let of_document = format!("{path}/document");
    let (letter, document) = tokio::join!(
        reader.get::<Whole>(&path),
        reader.get::<Value>(&of_document)
    );
    let letter = letter.map_err(reader.refused())?;
    let sagas = Sagas::of(reader, std::slice::from_ref(&letter.head)).await;
    let mut shell = Shell::new("A dead letter", "/ui/letters", reader);
    shell.done = done;
    let difference = difference.unwrap_or_else(|failure| {
        shell.failure = Some(failure);
        None
    });
    let document = document.map(|document| {
        if said.document.is_empty() {
            // What is invisible stays as JSON escapes it, so that it can be edited and sent.
            Text::from(escaped(
                &serde_json::to_string_pretty(&document).unwrap_or_default(),
            ))
        } else {
            Text::from(said.document.as_str())
        }
    });
    Ok(page(&LetterPage {
        shell,
        letter,
        sagas,
        document,
        difference,
        said,
    }))
}

/// JSON in which what is not seen is written as an escape, which means the same.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if text::is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // To text it always succeeds.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(character);
        }
    }
    text
}

/// What an edit would change.
#[derive(Deserialize)]
struct Edited {
    diff: String,
}

/// `POST /ui/letters/{letter}/edit`: shows the difference; with `apply=true`, makes it so.
pub(super) async fn edit(
    reader: Reader,
    Path(id): Path<String>,
    Form(said): Form<Edit>,
) -> Result<Response, Refusal> {
    match send(&reader, &id, &said).await {
        Err(failure) => shown(&reader, &id, said, None, Err(failure)).await,
        Ok(_) if said.apply => {
            let to = format!("/ui/letters/{}?done=edit", segment(&id));
            let response = Redirect::to(&to).into_response();
            Ok(keeping_name(response, &said.by))
        }
        Ok(edited) => {
            let difference = edited.diff.lines().map(line).collect();
            shown(&reader, &id, said, None, Ok(Some(difference))).await
        }
    }
}

async fn send(reader: &Reader, id: &str, said: &Edit) -> Answer<Edited> {
    let document: Value = serde_json::from_str(&said.document).map_err(|error| {
        let reason = format!("the message is not JSON: {error}");
        Failure::new(StatusCode::BAD_REQUEST, reason)
    })?;
    let mut body = Map::new();
    body.insert("document".to_owned(), document);
    body.insert("why".to_owned(), json!(said.why));
    body.insert("dry_run".to_owned(), json!(!said.apply));
    if !said.by.is_empty() {
        body.insert("by".to_owned(), json!(said.by));
    }
    let path = format!("/dead-letters/{}/edit", segment(id));
    let body = Value::Object(body);
    reader.post_once(&path, &body, &said.once).await
}

fn line(text: &str) -> Line {
    let mark = text.chars().next().unwrap_or(' ');
    Line {
        mark,
        text: Text::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_means_the_same() {
        let document = json!({ "key": "abc\u{202e}def \u{e0041}\u{200b}", "plain": "ä" });
        let text = escaped(&serde_json::to_string_pretty(&document).unwrap());
        assert!(!text.contains('\u{202e}') && text.contains('ä'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    }
}
