//! Acting on many dead letters: what would be sent where is shown before anything is done.

use std::collections::BTreeMap;

use askama::Template;
use axum::Form;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::address::segment;
use super::api::{Answer, Failure, Reader};
use super::cookies::keeping_name;
use super::letters::{Groups, filter};
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::Text;

/// How many a second are sent when nothing else is said: what one participant on a small machine can take.
const RATE_DEFAULT: &str = "20";
/// Letters of a kind that are named; the rest is counted.
const LETTERS_NAMED: usize = 10;
/// What is put down for a look that changes nothing.
const LOOK: &str = "a look at what would be done";

/// What the form says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Order {
    #[serde(default)]
    action: String,
    /// Which letters, as the query of a list says it.
    #[serde(default)]
    filter: String,
    /// Or these, with commas between.
    #[serde(default)]
    ids: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    limit: String,
    #[serde(default)]
    rate: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    again: bool,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    once: String,
}

impl Order {
    fn is_replay(&self) -> bool {
        self.action == "replay"
    }

    /// Where the letters are listed, whatever has become of them.
    fn list_address(&self) -> String {
        let ids: Vec<&str> = self.ids.split(',').filter(|id| !id.is_empty()).collect();
        match ids[..] {
            [] => {
                let query = Query::read(Some(&self.filter)).without(&["status"]);
                format!("/ui/letters?{}", query.text())
            }
            [id] => format!("/ui/letters/{}?", segment(id)),
            _ => "/ui/letters?".to_owned(),
        }
    }
}

/// What the API says of a replay, done or not.
#[derive(Debug, Default, Deserialize)]
struct Told {
    #[serde(default, alias = "discarded")]
    replayed: u64,
    #[serde(default)]
    sent: Vec<Sent>,
    #[serde(default)]
    refused: Vec<Refused>,
    #[serde(default)]
    warnings: Vec<Text>,
    #[serde(default)]
    may_be_more: bool,
    /// Left out of a discard: not open, or changed meanwhile.
    #[serde(default)]
    skipped: u64,
}

#[derive(Debug, Deserialize)]
struct Sent {
    to: Destination,
}

#[derive(Debug, Deserialize)]
struct Destination {
    #[serde(default)]
    exchange: Text,
    routing_key: Text,
}

impl Destination {
    /// A queue, or an exchange and a key.
    fn words(&self) -> Text {
        if self.exchange.is_empty() {
            return self.routing_key.clone();
        }
        Text::from(format!("{}/{}", self.exchange, self.routing_key))
    }
}

#[derive(Debug, Deserialize)]
struct Refused {
    id: Text,
    reason: Text,
}

/// Letters that were refused alike.
struct Alike {
    reason: Text,
    count: usize,
    first: Vec<Text>,
}

impl Told {
    /// How many go where.
    fn destinations(&self) -> Vec<(Text, usize)> {
        let mut all = BTreeMap::<Text, usize>::new();
        for sent in &self.sent {
            *all.entry(sent.to.words()).or_default() += 1;
        }
        all.into_iter().collect()
    }

    fn refused_alike(&self) -> Vec<Alike> {
        let mut all = Vec::<Alike>::new();
        for refused in &self.refused {
            let known = all.iter_mut().find(|alike| alike.reason == refused.reason);
            if let Some(alike) = known {
                alike.count += 1;
                if alike.first.len() < LETTERS_NAMED {
                    alike.first.push(refused.id.clone());
                }
            } else {
                all.push(Alike {
                    reason: refused.reason.clone(),
                    count: 1,
                    first: vec![refused.id.clone()],
                });
            }
        }
        all
    }
}

#[derive(Template)]
#[template(path = "replay.html")]
struct ReplayPage {
    shell: Shell,
    said: Order,
    /// What would be done, or was.
    told: Answer<Told>,
    is_done: bool,
}

/// `GET /ui/letters/act?action=…`: with `all=true` what `filter` finds, else the letters `id`.
pub(super) async fn preview(
    reader: Reader,
    RawQuery(asked): RawQuery,
) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    let ids: Vec<&str> = query.all("id").collect();
    let (of_all, ids) = match query.get("all") {
        "true" => (query.get("filter").to_owned(), String::new()),
        _ if ids.is_empty() => {
            let reason = "no letter was chosen: tick some, or choose all that the filter finds";
            let failure = Failure::new(StatusCode::BAD_REQUEST, reason);
            return Err(Refusal::new(&reader, failure));
        }
        _ => (String::new(), ids.join(",")),
    };
    let said = Order {
        action: query.get("action").to_owned(),
        filter: of_all,
        ids,
        rate: RATE_DEFAULT.to_owned(),
        limit: query.get("limit").to_owned(),
        again: query.get("again") == "true",
        force: query.get("force") == "true",
        ..Order::default()
    };
    let look = look(&reader, &said).await;
    Ok(shown(&reader, said, look, false, None))
}

/// What would be done.
async fn look(reader: &Reader, said: &Order) -> Answer<Told> {
    if said.is_replay() {
        let mut body = body_of(said)?;
        body.insert("why".to_owned(), json!(LOOK));
        body.insert("dry_run".to_owned(), json!(true));
        if !reader.is_signed_in {
            body.insert("by".to_owned(), json!("the page"));
        }
        return reader.post("/dead-letters/replay", &body.into()).await;
    }
    let ids = said.ids.split(',').filter(|id| !id.is_empty()).count();
    let mut open = u64::try_from(ids).unwrap_or(u64::MAX);
    if ids == 0 {
        let query = Query::read(Some(&said.filter));
        let path = format!("/dead-letters/groups?{}&limit=1000", filter(&query).text());
        let groups: Groups = reader.get(&path).await?;
        open = groups.groups.iter().map(|group| group.open).sum();
    }
    Ok(Told {
        replayed: open,
        ..Told::default()
    })
}

fn shown(
    reader: &Reader,
    said: Order,
    told: Answer<Told>,
    is_done: bool,
    failure: Option<Failure>,
) -> Response {
    let words = if said.is_replay() {
        "Replay"
    } else {
        "Discard"
    };
    let mut shell = Shell::new(format!("{words}: dead letters"), "/ui/letters", reader);
    shell.failure = failure;
    page(&ReplayPage {
        shell,
        said,
        told,
        is_done,
    })
}

/// `POST /ui/letters/act`: does it. If some were refused, they are named.
pub(super) async fn make(reader: Reader, Form(said): Form<Order>) -> Response {
    let path = match said.action.as_str() {
        "replay" => "/dead-letters/replay",
        _ => "/dead-letters/discard",
    };
    let made = match body_of(&said) {
        Ok(body) => {
            reader
                .post_once::<Told>(path, &body.into(), &said.once)
                .await
        }
        Err(failure) => Err(failure),
    };
    let told = match made {
        Ok(told) => told,
        Err(failure) => {
            let look = look(&reader, &said).await;
            return shown(&reader, said, look, false, Some(failure));
        }
    };
    let by = said.by.clone();
    let response = if told.refused.is_empty() {
        let (to, sent, left) = (said.list_address(), told.replayed, told.skipped);
        let action = if said.is_replay() {
            "replay"
        } else {
            "discard"
        };
        Redirect::to(&format!("{to}&done={action}&sent={sent}&refused={left}")).into_response()
    } else {
        shown(&reader, said, Ok(told), true, None)
    };
    keeping_name(response, &by)
}

fn body_of(said: &Order) -> Answer<Map<String, Value>> {
    let mut body = Map::new();
    let ids: Vec<&str> = said.ids.split(',').filter(|id| !id.is_empty()).collect();
    if ids.is_empty() {
        let filter: Map<_, _> = form_urlencoded::parse(said.filter.as_bytes())
            .map(|(name, value)| (name.into_owned(), json!(value)))
            .collect();
        body.insert("filter".to_owned(), filter.into());
    } else {
        body.insert("ids".to_owned(), json!(ids));
    }
    body.insert("why".to_owned(), json!(said.why));
    if !said.by.is_empty() {
        body.insert("by".to_owned(), json!(said.by));
    }
    if !said.is_replay() {
        return Ok(body);
    }
    for (name, words, text) in [
        ("rate", "how many a second", &said.rate),
        ("limit", "how many at most", &said.limit),
    ] {
        if text.is_empty() {
            continue;
        }
        let number: u32 = text.parse().map_err(|_| {
            let reason = format!("{words} must be a whole number");
            Failure::new(StatusCode::BAD_REQUEST, reason)
        })?;
        body.insert(name.to_owned(), json!(number));
    }
    if !said.to.is_empty() {
        body.insert("to".to_owned(), json!(said.to));
    }
    body.insert("again".to_owned(), json!(said.again));
    body.insert("force".to_owned(), json!(said.force));
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_what_the_api_takes() {
        let order = |filter: &str, ids: &str, rate: &str| Order {
            action: "replay".to_owned(),
            filter: filter.to_owned(),
            ids: ids.to_owned(),
            rate: rate.to_owned(),
            why: "mended".to_owned(),
            ..Order::default()
        };
        let body = body_of(&order("status=open&queue=a%26b", "", "5")).unwrap();
        assert_eq!(
            Value::Object(body),
            json!({ "filter": { "status": "open", "queue": "a&b" }, "why": "mended", "rate": 5, "again": false, "force": false })
        );
        let body = body_of(&order("", "a,b", "")).unwrap();
        assert_eq!(body["ids"], json!(["a", "b"]));
        assert!(body_of(&order("", "a", "fast")).is_err());
    }
}
