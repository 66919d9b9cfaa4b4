//! Entity tags (RFC 9110, section 8.8.3) on what is read: whoever asks again with `If-None-Match` and
//! would read the same gets a 304 and no body.
//!
//! The tag is a hash of the answer, so it needs no knowledge of what was asked, and costs the node the
//! answer all the same: it saves the way, and the reader's work.

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// Largest answer that is tagged, in bytes.
const TAGGED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Tags answers that are whole, or says that nothing has changed.
pub(super) async fn tag(request: Request, next: Next) -> Response {
    let asked = (request.method() == Method::GET).then(|| {
        let asked = request.headers().get_all(header::IF_NONE_MATCH).iter();
        asked.cloned().collect::<Vec<_>>()
    });
    let response = next.run(request).await;
    let Some(asked) = asked.filter(|_| response.status() == StatusCode::OK) else {
        return response;
    };
    let (mut head, body) = response.into_parts();
    // What is not known in its length comes bit by bit, perhaps without an end.
    let length = body.size_hint().exact();
    if length.is_none_or(|length| length > TAGGED_BYTES_MAX) {
        return Response::from_parts(head, body);
    }
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let tag = tag_of(&bytes);
    let is_known = asked.iter().any(|value| names(value, &tag));
    if let Ok(value) = HeaderValue::from_str(&tag) {
        head.headers.insert(header::ETAG, value);
    }
    if !is_known {
        return Response::from_parts(head, Body::from(bytes));
    }
    let mut headers = HeaderMap::new();
    headers.extend(
        head.headers
            .remove(header::ETAG)
            .map(|tag| (header::ETAG, tag)),
    );
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

fn tag_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    format!("\"{}\"", hex::encode(&digest[..16]))
}

/// Whether a header names a tag, as a weak one too: reading is compared weakly.
fn names(value: &HeaderValue, tag: &str) -> bool {
    let text = value.to_str().unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == tag)
}
