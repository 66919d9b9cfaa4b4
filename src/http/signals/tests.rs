use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::access::Access;
use crate::broker::memory::MemoryBroker;
use crate::definition::parse;
use crate::engine::{Engine, EngineOptions, EngineParts};
use crate::environment::{Shutdown, TokioEnvironment};
use crate::http::{Api, Limits, router, serve};
use crate::store::memory::MemoryStore;

const APPROVAL: &str = "
saga: approval
version: 1
key: ${ input.id }
timeout: 30d
steps:
  - wait: approved
  - wait: signed
";

/// A node in this process, on a port of its own.
struct Bundle {
    base: String,
    engine: Arc<Engine>,
    end: Shutdown,
}

impl Bundle {
    async fn start() -> Self {
        let store = MemoryStore::new();
        let definition = parse(APPROVAL, "approval.yaml").unwrap_or_else(|why| panic!("{why}"));
        let engine = Engine::start(EngineParts {
            environment: Arc::new(TokioEnvironment),
            store: Arc::new(store.clone()),
            broker: Arc::new(MemoryBroker::new()),
            definitions: vec![definition.into()],
            options: EngineOptions::default(),
        });
        let engine = engine.await.unwrap();
        let end = Shutdown::default();
        let router = router(Api {
            engine: Arc::clone(&engine),
            access: Arc::new(Access::new(
                Arc::new(TokioEnvironment),
                Arc::new(store.clone()),
                None,
            )),
            aggregates: crate::http::Aggregates::shipped(
                &(Arc::new(TokioEnvironment) as Arc<dyn crate::environment::Environment>),
                Arc::new(store.clone()),
            ),
            search: Arc::new(store.clone()),
            database: "memory",
            census: Arc::new(store.clone()),
            jobs: Arc::new(store.clone()),
            requests: Arc::new(store.clone()),
            letters: Arc::new(store),
            environment: Arc::new(TokioEnvironment),
            metrics: None,
            stopping: Shutdown::default(),
            limits: Limits::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, None, router, end.clone()));
        Self { base, engine, end }
    }

    async fn post(&self, path: &str, id: Option<&str>, body: &str) -> (u16, Value) {
        let (url, body) = (format!("{}{path}", self.base), body.to_owned());
        let id = id.map(str::to_owned);
        let request = move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false);
            let agent: ureq::Agent = config.build().into();
            let mut request = agent.post(url).content_type("application/json");
            if let Some(id) = id {
                request = request.header("Idempotency-Key", id);
            }
            let mut answer = request.send(body.as_bytes()).unwrap();
            let text = answer.body_mut().read_to_string().unwrap();
            let status = answer.status().as_u16();
            (
                status,
                serde_json::from_str(&text).unwrap_or(Value::String(text)),
            )
        };
        tokio::task::spawn_blocking(request).await.unwrap()
    }

    async fn begin(&self, id: &str) -> String {
        let input = json!({ "id": id }).to_string();
        let (status, body) = self.post("/sagas/approval", None, &input).await;
        assert_eq!(status, 201, "{body}");
        body["saga_id"].as_str().unwrap().to_owned()
    }

    async fn stop(self) {
        self.engine.stop().await;
        self.end.request();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_accepted_once_by_its_key_and_each_time_without_one() {
    let node = Bundle::start().await;
    let saga = node.begin("a/b").await;
    let by_id = format!("/sagas/{saga}/signals/signed");
    let by_key = "/sagas/approval/keys/a%2Fb/signals/signed";
    for (path, id, body, outcome) in [
        (by_id.as_str(), Some("s-1"), "1", "accepted"),
        (by_key, Some("s-1"), "1", "duplicate"),
        (by_key, Some("s-2"), "1", "accepted"),
        (by_key, None, r#"{"by":"ann"}"#, "accepted"),
        (by_id.as_str(), None, r#"{ "by": "ann" }"#, "accepted"),
    ] {
        let (status, answer) = node.post(path, id, body).await;
        assert_eq!(
            (status, &answer["outcome"]),
            (200, &json!(outcome)),
            "{answer}"
        );
        assert_eq!(answer["saga_id"], saga);
        assert_eq!(answer["signal"], "signed");
        assert_eq!(answer["note"].is_string(), id.is_none(), "{answer}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_signal_is_answered_with_status_and_code() {
    let node = Bundle::start().await;
    let ended = node.begin("ended").await;
    for signal in ["approved", "signed"] {
        let path = format!("/sagas/{ended}/signals/{signal}");
        assert_eq!(node.post(&path, None, "{}").await.0, 200);
    }
    node.begin("live").await;
    let long = "x".repeat(256);
    for (path, id, body, status, code) in [
        (
            format!("/sagas/{}/signals/signed", Uuid::nil()),
            None,
            "1",
            404,
            "BST-0061",
        ),
        (
            "/sagas/approval/keys/none/signals/signed".to_owned(),
            None,
            "1",
            404,
            "BST-0061",
        ),
        (
            "/sagas/live/signals/signed".to_owned(),
            None,
            "1",
            400,
            "BST-0040",
        ),
        (
            "/sagas/approval/keys/live/signals/sgined".to_owned(),
            None,
            "1",
            422,
            "BST-0063",
        ),
        (
            "/sagas/approval/keys/live/signals/Signed".to_owned(),
            None,
            "1",
            400,
            "BST-0060",
        ),
        (
            "/sagas/approval/keys/live/signals/signed".to_owned(),
            None,
            "{",
            400,
            "BST-0010",
        ),
        (
            "/sagas/approval/keys/live/signals/signed".to_owned(),
            Some(long.as_str()),
            "1",
            400,
            "BST-0060",
        ),
        (
            format!("/sagas/{ended}/signals/signed"),
            Some("late"),
            "1",
            409,
            "BST-0062",
        ),
    ] {
        let (found, answer) = node.post(&path, id, body).await;
        assert_eq!(
            (found, &answer["code"]),
            (status, &json!(code)),
            "{path}: {answer}"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_anything_is_written() {
    use crate::limits::BODY;
    let bundle = Bundle::start().await;
    let id = bundle.begin("o-1").await;
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let many = format!("[{}1]", "1,".repeat(BODY.values));
    let signal = format!("/sagas/{id}/signals/approved");
    for (body, code) in [(nested(BODY.depth), "BST-0019"), (many, "BST-0027")] {
        let input = format!(r#"{{"id":"o-2","deep":{body}}}"#);
        let payload = format!(r#"{{"deep":{body}}}"#);
        for (path, body) in [("/sagas/approval", input), (&*signal, payload)] {
            let (status, problem) = bundle.post(path, None, &body).await;
            assert_eq!((status, &problem["code"]), (413, &json!(code)), "{path}");
        }
    }
    // One level less, and it is taken.
    let body = format!(r#"{{"deep":{}}}"#, nested(BODY.depth - 1));
    assert_eq!(bundle.post(&signal, None, &body).await.0, 200);
    bundle.stop().await;
}
