//! The page over an API whose answers are fixed.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::{Value, json};
use tower::ServiceExt;

/// What an operator's screen must not take for markup, nor let turn the words around it.
pub(super) const HOSTILE: &str = "<script>alert(1)</script>\"'&amp;\u{202e}\u{0}\u{1b}[31m";
pub(super) const ID: &str = "01a21fe8-c767-71f2-b185-840cddb40b31";

pub(super) fn over(api: Router) -> Router {
    super::router(api)
}

pub(super) async fn ask(router: &Router, request: Request) -> (StatusCode, HeaderMap, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    (head.status, head.headers, text)
}

pub(super) fn read(path: &str) -> Request {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(super) fn form(path: &str, body: &'static str) -> Request {
    Request::post(path)
        .header("host", "saga.local")
        .header("origin", "http://saga.local")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(body))
        .unwrap()
}

pub(super) fn answered(value: Value) -> axum::routing::MethodRouter {
    any(move || {
        let value = value.clone();
        async move { axum::Json(value) }
    })
}

pub(super) fn problem(status: StatusCode) -> Response {
    let body = json!({ "code": "BST-0033", "reason": format!("not like this: {HOSTILE}") });
    (status, axum::Json(body)).into_response()
}

fn row() -> Value {
    json!({ "saga_id": ID, "saga": HOSTILE, "version": 1, "key": HOSTILE, "status": "suspended",
        "reason": HOSTILE, "cause": { "id": "a", "reason": HOSTILE, "since": "2026-11-01T00:00:00Z" },
        "awaits": { "step": HOSTILE, "phase": "reserve" }, "labels": { HOSTILE: HOSTILE },
        "started_at": "2026-11-01T00:00:00Z", "updated_at": "2026-11-01T00:00:00Z", "ended_at": null })
}

fn saga() -> Value {
    let mut saga = row();
    let more = json!({
        "why": { "text": HOSTILE, "for": "person", "step": "stock", "since": "2026-11-01T00:00:00Z", "until": null },
        "description": HOSTILE, "input": { HOSTILE: HOSTILE }, "output": null, "deadline": null,
        "revision": 1, "next": null,
        "stages": { "all": { HOSTILE: 1 }, "steps": [{ "step": "stock", "count": 1, "stages": { HOSTILE: 1 } }] },
        "steps": [{ "step": "stock", "depth": 0, "status": "reserving", "phase": "reserve", "attempt": 1, "attempts_max": 5,
            "waiting": { "for": "person", "until": null }, "with": HOSTILE, "reply": HOSTILE, "reason": HOSTILE,
            "commands": { "reserve": HOSTILE } }],
        "signals": [{ "name": HOSTILE, "id": HOSTILE, "body": HOSTILE }],
        "timeline": [{ "seq": 1, "at": "2026-11-01T00:00:00Z", "after_us": 5, "cause": "start",
            "events": [{ "text": HOSTILE, "event": "started", "input": HOSTILE }] }],
        "journal": { "entries": 1, "verified": false, "problem": HOSTILE },
    });
    for (name, value) in more.as_object().unwrap() {
        saga[name] = value.clone();
    }
    saga
}

fn hostile_api() -> Router {
    let letter = json!({ "id": ID, "at": "2026-11-01T00:00:00Z", "queue": HOSTILE, "status": "open", "code": HOSTILE, "reason": HOSTILE });
    let count = json!({ "sagas": 1, "or_more": false });
    let group = json!({ "cause": HOSTILE, "saga": HOSTILE, "step": HOSTILE, "phase": "reserve", "reason": HOSTILE,
        "count": count, "oldest": "2026-11-01T00:00:00Z", "last_hour": count, "hour_before": count });
    let tree = json!({ "kind": "sequence", "children": [{ "kind": "step", "path": "stock", "label": HOSTILE }] });
    let definition = json!({ "name": HOSTILE, "version": 1, "description": HOSTILE, "known_since": "2026-11-01T00:00:00Z",
        "source": HOSTILE, "key": HOSTILE, "labels": [{ "name": HOSTILE, "value": HOSTILE }], "input_schema": { "type": HOSTILE }, "tree": tree });
    let line = json!({ "name": HOSTILE, "version": 1, "starts": 1, "description": HOSTILE,
        "versions": [{ "version": 1, "live": 1, "known_since": "2026-11-01T00:00:00Z" }] });
    Router::new()
        .route("/v1/sagas", answered(json!({ "sagas": [row()], "next": HOSTILE, "count": count })))
        .route("/v1/sagas/groups", answered(json!({ "groups": [group] })))
        .route("/v1/sagas/{saga}", get(|| async { axum::Json(saga()) }))
        .route("/v1/sagas/{saga}/steps", answered(saga()))
        .route("/v1/sagas/{saga}/timeline", answered(saga()))
        .route("/v1/sagas/{saga}/{action}", any(|| async { problem(StatusCode::CONFLICT) }))
        .route("/v1/jobs", answered(json!({ "total": count, "sample": [row()], "id": ID })))
        .route("/v1/dead-letters", answered(json!({ "dead_letters": [letter] })))
        .route("/v1/dead-letters/groups", answered(json!({ "groups": [{ "fingerprint": HOSTILE, "open": 1, "last_at": null, "newest": letter }] })))
        .route("/v1/readyz", answered(json!({ "ready": false, "reasons": [{ "part": HOSTILE, "reason": HOSTILE }] })))
        .route("/v1/definitions", answered(json!({ "definitions": [line] })))
        .route("/v1/definitions/{name}", answered(definition))
}

#[tokio::test]
async fn what_came_from_outside_is_text_in_every_view() {
    let router = over(hostile_api());
    let saga = format!("/ui/sagas/{ID}");
    let query = "/ui/sagas?name=%3Cscript%3Ealert(1)%3C/script%3E&x=%22%3E%3Cscript%3E";
    let act = format!("/ui/act?action=skip&id={ID}");
    for path in [
        "/ui",
        query,
        &saga,
        &act,
        "/ui/definitions",
        "/ui/definitions/a",
    ] {
        let (status, headers, html) = ask(&router, read(path)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {html}");
        assert!(!html.contains("<script>alert"), "{path}: {html}");
        assert!(
            html.contains("&lt;script&gt;") || html.contains("&#60;script&#62;"),
            "{path}"
        );
        for hidden in ['\u{202e}', '\u{0}', '\u{1b}'] {
            assert!(!html.contains(hidden), "{path} has {hidden:?}");
        }
        // No script and no style of the page's own, so that the policy can forbid them.
        assert!(
            !html.contains(" style=") && !html.contains(" onclick="),
            "{path}"
        );
        assert_eq!(html.matches("<script").count(), 1, "{path}");
        assert_eq!(html.matches("<h1>").count(), 1, "{path}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    }
}

#[tokio::test]
async fn a_refusal_is_shown_where_it_was_asked_for_and_keeps_what_was_typed() {
    let router = over(hostile_api());
    let request = form(
        &format!("/ui/sagas/{ID}/retry"),
        "why=because+of+x&by=ada&step=stock",
    );
    let (status, _, html) = ask(&router, request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        html.contains("role=\"alert\"") && html.contains("BST-0033"),
        "{html}"
    );
    assert!(
        html.contains("value=\"because of x\"") && html.contains("value=\"ada\""),
        "{html}"
    );

    let request = form(
        &format!("/ui/sagas/{ID}/skip"),
        "why=x&by=ada&step=stock&reply=%7Bnot",
    );
    let (_, _, html) = ask(&router, request).await;
    assert!(html.contains("`reply` is not JSON"), "{html}");
}

#[tokio::test]
async fn what_is_taken_leads_on_by_a_redirect() {
    let router = over(hostile_api());
    let body = "action=retry&filter=status%3Dsuspended&why=mended&by=ada&rate=20%2Fs&canary=1";
    let (status, headers, _) = ask(&router, form("/ui/act", body)).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(
        headers[header::LOCATION],
        format!("/ui/jobs/{}", super::address::segment(ID))
    );
    let cookie = headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("backstitch_name=ada;") && cookie.contains("SameSite=Strict"));
}

#[tokio::test]
async fn a_form_of_another_site_changes_nothing() {
    let reached = any(async || -> StatusCode { panic!("the API was asked") });
    let router = over(Router::new().route("/v1/{*rest}", reached));
    let mut request = form("/ui/act", "action=cancel&filter=status%3Dlive&why=x&by=x");
    let evil = "https://evil.example".parse().unwrap();
    request.headers_mut().insert(header::ORIGIN, evil);
    let (status, _, html) = ask(&router, request).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(html.contains("not sent by a page of this server"), "{html}");
}

#[tokio::test]
async fn a_form_may_be_as_large_as_what_the_api_takes_and_not_larger() {
    let router = over(hostile_api());
    let start = |bytes: usize| {
        // Each character is spelt as three.
        let input = format!("input=%22{}%22", "%41".repeat(bytes));
        let mut request = form("/ui/definitions/a/start", "");
        *request.body_mut() = Body::from(input);
        request
    };
    let (status, _, html) = ask(&router, start(1024 * 1024 - 2)).await;
    assert_eq!(
        status,
        StatusCode::OK,
        "it came to the API, which says no: {html}"
    );
    let (status, _, html) = ask(&router, start(3 * 1024 * 1024)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(html.contains("the form could not be read"), "{html}");
}

#[tokio::test]
async fn who_is_not_known_signs_in_and_is_known_to_the_api() {
    let api = any(|request: Request| async move {
        let known = request.headers().get(header::AUTHORIZATION);
        if known.is_none_or(|value| value != "Bearer bst_secret") {
            return problem(StatusCode::UNAUTHORIZED);
        }
        axum::Json(json!({ "definitions": [] })).into_response()
    });
    let router = over(Router::new().route("/v1/{*rest}", api));
    let (status, headers, _) = ask(&router, read("/ui/definitions?x=1")).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let to = headers[header::LOCATION].to_str().unwrap();
    assert_eq!(to, "/ui/sign-in?next=%2Fui%2Fdefinitions%3Fx%3D1");
    let (_, _, html) = ask(&router, read(to)).await;
    assert!(html.contains("value=\"/ui/definitions?x=1\""), "{html}");

    // Nobody is led back to where a form was sent.
    let sent = form(&format!("/ui/sagas/{ID}/retry"), "why=x&by=x");
    let (_, headers, _) = ask(&router, sent).await;
    assert_eq!(headers[header::LOCATION], "/ui/sign-in?next=%2Fui");

    let request = form("/ui/sign-in", "token=+bst_secret&next=%2Fui%2Fdefinitions");
    let (status, headers, _) = ask(&router, request).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(headers[header::LOCATION], "/ui/definitions");
    let cookie = headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let mut request = read("/ui/definitions");
    let sent = cookie.split(';').next().unwrap().parse().unwrap();
    request.headers_mut().insert(header::COOKIE, sent);
    let (status, _, html) = ask(&router, request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(html.contains("Sign out"), "{html}");
}

#[tokio::test]
async fn the_api_is_where_it_was() {
    let router = over(Router::new().route("/sagas", answered(json!({ "sagas": [] }))));
    let (status, _, body) = ask(&router, read("/sagas")).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "{\"sagas\":[]}"));
    let mut request = read("/");
    *request.method_mut() = Method::GET;
    let (status, headers, _) = ask(&router, request).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(headers[header::LOCATION], "/ui");
    let (status, _, html) = ask(&router, read("/ui/nowhere")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(html.contains("there is no such page"));
}
