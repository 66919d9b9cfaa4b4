//! Dead letters: look, replay, edit, discard, carry away.
//!
//! A node's replays are committed here and published by its relay within a second, or by and by at a
//! rate; watching canaries is the command line's. Each request is bounded in letters: ask again for the rest.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::actions::author;
use super::guard::Signed;
use super::problem::Problem;
use super::sagas::{json_body, parse, path};
use super::{Context, Shared};
use crate::dead_letters::edit::{diff, document, from_document, patch};
use crate::dead_letters::replay::{REPLAYS_MAX, ReplayEvent, ReplayOptions};
use crate::dead_letters::route::{Routes, Wish};
use crate::dead_letters::transfer::Macs;
use crate::dead_letters::{DeadLetterError, Desk, Selection};
use crate::definition::parse_duration;
use crate::error::code;
use crate::id::Timestamp;
use crate::store::dead_letters::{LetterFilter, LetterPage, LetterStatus};
use crate::view::{AuditView, GroupView, LetterListView, LetterView};

/// Letters of a page when the request does not say.
const LETTERS_DEFAULT: usize = 50;
/// Most letters of a page.
const LETTERS_MAX: usize = 1_000;
/// Most letters that one request replays or names.
const REPLAY_LETTERS_MAX: u64 = 1_000;
/// Most letters of a page of an export: each comes with its body.
const EXPORT_LETTERS_MAX: usize = 20;
/// Bytes after which a page of an export ends. A single letter may be larger.
const EXPORT_BYTES: usize = 8 * 1024 * 1024;
/// Where `by` and `why` go.
const INTO: &str = "the audit log";

type Queried = Result<Query<BTreeMap<String, String>>, QueryRejection>;

impl Context {
    fn desk(&self) -> Desk {
        Desk {
            environment: Arc::clone(&self.api.environment),
            letters: Arc::clone(&self.api.letters),
            sagas: Arc::clone(self.api.engine.store()),
        }
    }
}

impl From<DeadLetterError> for Problem {
    fn from(error: DeadLetterError) -> Self {
        let reason = error.to_string();
        match error {
            DeadLetterError::Store(error) => error.into(),
            DeadLetterError::Broker(_) => Self::unavailable(code::NODE_UNAVAILABLE, reason),
            DeadLetterError::NotFound(_) => Self::not_found(code::LETTER_NOT_FOUND, reason),
            DeadLetterError::Refused { .. } | DeadLetterError::Danger(_) => {
                Self::new(StatusCode::CONFLICT, code::LETTER_REFUSED, reason)
            }
            DeadLetterError::Malformed(_) => Self::malformed(reason),
        }
    }
}

/// A filter and a page, from the query's parameters.
struct Asked {
    filter: LetterFilter,
    page: LetterPage,
}

fn asked(query: Queried, now: Timestamp, most: usize) -> Result<Asked, Problem> {
    let Query(mut fields) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let mut take = |name: &str| fields.remove(name);
    let (limit, after) = (take("limit"), take("after"));
    let direction = take("order");
    let (older, newer) = (take("older_than"), take("newer_than"));
    let mut filter = serde_json::Map::new();
    filter.extend(
        fields
            .into_iter()
            .map(|(name, text)| (name, Value::from(text))),
    );
    let wrong = |why: String| Problem::malformed(format!("the query is not understood: {why}"));
    let mut filter: LetterFilter =
        serde_json::from_value(filter.into()).map_err(|error| wrong(error.to_string()))?;
    let age = |text: Option<String>| text.map(|text| parse_duration(&text)).transpose();
    if let Some(age) = age(older).map_err(wrong)? {
        filter.until = Some(now.before(age));
    }
    if let Some(age) = age(newer).map_err(wrong)? {
        filter.since = Some(now.before(age));
    }
    let limit = limit.map_or(Ok(LETTERS_DEFAULT.min(most)), |text| {
        text.parse()
            .map_err(|_| wrong(format!("`limit` is `{text}`")))
    })?;
    let oldest_first = match direction.as_deref() {
        None | Some("newest") => false,
        Some("oldest") => true,
        Some(other) => return Err(wrong(format!("`order` is `{other}`: newest or oldest"))),
    };
    let page = LetterPage {
        after: after.map(|text| place(&text)).transpose()?,
        oldest_first,
        limit: limit.clamp(1, most),
    };
    Ok(Asked { filter, page })
}

fn place(text: &str) -> Result<(Timestamp, Uuid), Problem> {
    let place = text.split_once(',').and_then(|(at, id)| {
        let at = Timestamp::from_micros(at.parse().ok()?);
        Some((at, id.parse().ok()?))
    });
    place.ok_or_else(|| Problem::malformed("`after` is the `next` of the page before"))
}

fn letter_id(id: Result<Path<String>, PathRejection>) -> Result<Uuid, Problem> {
    let text = path(id)?;
    text.parse()
        .map_err(|_| Problem::malformed("a letter's id is a UUID"))
}

/// `GET /dead-letters`: newest first, or `order=oldest`.
pub(super) async fn list(
    State(context): Shared,
    query: Queried,
) -> Result<Json<LetterListView>, Problem> {
    let desk = context.desk();
    let Asked { filter, page } = asked(query, desk.environment.now(), LETTERS_MAX)?;
    let heads = desk.letters.letters(&filter, &page).await?;
    Ok(Json(LetterListView::new(&heads, page.limit)))
}

/// `GET /dead-letters/groups`: by cause, the most frequent first.
pub(super) async fn groups(State(context): Shared, query: Queried) -> Result<Json<Value>, Problem> {
    let desk = context.desk();
    let Asked { filter, page } = asked(query, desk.environment.now(), LETTERS_MAX)?;
    let groups = desk.letters.letter_groups(&filter, page.limit).await?;
    let groups: Vec<_> = groups.iter().map(GroupView::new).collect();
    Ok(Json(json!({ "groups": groups })))
}

/// `GET /dead-letters/stats`: by queue and status.
pub(super) async fn stats(State(context): Shared) -> Result<Json<Value>, Problem> {
    let counts = context.api.letters.letter_counts().await?;
    Ok(Json(json!({ "counts": counts })))
}

/// `GET /dead-letters/{id}`: one letter with its message and history.
pub(super) async fn show(
    State(context): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<LetterView>, Problem> {
    let (id, desk) = (letter_id(id)?, context.desk());
    let letter = desk.letter(id).await?;
    let edits = desk.letters.letter_edits(id).await?;
    let audit = desk.letters.letter_audit(Some(id), 0, LETTERS_MAX).await?;
    Ok(Json(LetterView::new(&letter, &edits, &audit)))
}

/// Who, why, and which letters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the switches of a request, each on its own"
)]
struct Order {
    #[serde(alias = "on_behalf_of")]
    by: Option<String>,
    why: String,
    #[serde(default)]
    ids: Vec<Uuid>,
    filter: Option<LetterFilter>,
    #[serde(default)]
    dry_run: bool,
    to: Option<String>,
    #[serde(default)]
    as_published: bool,
    #[serde(default)]
    anyway: bool,
    #[serde(default)]
    again: bool,
    #[serde(default)]
    force: bool,
    replays_max: Option<u32>,
    limit: Option<u64>,
    /// Letters a second.
    rate: Option<NonZeroU32>,
}

impl Order {
    fn selection(&mut self, status: Option<LetterStatus>) -> Result<Selection, Problem> {
        let ids = std::mem::take(&mut self.ids);
        match (ids.is_empty(), self.filter.take()) {
            (false, None) if ids.len() as u64 <= REPLAY_LETTERS_MAX => Ok(Selection::Ids(ids)),
            (true, Some(mut filter)) => {
                filter.status = filter.status.or(status);
                Ok(Selection::Filter(Box::new(filter)))
            }
            _ => Err(Problem::malformed(format!(
                "name the letters either by `ids`, at most {REPLAY_LETTERS_MAX}, or by `filter`"
            ))),
        }
    }
}

/// What happened to letters of a request.
#[derive(Default, Serialize)]
struct Told {
    sent: Vec<Value>,
    refused: Vec<Value>,
    warnings: Vec<String>,
}

fn not_allowed(to: &str) -> Problem {
    let reason = format!(
        "this node was not started with --allow-replay-to {to}; without `to` letters go back to where they died"
    );
    Problem::new(StatusCode::FORBIDDEN, code::ROUTE_FORBIDDEN, reason)
}

/// `POST /dead-letters/replay`: `dry_run` says what would go where.
pub(super) async fn replay(
    State(context): Shared,
    Signed(caller): Signed,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let mut order: Order = parse(&json_body(&context, &headers, body)?)?;
    let status = (!order.again).then_some(LetterStatus::Open);
    let by = author(&caller, order.by.as_deref(), &order.why, INTO)?;
    let selection = order.selection(status)?;
    let most = order
        .limit
        .unwrap_or(REPLAY_LETTERS_MAX)
        .min(REPLAY_LETTERS_MAX);
    let broker = Arc::clone(context.api.engine.broker());
    let to = match order.to {
        Some(text) => {
            if !context.api.limits.replay_to.contains(&text) {
                return Err(not_allowed(&text));
            }
            let mut routes = Routes::new(Some(Arc::clone(&broker)));
            let to = routes.destination(&text).await;
            Some(to.map_err(DeadLetterError::from)?)
        }
        None => None,
    };
    let options = ReplayOptions {
        wish: Wish {
            to,
            as_published: order.as_published,
            anyway: order.anyway,
            within: Some(context.api.limits.replay_to.clone()),
        },
        again: order.again,
        force: order.force,
        replays_max: order.replays_max.unwrap_or(REPLAYS_MAX),
        by,
        why: order.why,
        rate: order.rate.map(NonZeroU32::get),
        canary: None,
        limit: Some(most),
    };
    let mut told = Told::default();
    let tell = |event: ReplayEvent<'_>| match event {
        ReplayEvent::Sent(head, to) => told.sent.push(json!({ "id": head.id, "to": to })),
        ReplayEvent::Refused(head, why) => {
            told.refused
                .push(json!({ "id": head.id, "reason": why.to_string() }));
        }
        ReplayEvent::Lost(id) => told
            .refused
            .push(json!({ "id": id, "reason": "it changed" })),
        ReplayEvent::Caution(text) => told.warnings.push(text.to_owned()),
        ReplayEvent::Returned(..) | ReplayEvent::Waiting(..) => {}
    };
    let desk = context.desk();
    let total = if order.dry_run {
        desk.replay_dry(Some(broker), selection, &options, tell)
            .await?
    } else {
        desk.replay_by_nodes(Some(broker), selection, &options, tell)
            .await?
    };
    Ok(Json(json!({
        "dry_run": order.dry_run, "replayed": total.replayed, "sent": told.sent,
        "refused": told.refused, "warnings": told.warnings, "may_be_more": total.replayed >= most,
    })))
}

/// `POST /dead-letters/discard`.
pub(super) async fn discard(
    State(context): Shared,
    Signed(caller): Signed,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let mut order: Order = parse(&json_body(&context, &headers, body)?)?;
    let by = author(&caller, order.by.as_deref(), &order.why, INTO)?;
    let selection = order.selection(Some(LetterStatus::Open))?;
    let done = context.desk().discard(selection, &by, &order.why).await?;
    Ok(Json(json!(done)))
}

/// An edit: a JSON Patch, or the whole document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditOrder {
    #[serde(alias = "on_behalf_of")]
    by: Option<String>,
    why: String,
    patch: Option<Value>,
    document: Option<Value>,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /dead-letters/{id}/edit`.
pub(super) async fn edit(
    State(context): Shared,
    Signed(caller): Signed,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let id = letter_id(id)?;
    let order: EditOrder = parse(&json_body(&context, &headers, body)?)?;
    let by = author(&caller, order.by.as_deref(), &order.why, INTO)?;
    let desk = context.desk();
    let letter = desk.letter(id).await?;
    let before = letter.message();
    let shown = document(before);
    let wanted = match (order.patch, order.document) {
        (Some(operations), None) => patch(&shown, &operations).map_err(Problem::malformed)?,
        (None, Some(document)) => document,
        _ => return Err(Problem::malformed("give either `patch` or `document`")),
    };
    let after = from_document(&wanted, before).map_err(Problem::malformed)?;
    let difference = diff(&shown, &document(&after));
    if !order.dry_run {
        desk.edit(&letter, after, &by, &order.why).await?;
    }
    Ok(Json(
        json!({ "id": id, "dry_run": order.dry_run, "diff": difference }),
    ))
}

/// `GET /dead-letters/{id}/document`: what an edit changes.
pub(super) async fn shown(
    State(context): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let letter = context.desk().letter(letter_id(id)?).await?;
    Ok(Json(document(letter.message())))
}

/// `GET /dead-letters/export`: a page of letters as JSON lines, oldest first; the header
/// `backstitch-next` has the `after` of the next page.
pub(super) async fn export(State(context): Shared, query: Queried) -> Result<Response, Problem> {
    let desk = context.desk();
    let Asked { filter, mut page } = asked(query, desk.environment.now(), EXPORT_LETTERS_MAX)?;
    page.oldest_first = true;
    let heads = desk.letters.letters(&filter, &page).await?;
    let mut lines = String::new();
    let mut told = 0;
    for head in &heads {
        let write = |line: String| {
            lines.push_str(&line);
            lines.push('\n');
            Ok::<(), std::convert::Infallible>(())
        };
        let one = Selection::Ids(vec![head.id]);
        let Ok(_count) = desk.export(one, Macs::Masked, write).await?;
        told += 1;
        if lines.len() >= EXPORT_BYTES {
            break;
        }
    }
    let whole = if told == heads.len() {
        page.limit
    } else {
        told
    };
    let next = LetterListView::new(&heads[..told], whole).next;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let mut response = (kind, lines).into_response();
    if let Some(next) = next.and_then(|next| next.parse().ok()) {
        response.headers_mut().insert("backstitch-next", next);
    }
    Ok(response)
}

/// `POST /dead-letters/import`: letters as the export writes them, each a line.
pub(super) async fn import(
    State(context): Shared,
    Signed(caller): Signed,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Import {
        #[serde(alias = "on_behalf_of")]
        by: Option<String>,
        why: String,
        letters: Vec<Value>,
    }
    let Import { by, why, letters } = parse(&json_body(&context, &headers, body)?)?;
    let by = author(&caller, by.as_deref(), &why, INTO)?;
    let (mut new, mut known) = (0_u64, 0_u64);
    for letter in letters {
        if context
            .desk()
            .import(&letter.to_string(), &by, &why)
            .await?
        {
            new += 1;
        } else {
            known += 1;
        }
    }
    Ok(Json(json!({ "new": new, "known": known })))
}

/// `POST /dead-letters/purge`: deletes what was handled longer ago than `older_than`.
pub(super) async fn purge(
    State(context): Shared,
    Signed(caller): Signed,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Purge {
        #[serde(alias = "on_behalf_of")]
        by: Option<String>,
        why: String,
        older_than: String,
    }
    let order: Purge = parse(&json_body(&context, &headers, body)?)?;
    let by = author(&caller, order.by.as_deref(), &order.why, INTO)?;
    let age: Duration = parse_duration(&order.older_than).map_err(Problem::malformed)?;
    let purged = context.desk().purge(age, &by, &order.why).await?;
    Ok(Json(json!({ "purged": purged })))
}

/// `GET /dead-letters/audit`: entries after `after`, and whether the whole chain holds with
/// `verify=true`.
pub(super) async fn audit(State(context): Shared, query: Queried) -> Result<Json<Value>, Problem> {
    let Query(fields) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let number = |name: &str| fields.get(name).map(|text| text.parse()).transpose();
    let wrong = |_| Problem::malformed("`after` and `limit` are numbers");
    let after = number("after").map_err(wrong)?.unwrap_or(0_u64);
    let limit = number("limit")
        .map_err(wrong)?
        .map_or(LETTERS_DEFAULT, |limit: u64| {
            usize::try_from(limit)
                .unwrap_or(LETTERS_MAX)
                .min(LETTERS_MAX)
        });
    let desk = context.desk();
    if fields.get("verify").is_some_and(|text| text == "true") {
        let check = desk.check_audit(|_| {}).await?;
        let broken = check.broken.map(|broken| broken.to_string());
        return Ok(Json(json!({ "entries": check.entries, "broken": broken })));
    }
    let entries = desk.letters.letter_audit(None, after, limit).await?;
    let entries: Vec<_> = entries.iter().map(AuditView::new).collect();
    Ok(Json(json!({ "entries": entries })))
}
