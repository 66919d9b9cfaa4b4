//! Letters, tasks, schedules, jobs and the audit log over an API whose answers are fixed.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::any;
use serde_json::{Value, json};

use super::tests::{HOSTILE, ID, answered, ask, form, over, problem, read};

const AT: &str = "2026-11-01T00:00:00Z";

fn letter() -> Value {
    json!({ "id": ID, "at": AT, "queue": HOSTILE, "status": "open", "code": HOSTILE, "reason": HOSTILE,
        "origin": { "exchange": HOSTILE, "routing_key": HOSTILE, "queue": HOSTILE, "reason": HOSTILE, "count": 2 },
        "type": HOSTILE, "message_id": HOSTILE, "fingerprint": HOSTILE, "saga_id": ID, "step": HOSTILE, "replays": 1,
        "came_back_from": ID, "seen_again": 1, "edits": 1, "body_bytes": 5, "handled_at": null })
}

fn whole_letter() -> Value {
    let mut letter = letter();
    letter["properties"] = json!({ "headers": { HOSTILE: HOSTILE,
        "x-death": [{ "queue": HOSTILE, "reason": HOSTILE, "count": 3, "exchange": HOSTILE, "routing-keys": [HOSTILE], "time": HOSTILE }] } });
    letter["body"] = json!(HOSTILE);
    letter["body_cut"] = json!(false);
    letter["original"] = json!({ "properties": {}, "body": HOSTILE, "body_cut": true });
    letter["history"] = json!([{ "at": AT, "action": HOSTILE, "by": HOSTILE, "why": HOSTILE }, { "edit": 1, "at": AT, "by": HOSTILE, "why": HOSTILE }]);
    letter
}

fn job() -> Value {
    json!({ "id": ID, "state": "paused", "note": HOSTILE, "action": HOSTILE, "filter": HOSTILE, "by": HOSTILE, "why": HOSTILE,
        "rate": HOSTILE, "canary": 1, "total": { "sagas": 3, "or_more": false }, "done": 1, "refused": 1, "made_at": AT, "updated_at": AT })
}

fn hostile_api() -> Router {
    let ended = json!({ "saga_id": ID, "key": HOSTILE, "status": "completed", "ended_at": AT });
    let groups = json!({ "groups": [{ "count": 2, "open": 1, "first_at": AT, "last_at": AT, "newest": letter() }] });
    let task = json!({ "saga_id": ID, "saga": HOSTILE, "key": HOSTILE, "status": "running", "text": HOSTILE, "for": "signal",
        "signal": HOSTILE, "step": HOSTILE, "since": AT, "until": null });
    let schedule = json!({ "saga": HOSTILE, "rhythm": HOSTILE, "position": AT, "ahead_of_time": true, "absent_since": AT,
        "moved": { "by": HOSTILE, "why": HOSTILE, "at": AT }, "next": [AT] });
    let entry = json!({ "seq": 1, "at": AT, "action": HOSTILE, "letter": ID, "by": HOSTILE, "why": HOSTILE, "filter": HOSTILE });
    let replay = json!({ "replayed": 1, "sent": [{ "id": ID, "to": { "exchange": HOSTILE, "routing_key": HOSTILE } }],
        "refused": [{ "id": ID, "reason": HOSTILE }], "warnings": [HOSTILE], "may_be_more": true });
    let results =
        json!({ "results": [{ "saga_id": ID, "refused": HOSTILE, "at": AT }], "next": ID });
    let no = || any(|| async { problem(StatusCode::CONFLICT) });
    Router::new()
        .route("/v1/sagas", answered(json!({ "sagas": [ended] })))
        .route("/v1/sagas/{saga}/signals/{signal}", no())
        .route(
            "/v1/dead-letters",
            answered(json!({ "dead_letters": [letter()], "next": HOSTILE })),
        )
        .route("/v1/dead-letters/groups", answered(groups))
        .route("/v1/dead-letters/replay", answered(replay))
        .route("/v1/dead-letters/discard", no())
        .route(
            "/v1/audit",
            answered(json!({ "entries": [entry], "next": 1 })),
        )
        .route(
            "/v1/dead-letters/audit",
            answered(json!({ "entries": 1, "broken": HOSTILE })),
        )
        .route("/v1/dead-letters/{letter}", answered(whole_letter()))
        .route(
            "/v1/dead-letters/{letter}/document",
            answered(json!({ "body": HOSTILE })),
        )
        .route("/v1/dead-letters/{letter}/edit", no())
        .route(
            "/v1/tasks",
            answered(json!({ "tasks": [task], "next": ID })),
        )
        .route(
            "/v1/schedules",
            answered(json!({ "now": AT, "schedules": [schedule] })),
        )
        .route("/v1/schedules/{saga}", no())
        .route("/v1/jobs", answered(json!({ "jobs": [job()], "next": ID })))
        .route("/v1/jobs/{job}", answered(job()))
        .route("/v1/jobs/{job}/results", answered(results))
        .route("/v1/jobs/{job}/{command}", no())
}

#[tokio::test]
async fn what_came_from_outside_is_text_at_the_desk_too() {
    let router = over(hostile_api());
    for path in [
        "/ui/letters?queue=%3Cscript%3Ealert(1)%3C/script%3E&done=replay&sent=%3Cscript%3E",
        &format!("/ui/letters/{ID}"),
        &format!("/ui/letters/act?action=replay&id={ID}"),
        "/ui/letters/act?action=%3Cscript%3Ealert(1)&all=true&filter=a%3D%22%3E%3Cscript%3E",
        "/ui/tasks",
        "/ui/schedules",
        "/ui/jobs",
        &format!("/ui/jobs/{ID}"),
        "/ui/audit?verify=true&by=%3Cscript%3E",
    ] {
        let (status, _, html) = ask(&router, read(path)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {html}");
        assert_eq!(html.matches("<script").count(), 1, "{path}: {html}");
        for hidden in ['\u{202e}', '\u{0}', '\u{1b}'] {
            assert!(!html.contains(hidden), "{path} has {hidden:?}");
        }
        assert!(!html.contains(" style=") && !html.contains(" onclick="));
        assert_eq!(html.matches("<h1>").count(), 1, "{path}");
    }
}

#[tokio::test]
async fn what_the_api_refuses_is_said_beside_what_was_typed() {
    let router = over(hostile_api());
    let typed = "why=because+of+x&by=ada";
    for (path, body) in [
        (
            format!("/ui/letters/{ID}/edit"),
            "why=because+of+x&by=ada&document=%7B%7D&apply=true",
        ),
        (
            "/ui/letters/act".to_owned(),
            "action=discard&ids=a&why=because+of+x&by=ada",
        ),
        ("/ui/schedules/%3Cx%3E".to_owned(), typed),
        (format!("/ui/jobs/{ID}/abort"), typed),
        ("/ui/tasks".to_owned(), "saga=a&signal=b&payload=7"),
    ] {
        let (status, _, html) = ask(&router, form(&path, body)).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        let said = html.contains("role=\"alert\"") && html.contains("BST-0033");
        assert!(said && html.contains("not like this"), "{path}: {html}");
        let kept = path == "/ui/tasks"
            || path.starts_with("/ui/schedules")
            || html.contains("value=\"because of x\"");
        assert!(kept, "{path}: {html}");
    }
    let request = form("/ui/tasks", "saga=a&signal=b&payload=%7Bnot");
    let (_, _, html) = ask(&router, request).await;
    assert!(html.contains("`payload` is not JSON"), "{html}");
    // Of many letters those that were refused are named, with the reason.
    let request = form(
        "/ui/letters/act",
        "action=replay&filter=status%3Dopen&why=x&by=ada",
    );
    let (status, _, html) = ask(&router, request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(html.contains("1 refused") && html.contains(ID), "{html}");
}

/// The paths and bodies of what was asked for.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An API that takes everything, and puts down what it was asked for.
fn obliging_api() -> (Router, Asked) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let take = any(move |request: Request| {
        let heard = Arc::clone(&heard);
        async move {
            let path = request.uri().path().to_owned();
            let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            heard.lock().unwrap().push((path.clone(), body));
            let answer = match path.rsplit('/').next() {
                Some("edit") => json!({ "diff": "  {\n- \"a\"\n+ \"<b>\"\n" }),
                Some("document") => json!({ "body": 1 }),
                Some("replay") => {
                    json!({ "replayed": 3, "sent": [], "refused": [], "warnings": [] })
                }
                Some("sagas") => json!({ "sagas": [] }),
                _ => whole_letter(),
            };
            axum::Json(answer).into_response()
        }
    });
    (over(Router::new().route("/v1/{*rest}", take)), asked)
}

#[tokio::test]
async fn a_message_is_changed_only_after_the_difference_was_seen() {
    let (router, asked) = obliging_api();
    let path = format!("/ui/letters/{ID}/edit");
    let request = form(&path, "document=%7B%22body%22%3A2%7D&why=typo&by=ada");
    let (status, _, html) = ask(&router, request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        html.contains("<ins>+ &#34;&#60;b&#62;&#34;</ins>") && html.contains("<del>"),
        "{html}"
    );
    let sent = |asked: &Mutex<Vec<(String, Value)>>| {
        let asked = asked.lock().unwrap();
        let mut edits = asked.iter().filter(|(path, _)| path.ends_with("/edit"));
        edits.next_back().unwrap().1.clone()
    };
    let said = json!({ "document": { "body": 2 }, "why": "typo", "by": "ada", "dry_run": true });
    assert_eq!(sent(&asked), said);

    let request = form(
        &path,
        "document=%7B%22body%22%3A2%7D&why=typo&by=ada&apply=true",
    );
    let (status, headers, _) = ask(&router, request).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(
        headers[header::LOCATION]
            .to_str()
            .unwrap()
            .ends_with("?done=edit")
    );
    assert_eq!(sent(&asked)["dry_run"], json!(false));
}

#[tokio::test]
async fn a_replay_that_is_taken_leads_back_to_the_letters() {
    let (router, asked) = obliging_api();
    let body = "action=replay&filter=status%3Dopen%26queue%3Da&limit=1&rate=5&why=mended&by=ada";
    let (status, headers, _) = ask(&router, form("/ui/letters/act", body)).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(
        headers[header::LOCATION],
        "/ui/letters?queue=a&done=replay&sent=3&refused=0"
    );
    let (path, sent) = asked.lock().unwrap().pop().unwrap();
    assert_eq!(path, "/v1/dead-letters/replay");
    assert_eq!(
        sent,
        json!({ "filter": { "status": "open", "queue": "a" }, "limit": 1, "rate": 5, "why": "mended", "by": "ada",
            "again": false, "force": false })
    );
}
