//! Looking at dead letters.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::problem::Problem;
use crate::view::LetterView;

/// Letters of a page when the request does not say.
const LETTERS_DEFAULT: usize = 50;
/// Most letters of a page: each may carry a large body.
const LETTERS_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LettersQuery {
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Letters {
    dead_letters: Vec<LetterView>,
}

/// `GET /dead-letters`: newest first.
pub(super) async fn list(
    State(context): Shared,
    query: Result<Query<LettersQuery>, QueryRejection>,
) -> Result<Json<Letters>, Problem> {
    let Query(query) = query.map_err(|wrong| Problem::malformed(wrong.body_text()))?;
    let limit = query.limit.unwrap_or(LETTERS_DEFAULT).min(LETTERS_MAX);
    let letters = context.api.engine.store().dead_letters(limit).await?;
    Ok(Json(Letters {
        dead_letters: letters.iter().map(LetterView::new).collect(),
    }))
}
