//! Every endpoint with every kind of caller who may not use it, made from the table of endpoints.

use axum::body::{Body, to_bytes};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::guard::About;
use super::*;
use crate::access::rights::{SCOPES, Scope};
use crate::access::token;
use crate::broker::memory::MemoryBroker;
use crate::definition::parse;
use crate::engine::{EngineOptions, EngineParts};
use crate::environment::TokioEnvironment;
use crate::store::dead_letters::Actor;
use crate::store::memory::MemoryStore;
use crate::store::{TokenRow, TokenStore};

const APPROVAL: &str = "
saga: approval
version: 1
key: ${ input.id }
steps:
  - wait: approved
    timeout: none
";

fn ann() -> Actor {
    Actor {
        by: "ann".to_owned(),
        why: "test".to_owned(),
        at: TokioEnvironment.now(),
    }
}

/// A node whose API is called without a network.
pub(super) struct Bundle {
    store: MemoryStore,
    pub(super) router: Router,
    pub(super) engine: Arc<Engine>,
}

impl Bundle {
    async fn start() -> Self {
        Self::start_in(Arc::new(TokioEnvironment)).await
    }

    /// With an API, but no engine, that lives in this world.
    pub(super) async fn start_in(environment: Arc<dyn Environment>) -> Self {
        let store = MemoryStore::new();
        let engine = Engine::start(EngineParts {
            environment: Arc::new(TokioEnvironment),
            store: Arc::new(store.clone()),
            broker: Arc::new(MemoryBroker::new()),
            definitions: vec![parse(APPROVAL, "approval.yaml").unwrap().into()],
            options: EngineOptions::default(),
        });
        let engine = engine.await.unwrap();
        let tokens = Arc::new(store.clone());
        let router = router(Api {
            engine: Arc::clone(&engine),
            access: Arc::new(Access::new(Arc::clone(&environment), tokens, None)),
            aggregates: Aggregates::shipped(&environment, Arc::new(store.clone())),
            search: Arc::new(store.clone()),
            database: "memory",
            census: Arc::new(store.clone()),
            jobs: Arc::new(store.clone()),
            requests: Arc::new(store.clone()),
            letters: Arc::new(store.clone()),
            environment,
            metrics: None,
            stopping: Shutdown::default(),
            limits: Limits::default(),
        });
        Self {
            store,
            router,
            engine,
        }
    }

    pub(super) async fn revoke_all(&self) {
        for row in self.store.tokens().await.unwrap() {
            self.store.revoke_token(row.id, &ann()).await.unwrap();
        }
    }

    pub(super) async fn token(&self, rights: &str, is_expired: bool) -> String {
        let secret = token::fresh().unwrap();
        let now = TokioEnvironment.now();
        let row = TokenRow {
            id: TokioEnvironment.new_id(),
            name: "night-shift".to_owned(),
            hash: token::hashed(&secret),
            rights: rights.to_owned(),
            made_at: now,
            expires_at: is_expired.then_some(now),
            revoked_at: None,
            used_at: None,
        };
        self.store.put_token(&row, &ann()).await.unwrap();
        secret
    }

    async fn call(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if *method == Method::GET {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let request = request.body(body).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        let status = response.status();
        let asks = response.headers().contains_key("www-authenticate");
        assert_eq!(asks, status == StatusCode::UNAUTHORIZED);
        let kind = response.headers().get("content-type");
        if kind.is_some_and(|kind| kind == "text/event-stream") {
            // It has no end.
            return (status, Value::Null);
        }
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn start_one(&self, token: &str, id: &str) -> String {
        let body = json!({ "id": id });
        let (status, answer) = self
            .call(&Method::POST, "/sagas/approval", Some(token), &body)
            .await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["saga_id"].as_str().unwrap().to_owned()
    }
}

/// A path of an endpoint, about a saga of this id.
fn filled(path: &str, about: Option<About>, id: &str) -> String {
    let saga = if about == Some(About::Id) {
        id
    } else {
        "approval"
    };
    path.replace("{saga}", saga)
        .replace("{action}", "pause")
        .replace("{signal}", "approved")
        .replace("{key}", "k")
        .replace("{letter}", "00000000-0000-0000-0000-000000000001")
}

fn is_about_sagas(scope: Scope) -> bool {
    let text = format!("{scope}@approval");
    text.parse::<crate::access::rights::Rights>().is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_would_read_the_same_again_is_told_so() {
    let bundle = Bundle::start().await;
    let asked = async |path: &str, tag: Option<&str>| {
        let mut request = Request::builder().uri(path);
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = bundle.router.clone().oneshot(request).await.unwrap();
        let tag = response.headers().get("etag").cloned();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, tag, body)
    };
    let (status, tag, body) = asked("/sagas", None).await;
    let tag = tag.unwrap().to_str().unwrap().to_owned();
    assert_eq!(status, 200);
    assert_eq!(asked("/v1/sagas", None).await.2, body, "the same versioned");
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let (status, again, body) = asked("/sagas", Some(&known)).await;
        assert_eq!((status, body.len()), (304, 0), "{known}");
        assert_eq!(again.unwrap().to_str().unwrap(), tag);
    }
    let body = json!({ "id": "1" });
    bundle
        .call(&Method::POST, "/v1/sagas/approval", None, &body)
        .await;
    let (status, ..) = asked("/sagas", Some(&tag)).await;
    assert_eq!(status, 200, "another answer has another tag");
    let (status, tag, _) = asked("/sagas/x", Some("*")).await;
    assert_eq!((status, tag), (400, None), "a problem has none");
    bundle.engine.stop().await;
}

#[tokio::test]
async fn a_problem_has_the_form_of_the_standard() {
    let bundle = Bundle::start().await;
    let request = Request::builder().uri("/v1/sagas/x").body(Body::empty());
    let response = bundle
        .router
        .clone()
        .oneshot(request.unwrap())
        .await
        .unwrap();
    let kind = &response.headers()["content-type"];
    assert_eq!(kind, "application/problem+json");
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let problem: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(problem["status"], 400);
    assert_eq!(problem["type"], "urn:backstitch:BST-0040");
    assert!(!problem["title"].as_str().unwrap().is_empty());
    assert_eq!(problem["detail"], problem["reason"]);
    bundle.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_lets_in_who_may_and_nobody_else() {
    let bundle = Bundle::start().await;
    let admin = bundle.token("admin", false).await;
    let expired = bundle.token("admin", true).await;
    let id = bundle.start_one(&admin, "one").await;
    let nothing = json!({});
    for endpoint in routes::endpoints() {
        let (scope, about) = match endpoint.need {
            Need::Nothing => (None, None),
            Need::Scope(scope, about) => (Some(scope), Some(about)),
        };
        let name = match about {
            Some(About::Named(name)) => name,
            _ => "approval",
        };
        let (method, path) = (&endpoint.method, filled(endpoint.path, about, &id));
        let what = format!("{method} {path}");
        let call = async |token: Option<&str>| bundle.call(method, &path, token, &nothing).await.0;
        let Some(scope) = scope else {
            assert_eq!(call(None).await, StatusCode::OK, "{what}");
            continue;
        };
        for token in [None, Some("bst_wrong"), Some("a.b.c"), Some(&*expired)] {
            assert_eq!(
                call(token).await,
                StatusCode::UNAUTHORIZED,
                "{what} {token:?}"
            );
        }
        let others = SCOPES
            .iter()
            .filter(|(other, ..)| *other != scope && *other != Scope::Admin);
        let others: Vec<&str> = others.map(|(_, text, _)| *text).collect();
        let mut too_small = vec![others.join(" ")];
        if is_about_sagas(scope) {
            too_small.push(format!("{scope}@another"));
        }
        for rights in too_small {
            let token = bundle.token(&rights, false).await;
            let (status, answer) = bundle.call(method, &path, Some(&token), &nothing).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{what} {rights}");
            assert_eq!(answer["code"], "BST-0048", "{what} {rights}");
        }
        let mut enough = vec![scope.to_string()];
        if is_about_sagas(scope) && about != Some(About::Everything) {
            enough.push(format!("{scope}@{name},another"));
        }
        for rights in enough {
            let token = bundle.token(&rights, false).await;
            let path = match about {
                Some(About::QueriedName) => format!("{path}?name=approval"),
                _ => path.clone(),
            };
            let status = bundle.call(method, &path, Some(&token), &nothing).await.0;
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
            assert!(!refused.contains(&status), "{what} {rights}: {status}");
        }
    }
    bundle.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_show_and_count_no_sagas_of_names_that_the_caller_may_not_see() {
    let bundle = Bundle::start().await;
    let admin = bundle.token("admin", false).await;
    let saga = bundle.start_one(&admin, "one").await;
    let path = format!("/sagas/{saga}/force-compensated");
    let body = json!({ "why": "so that there is a cause" });
    let (status, answer) = bundle.call(&Method::POST, &path, Some(&admin), &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");

    let token = bundle.token("sagas:read@another", false).await;
    let read = async |token: &str, path: &str| {
        let nothing = Value::Null;
        bundle.call(&Method::GET, path, Some(token), &nothing).await
    };
    for (path, found) in [("/sagas?count=true", "sagas"), ("/sagas/groups", "groups")] {
        let (path, rest) = path.split_once('?').unwrap_or((path, ""));
        for query in [
            String::new(),
            "name=approval".to_owned(),
            "n%61me=approval".to_owned(),
            "name=another&name=approval".to_owned(),
            "name=another&n%61me=approval".to_owned(),
            "n%61me=approval&name=another".to_owned(),
            "name=another,approval".to_owned(),
            "name=".to_owned(),
            format!("id={saga}"),
            "status=ended".to_owned(),
        ] {
            let path = format!("{path}?{query}&{rest}");
            let (status, _) = read(&token, &path).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        }
        let all = format!("{path}?status=ended&{rest}");
        let (status, seen) = read(&admin, &all).await;
        let of_admin = seen[found].as_array().map(Vec::len);
        assert_eq!((status, of_admin), (StatusCode::OK, Some(1)), "{seen}");
        for name in ["another", "%61nother"] {
            let path = format!("{path}?name={name}&status=ended,live&{rest}");
            let (status, seen) = read(&token, &path).await;
            assert_eq!((status, &seen[found]), (StatusCode::OK, &json!([])));
            if found == "sagas" {
                assert_eq!(seen["count"], json!({ "sagas": 0, "or_more": false }));
            }
        }
    }
    bundle.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_what_waits_for_a_signal_or_a_person_and_others_are_not_shown() {
    let bundle = Bundle::start().await;
    let admin = bundle.token("admin", false).await;
    let (one, two) = (
        bundle.start_one(&admin, "one").await,
        bundle.start_one(&admin, "two").await,
    );
    let read = async |token: &str, path: &str| {
        let nothing = Value::Null;
        bundle.call(&Method::GET, path, Some(token), &nothing).await
    };
    let (status, list) = read(&admin, "/tasks").await;
    assert_eq!(status, StatusCode::OK);
    for (task, (saga, key)) in [(&one, "one"), (&two, "two")].into_iter().enumerate() {
        let task = &list["tasks"][task];
        assert_eq!(
            (&task["saga_id"], &task["key"]),
            (&json!(saga), &json!(key))
        );
        assert_eq!(task["saga"], "approval");
        assert_eq!(
            (&task["for"], &task["signal"]),
            (&json!("signal"), &json!("approved"))
        );
        assert!(
            task["since"].is_string() && task["until"].is_null(),
            "{task}"
        );
    }
    let (_, page) = read(&admin, "/tasks?limit=1&name=approval").await;
    assert_eq!(
        (&page["tasks"][0]["key"], &page["next"]),
        (&json!("one"), &json!(one))
    );
    let (_, page) = read(&admin, &format!("/tasks?after={one}")).await;
    assert_eq!(page["tasks"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&page["tasks"][0]["key"], &page["next"]),
        (&json!("two"), &Value::Null)
    );

    let small = bundle.token("sagas:read@another", false).await;
    assert_eq!(read(&small, "/tasks").await.0, StatusCode::FORBIDDEN);
    assert_eq!(
        read(&small, "/tasks?name=another").await.1["tasks"],
        json!([])
    );

    let body = json!({ "why": "stock-taking" });
    for (action, saga) in [("pause", &one), ("force-complete", &two)] {
        let path = format!("/sagas/{saga}/{action}");
        let (status, answer) = bundle.call(&Method::POST, &path, Some(&admin), &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let (_, list) = read(&admin, "/tasks").await;
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["tasks"][0]["for"], "resume");
    bundle.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_signed_in_stands_in_the_journal_whatever_the_request_says() {
    let bundle = Bundle::start().await;
    let admin = bundle.token("admin", false).await;
    for (id, said, expected) in [
        ("one", Value::Null, "night-shift"),
        ("two", json!("root"), "night-shift (on behalf of root)"),
    ] {
        let saga = bundle.start_one(&admin, id).await;
        let mut body = json!({ "why": "the shop closes" });
        if !said.is_null() {
            body["by"] = said;
        }
        let path = format!("/sagas/{saga}/pause");
        let (status, answer) = bundle.call(&Method::POST, &path, Some(&admin), &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let path = format!("/sagas/{saga}");
        let (_, shown) = bundle
            .call(&Method::GET, &path, Some(&admin), &Value::Null)
            .await;
        let text = format!("\"{expected}\"");
        assert!(shown.to_string().contains(&text), "{shown}");
    }
    bundle.engine.stop().await;
}
