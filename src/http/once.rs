//! Requests that bear an `Idempotency-Key`: carried out once, answered alike however often they come.
//!
//! A key belongs to who sends it, for a day. The same key with another path or body is refused; while the first request is being
//! carried out, the others are asked to come again. An answer that the node could not do it (a 5xx) is not kept, for
//! then it may be tried again. A signal's key is the signal's own id, by which its saga knows it for ever.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::{Context, VERSION};
use crate::access::Caller;
use crate::error::code;
use crate::saga::journal::Hash;
use crate::store::requests::{Answer, Claim, Claimed};

const KEY: &str = "idempotency-key";
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// Says that an answer was given before.
const REPLAYED: &str = "idempotency-replayed";
/// Largest answer that is kept, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// What is kept instead of a larger one.
const TOO_LARGE: &str = "{\"note\":\"it was carried out; its answer was too large to be kept\"}";

/// Answers a request, by carrying it out if nobody has.
pub(super) async fn answer(context: Arc<Context>, request: Request, next: Next) -> Response {
    let key = match key_of(&request) {
        Ok(Some(key)) => key.to_owned(),
        Ok(None) => return next.run(request).await,
        Err(problem) => return problem.into_response(),
    };
    let (parts, body) = request.into_parts();
    // It was taken in whole before.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let claim = Claim {
        id: id_of(&parts, &key),
        fingerprint: fingerprint(&parts, &body),
        at: context.api.engine.now(),
    };
    let requests = &context.api.requests;
    match requests.claim(&claim).await {
        Ok(Claimed::Ours) => {}
        Ok(Claimed::Answered(answer)) => return replayed(answer),
        Ok(Claimed::Pending) => {
            let reason = "a request with the same `Idempotency-Key` is being carried out; try again in a moment";
            return Problem::unavailable(code::NODE_BUSY, reason).into_response();
        }
        Ok(Claimed::Other) => {
            let reason = "this `Idempotency-Key` was used for another request; make a new key for each, and send the same one only to try again";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return Problem::new(status, code::KEY_REUSED, reason).into_response();
        }
        Err(error) => return Problem::from(error).into_response(),
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if response.status().is_server_error() {
        if let Err(error) = requests.give_up(&claim).await {
            tracing::debug!(%error, "a request that failed can be tried again only after a while");
        }
        return response;
    }
    let (head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let text = |name| Some(head.headers.get(name)?.to_str().ok()?.to_owned());
    let kept: &[u8] = if body.len() <= ANSWER_BYTES_MAX {
        &body
    } else {
        TOO_LARGE.as_bytes()
    };
    let answer = Answer {
        status: head.status.as_u16(),
        location: text(header::LOCATION),
        kind: text(header::CONTENT_TYPE),
        body: kept.to_vec(),
    };
    if let Err(error) = requests.keep_answer(&claim, &answer).await {
        tracing::warn!(%error, "an answer was not kept: the same request again may be carried out again");
    }
    Response::from_parts(head, Body::from(body))
}

/// The key of a request that changes something and is not a signal.
fn key_of(request: &Request) -> Result<Option<&str>, Problem> {
    let Some(key) = request.headers().get(KEY) else {
        return Ok(None);
    };
    if *request.method() == Method::GET || request.uri().path().contains("/signals/") {
        return Ok(None);
    }
    let key = key.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Problem::malformed(format!(
            "`Idempotency-Key` must be plain text of 1 to {KEY_BYTES_MAX} bytes"
        )));
    }
    Ok(Some(key))
}

fn id_of(parts: &Parts, key: &str) -> Hash {
    let caller = parts.extensions.get::<Caller>();
    let name = caller.and_then(|caller| caller.name.as_deref());
    hash(&[name.unwrap_or_default().as_bytes(), key.as_bytes()])
}

fn fingerprint(parts: &Parts, body: &Bytes) -> Hash {
    let path = parts.uri.path();
    let path = path.strip_prefix(VERSION).unwrap_or(path);
    let query = parts.uri.query().unwrap_or_default();
    hash(&[path.as_bytes(), query.as_bytes(), body])
}

/// Of parts whose borders count.
fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn replayed(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in [
        (header::LOCATION, answer.location),
        (header::CONTENT_TYPE, answer.kind),
    ] {
        let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::Bundle;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_same_request_again_is_answered_alike_and_another_one_is_refused() {
        let node = Bundle::start().await;
        node.order("o-1").await;
        let job = |why: &str| {
            json!({ "action": "pause", "filter": "name=order", "by": "ann", "why": why })
                .to_string()
        };
        let made = node.post_once("/jobs", "k-1", &job("so")).await;
        assert_eq!(made.0, 201, "{}", made.1);
        for path in ["/jobs", "/v1/jobs"] {
            let again = node.post_once(path, "k-1", &job("so")).await;
            assert_eq!(again, made, "{path}");
        }
        let (_, listed) = node.get("/jobs").await;
        assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
        for (path, body) in [("/jobs", job("other")), ("/dead-letters/purge", job("so"))] {
            let (status, problem) = node.post_once(path, "k-1", &body).await;
            assert_eq!(
                (status, &problem["code"]),
                (422, &json!("BST-0054")),
                "{path}"
            );
        }
        let other = node.post_once("/jobs", "k-2", &job("so")).await;
        assert_eq!(other.0, 201);
        assert_ne!(other.1["id"], made.1["id"]);
        let long = "k".repeat(256);
        let (status, problem) = node.post_once("/jobs", &long, &job("so")).await;
        assert_eq!((status, &problem["code"]), (400, &json!("BST-0040")));
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refusals_are_kept_and_failures_are_not() {
        let node = Bundle::start().await;
        let wrong = json!({ "id": "o-1" }).to_string();
        let right = json!({ "id": "o-1", "total": 5 }).to_string();
        for _ in 0..2 {
            let (status, problem) = node.post_once("/sagas/order", "k-1", &wrong).await;
            assert_eq!((status, &problem["code"]), (422, &json!("BST-0014")));
        }
        let started = node.post_once("/sagas/order", "k-2", &right).await;
        assert_eq!(started.0, 201);
        // Without the key it is told that it is there already.
        assert_eq!(node.post("/sagas/order", right.clone()).await.0, 200);
        assert_eq!(node.post_once("/sagas/order", "k-2", &right).await, started);
        node.engine.stop().await;
        let other = json!({ "id": "o-2", "total": 5 }).to_string();
        for _ in 0..2 {
            let (status, problem) = node.post_once("/sagas/order", "k-3", &other).await;
            assert_eq!((status, &problem["code"]), (503, &json!("BST-0042")));
        }
        assert_ne!(started.1, Value::Null);
        node.stop().await;
    }
}
