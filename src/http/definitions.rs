//! The definitions that the database keeps: which there are, how many sagas live by each version, and one
//! of them with its source and as nested blocks.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

use super::cached::Cached;
use super::problem::Problem;
use super::sagas::path;
use super::{Context, Shared};
use crate::definition::Definition;
use crate::engine::catalogue::Unusable;
use crate::error::code;
use crate::store::census::CENSUS_MAX;
use crate::store::{DefinitionRow, LiveCount, StoreError};
use crate::view::DefinitionView;

/// For how long what the database has is good enough for people.
const KEPT: Duration = Duration::from_secs(1);

/// What the database has.
pub(super) struct Stored {
    rows: Vec<DefinitionRow>,
    live: Vec<LiveCount>,
}

/// For [`stored`].
pub(super) fn kept() -> Cached<Stored> {
    Cached::new(KEPT)
}

async fn stored(context: &Context) -> Result<Arc<Stored>, StoreError> {
    let make = async {
        Ok(Stored {
            rows: context.api.engine.store().definitions().await?,
            live: context.api.census.live_versions().await?,
        })
    };
    context
        .definitions
        .get(&*context.api.environment, make)
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    name: Option<String>,
}

/// The answer of `GET /definitions`.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    definitions: Vec<DefinitionLine>,
}

#[derive(Debug, Serialize)]
struct DefinitionLine {
    name: String,
    /// The newest that is stored.
    version: u32,
    /// What new sagas start with on this node; none if it was not given any version of it.
    starts: Option<u32>,
    description: Option<String>,
    /// Newest first.
    versions: Vec<VersionLine>,
}

#[derive(Debug, Serialize)]
struct VersionLine {
    version: u32,
    /// Sagas that have not ended.
    live: u64,
    /// Whether there are more than were counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    or_more: bool,
    /// When it was first loaded, RFC 3339.
    known_since: String,
}

/// `GET /definitions`: by name, each with its versions.
pub(super) async fn list(
    State(context): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Listed>, Problem> {
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let stored = stored(&context).await?;
    let known = context.api.engine.catalogue().known();
    // Of each status so many are looked at: whatever is missing could be of any version.
    let or_more = stored.live.iter().map(|it| it.count).sum::<u64>() >= CENSUS_MAX as u64;
    let asked = |row: &&DefinitionRow| query.name.as_ref().is_none_or(|name| *name == row.name);
    let mut definitions: Vec<DefinitionLine> = Vec::new();
    // In order of name and version.
    for row in stored.rows.iter().filter(asked) {
        if definitions.last().is_none_or(|last| last.name != row.name) {
            let newest = known.newest_of_all().find(|it| it.name == row.name);
            definitions.push(DefinitionLine {
                name: row.name.clone(),
                version: row.version,
                starts: newest.map(|newest| newest.version),
                description: newest.and_then(|newest| newest.description.clone()),
                versions: Vec::new(),
            });
        }
        let Some(line) = definitions.last_mut() else {
            continue;
        };
        line.version = row.version;
        let mut counts = stored.live.iter();
        let count = counts.find(|it| it.name == row.name && it.version == row.version);
        let version = VersionLine {
            version: row.version,
            live: count.map_or(0, |count| count.count),
            or_more,
            known_since: row.stored_at.to_string(),
        };
        line.versions.insert(0, version);
    }
    Ok(Json(Listed { definitions }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    version: Option<u32>,
}

/// The answer of `GET /definitions/{name}`.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    name: String,
    version: u32,
    description: Option<String>,
    /// When it was first loaded, RFC 3339.
    known_since: String,
    /// The YAML as the database keeps it.
    source: String,
    /// Why there is nothing but the source.
    problem: Option<String>,
    #[serde(flatten)]
    view: Option<DefinitionView>,
}

/// `GET /definitions/{name}`: the newest version, or the one that is asked for.
pub(super) async fn show(
    State(context): Shared,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Json<Shown>, Problem> {
    let name = path(name)?;
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let stored = stored(&context).await?;
    let rows = stored.rows.iter();
    let mut rows = rows.filter(|row| row.name == name).rev();
    let row = rows.find(|row| query.version.is_none_or(|version| version == row.version));
    let row = row.ok_or_else(|| unknown(&name, query.version))?;
    let engine = &context.api.engine;
    let (catalogue, store) = (engine.catalogue(), &**engine.store());
    let read = catalogue.version(store, &name, row.version).await?;
    let (definition, problem) = match read {
        Some(Ok(definition)) => (Some(definition), None),
        Some(Err(wrong)) => (None, Some(said(&wrong))),
        None => (None, Some("it has just been removed".to_owned())),
    };
    let definition = definition.as_deref();
    Ok(Json(Shown {
        name,
        version: row.version,
        description: definition.and_then(|it: &Definition| it.description.clone()),
        known_since: row.stored_at.to_string(),
        source: row.source.clone(),
        problem,
        view: definition.map(DefinitionView::new),
    }))
}

fn said(wrong: &Unusable) -> String {
    match wrong {
        Unusable::Newer(problems) => format!(
            "this release can't read it; a newer one has stored it, ask a node of that: {problems}"
        ),
        Unusable::Damaged => {
            "it is damaged: it has not the hash that it was stored with; restore its row from a backup"
                .to_owned()
        }
    }
}

fn unknown(name: &str, version: Option<u32>) -> Problem {
    let name: String = name.chars().take(100).collect();
    let version = version.map_or_else(String::new, |version| format!(" version {version}"));
    let reason =
        format!("no definition `{name}`{version} is stored; GET /definitions lists those that are");
    Problem::not_found(code::SAGA_UNKNOWN, reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::Bundle;

    #[tokio::test(flavor = "multi_thread")]
    async fn definitions_are_listed_with_their_versions_and_shown_as_blocks() {
        let node = Bundle::start().await;
        node.order("o-1").await;
        let (status, listed) = node.get("/definitions").await;
        assert_eq!(status, 200, "{listed}");
        let order = &listed["definitions"][0];
        assert_eq!(
            (&order["name"], &order["version"], &order["starts"]),
            (&json!("order"), &json!(1), &json!(1))
        );
        let version = &order["versions"][0];
        assert_eq!(
            (&version["version"], &version["live"]),
            (&json!(1), &json!(1))
        );
        assert!(version["known_since"].is_string() && version["or_more"].is_null());
        let (_, others) = node.get("/definitions?name=other").await;
        assert_eq!(others["definitions"], json!([]));

        for query in ["", "?version=1"] {
            let (status, shown) = node.get(&format!("/definitions/order{query}")).await;
            assert_eq!((status, &shown["version"]), (200, &json!(1)), "{shown}");
            assert!(
                shown["source"]
                    .as_str()
                    .unwrap()
                    .contains("payments.reserve")
            );
            assert_eq!(shown["problem"], json!(null));
            assert_eq!(shown["key"], "input.id");
            assert_eq!(shown["input_schema"]["required"], json!(["id", "total"]));
            let step = &shown["tree"]["children"][0];
            assert_eq!(
                (&step["kind"], &step["path"], &step["label"]),
                (
                    &json!("step"),
                    &json!("payment"),
                    &json!("payments.reserve")
                )
            );
            assert_eq!(shown["tree"]["children"][1]["kind"], "pivot");
        }
        for (path, status, code) in [
            ("/definitions/other", 404, "BST-0013"),
            ("/definitions/order?version=2", 404, "BST-0013"),
            ("/definitions/order?version=x", 400, "BST-0040"),
            ("/definitions?nmae=order", 400, "BST-0040"),
        ] {
            let (found, answer) = node.get(path).await;
            assert_eq!((found, &answer["code"]), (status, &json!(code)), "{path}");
        }
        node.stop().await;
    }
}
