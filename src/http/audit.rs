//! What people did to sagas, schedules, jobs, letters and tokens: the audit log, newest first.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Context, Shared};
use crate::store::dead_letters::Actor;
use crate::view::AuditView;

/// Entries of a page when the request does not say, and at most.
const ROWS_DEFAULT: usize = 100;
const ROWS_MAX: usize = 1_000;
/// Entries that are read at once, and for one page: most may be of somebody else.
const AT_ONCE: u64 = 500;
const READ_MAX: u64 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// The `next` of the page before.
    after: Option<u64>,
    by: Option<String>,
    /// What an action's name begins with.
    action: Option<String>,
    limit: Option<usize>,
}

/// `GET /audit`.
pub(super) async fn list(
    State(context): Shared,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let limit = query.limit.unwrap_or(ROWS_DEFAULT).clamp(1, ROWS_MAX);
    let letters = &context.api.letters;
    let newest = letters.audit_head().await?.seq;
    // Entries with smaller numbers are still to be looked at; there are no gaps.
    let mut below = query
        .after
        .map_or(newest, |after| after.saturating_sub(1).min(newest))
        + 1;
    let (mut entries, mut read) = (Vec::new(), 0);
    while entries.len() < limit && below > 1 && read < READ_MAX {
        let count = AT_ONCE.min(below - 1);
        let after = below - 1 - count;
        let at_once = usize::try_from(count).unwrap_or(usize::MAX);
        let page = letters.letter_audit(None, after, at_once).await?;
        let before = below;
        for entry in page.iter().rev() {
            if entries.len() == limit {
                break;
            }
            (below, read) = (entry.seq, read + 1);
            let view = AuditView::new(entry);
            if query.fits(&view) {
                entries.push(view);
            }
        }
        if below == before {
            break;
        }
    }
    let next = (below > 1).then_some(below);
    Ok(Json(json!({ "entries": entries, "next": next })))
}

impl AuditQuery {
    fn fits(&self, entry: &AuditView) -> bool {
        let action = self.action.as_deref().unwrap_or_default();
        entry.action.starts_with(action) && self.by.as_deref().is_none_or(|by| is_by(entry, by))
    }
}

/// Whether it was that one who did it, for whomever they said.
fn is_by(entry: &AuditView, name: &str) -> bool {
    let by = entry.body["by"].as_str().unwrap_or_default();
    let rest = by.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" (on behalf of "))
}

/// Puts what was done into the audit log. It is done, whatever becomes of that.
pub(super) async fn note(context: &Context, actor: &Actor, action: &'static str, detail: Value) {
    let noted = context
        .api
        .requests
        .note_deed(actor, action, detail.clone());
    if let Err(error) = noted.await {
        tracing::error!(%error, by = actor.by, action, %detail, "what was done is not in the audit log");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::Bundle;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_people_did_is_listed_newest_first_and_by_whom() {
        let node = Bundle::start().await;
        let id = node.order("o-1").await;
        for (action, by) in [("pause", "ann"), ("resume", "bob"), ("cancel", "ann")] {
            let body = json!({ "by": by, "why": format!("to {action}") }).to_string();
            let (status, _, answer) = node.post(&format!("/sagas/{id}/{action}"), body).await;
            assert_eq!(status, 200, "{answer}");
        }
        let job = json!({ "action": "pause", "filter": "name=order", "by": "bob", "why": "so" });
        node.post("/jobs", job.to_string()).await;
        let read = async |query: &str| {
            let (status, page) = node.get(&format!("/audit{query}")).await;
            assert_eq!(status, 200, "{page}");
            let actions: Vec<String> = page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["action"].as_str().unwrap().to_owned())
                .collect();
            (actions, page["next"].clone(), page["entries"][0].clone())
        };
        for (query, actions, next) in [
            (
                "",
                vec!["job-create", "saga-cancel", "saga-resume", "saga-pause"],
                Value::Null,
            ),
            (
                "?limit=3",
                vec!["job-create", "saga-cancel", "saga-resume"],
                json!(2),
            ),
            ("?after=2", vec!["saga-pause"], Value::Null),
            ("?by=ann", vec!["saga-cancel", "saga-pause"], Value::Null),
            ("?by=an", vec![], Value::Null),
            ("?action=saga&limit=1", vec!["saga-cancel"], json!(3)),
            ("?after=1", vec![], Value::Null),
        ] {
            let (found, found_next, _) = read(query).await;
            assert_eq!(
                (found, found_next),
                (actions.iter().map(ToString::to_string).collect(), next),
                "{query}"
            );
        }
        let (_, _, cancelled) = read("?action=saga-cancel").await;
        assert_eq!(
            (
                &cancelled["by"],
                &cancelled["why"],
                &cancelled["detail"]["saga"]
            ),
            (&json!("ann"), &json!("to cancel"), &json!(id))
        );
        assert_eq!(node.get("/audit?after=x").await.0, 400);
        node.stop().await;
    }
}
