//! The audit log: who did what, when and why, and whether it is still as it was written.

use askama::Template;
use axum::extract::RawQuery;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::api::{Answer, Failure, Reader};
use super::letters::address_of;
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::{self, Text, When};

/// Entries of a page.
const ENTRIES_SHOWN: usize = 100;

#[derive(Debug, Deserialize)]
struct Log {
    entries: Vec<Entry>,
    next: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    seq: u64,
    at: When,
    action: Text,
    #[serde(default)]
    letter: Text,
    #[serde(default)]
    by: Text,
    #[serde(default)]
    why: Text,
    #[serde(flatten)]
    particulars: Map<String, Value>,
}

impl Entry {
    fn letter_address(&self) -> String {
        address_of(&self.letter)
    }

    fn particulars(&self) -> Text {
        text::json(&Value::Object(self.particulars.clone()))
    }
}

/// Whether the chain of entries holds.
#[derive(Debug, Deserialize)]
struct Check {
    entries: u64,
    #[serde(default)]
    broken: Text,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    query: Query,
    log: Log,
    check: Option<Answer<Check>>,
}

impl AuditPage {
    /// Where the earlier entries are, if there may be any.
    fn following(&self) -> Option<String> {
        let query = self.query.without(&["after", "verify"]);
        let next = self.log.next?.to_string();
        Some(format!("/ui/audit?{}", query.with("after", &next).text()))
    }

    fn field(&self, name: &str) -> Text {
        Text::from(self.query.get(name))
    }
}

/// `GET /ui/audit`: newest first; with `verify=true` the chain is checked.
pub(super) async fn view(reader: Reader, RawQuery(asked): RawQuery) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    let of_list = query.without(&["verify", "limit"]);
    let of_list = of_list.with("limit", &ENTRIES_SHOWN.to_string());
    let path = format!("/audit?{}", of_list.text());
    let log = reader.get(&path).await.map_err(reader.refused())?;
    let check: Option<Result<Check, Failure>> = match query.get("verify") {
        "true" => Some(reader.get("/dead-letters/audit?verify=true").await),
        _ => None,
    };
    Ok(page(&AuditPage {
        shell: Shell::new("Audit", "/ui/audit", &reader),
        query,
        log,
        check,
    }))
}
