//! The front door, what is live, and what there is not.

use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Redirect, Response};

use super::address::ROOT;
use super::address::segment;
use super::api::{Failure, Reader};
use super::shell::Refusal;

/// `GET /`.
pub(super) async fn front() -> Redirect {
    Redirect::to(ROOT)
}

/// `GET /ui/live`: what changes of the numbers, as it changes. The API's stream: scripts of a page can't
/// send the header that says who they are, only the cookie.
pub(super) async fn live(reader: Reader, headers: HeaderMap) -> Response {
    let last_seen = headers.get("last-event-id").cloned();
    reader.stream("/live", last_seen).await
}

/// `GET /ui/sagas/live`: sagas of a list that change.
pub(super) async fn live_list(
    reader: Reader,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let last_seen = headers.get("last-event-id").cloned();
    let path = format!("/sagas/live?{}", query.unwrap_or_default());
    reader.stream(&path, last_seen).await
}

/// `GET /ui/sagas/{saga}/live`: what happens to one saga.
pub(super) async fn live_saga(
    reader: Reader,
    Path(saga): Path<String>,
    headers: HeaderMap,
) -> Response {
    let last_seen = headers.get("last-event-id").cloned();
    let path = format!("/sagas/{}/live", segment(&saga));
    reader.stream(&path, last_seen).await
}

/// Whatever else is asked for.
pub(super) async fn nothing(reader: Reader) -> Refusal {
    let reason = "there is no such page";
    Refusal::new(&reader, Failure::new(StatusCode::NOT_FOUND, reason))
}
