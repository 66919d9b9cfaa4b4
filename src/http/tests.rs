use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::access::Access;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, BrokerError, Consumer, Health, Outgoing, Published, Queue, Topology};
use crate::definition::parse;
use crate::engine::{EngineOptions, EngineParts};
use crate::environment::TokioEnvironment;
use crate::message::{HEADER_OUTCOME, Message, Properties};
use crate::saga::Status;
use crate::store::memory::MemoryStore;

const ORDER: &str = "
saga: order
version: 1
key: ${ input.id }
input:
  type: object
  required: [id, total]
  properties:
    id: { type: string }
    total: { type: integer }
steps:
  - step: payment
    with: { amount: '${ input.total }' }
    reserve: payments.reserve
    confirm: payments.capture
    compensate: payments.release
    suspend_after: 1
";

/// The in-process broker, with a health of our choosing.
pub(super) struct Moody {
    inner: MemoryBroker,
    pub(super) health: Mutex<Health>,
}

#[async_trait::async_trait]
impl Broker for Moody {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.inner.declare(topology).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        self.inner.consume(queue, prefetch).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Published> {
        self.inner.publish(messages).await
    }

    async fn queue_len(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        Broker::queue_len(&self.inner, queue).await
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }
}

/// A node in this process, on a port of its own.
pub(super) struct Bundle {
    pub(super) base: String,
    pub(super) engine: Arc<Engine>,
    pub(super) broker: Arc<Moody>,
    pub(super) store: MemoryStore,
    pub(super) stopping: Shutdown,
    end: Shutdown,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Bundle {
    pub(super) async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    /// With these definitions besides.
    pub(super) async fn of(definitions: &[&str]) -> Self {
        Self::with(Limits::default(), definitions).await
    }

    pub(super) async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, &[]).await
    }

    async fn with(limits: Limits, definitions: &[&str]) -> Self {
        let more = definitions.iter().copied();
        let definitions = std::iter::once(ORDER).chain(more);
        let definitions = definitions.map(|source| parse(source, "test.yaml").unwrap().into());
        let broker = Arc::new(Moody {
            inner: MemoryBroker::new(),
            health: Mutex::new(Health::Up),
        });
        let payments = Queue {
            name: "payments".to_owned(),
            dead_letter_to: None,
        };
        let queues = vec![payments];
        let topology = Topology {
            queues,
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let store = MemoryStore::new();
        let engine = Engine::start(EngineParts {
            environment: Arc::new(TokioEnvironment),
            store: Arc::new(store.clone()),
            broker: Arc::<Moody>::clone(&broker),
            definitions: definitions.collect(),
            options: EngineOptions::default(),
        })
        .await
        .unwrap();
        let (stopping, end) = (Shutdown::default(), Shutdown::default());
        let router = router(Api {
            engine: Arc::clone(&engine),
            access: Arc::new(Access::new(
                Arc::new(TokioEnvironment),
                Arc::new(store.clone()),
                None,
            )),
            aggregates: Aggregates::shipped(
                &(Arc::new(TokioEnvironment) as Arc<dyn Environment>),
                Arc::new(store.clone()),
            ),
            search: Arc::new(store.clone()),
            database: "memory",
            census: Arc::new(store.clone()),
            jobs: Arc::new(store.clone()),
            requests: Arc::new(store.clone()),
            letters: Arc::new(store.clone()),
            environment: Arc::new(TokioEnvironment),
            metrics: None,
            stopping: stopping.clone(),
            limits,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(serve(listener, None, router, end.clone()));
        Self {
            base,
            engine,
            broker,
            store,
            stopping,
            end,
            serving,
        }
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.base);
        let answer = tokio::task::spawn_blocking(move || read(agent().get(url).call()));
        let (status, _, body) = answer.await.unwrap();
        (status, body)
    }

    /// With an `Idempotency-Key`.
    pub(super) async fn post_once(&self, path: &str, key: &str, body: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.base);
        let (key, body) = (key.to_owned(), body.to_owned());
        let request = move || {
            let request = agent().post(url).content_type("application/json");
            read(request.header("idempotency-key", key).send(&body))
        };
        let (status, _, body) = tokio::task::spawn_blocking(request).await.unwrap();
        (status, body)
    }

    pub(super) async fn get_with(
        &self,
        path: &str,
        header: &'static str,
        value: &str,
    ) -> (u16, Value) {
        let (url, value) = (format!("{}{path}", self.base), value.to_owned());
        let request = move || read(agent().get(url).header(header, value).call());
        let (status, _, body) = tokio::task::spawn_blocking(request).await.unwrap();
        (status, body)
    }

    pub(super) async fn post(
        &self,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> (u16, Option<String>, Value) {
        self.post_as("application/json", path, body).await
    }

    async fn post_as(
        &self,
        kind: &'static str,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> (u16, Option<String>, Value) {
        let (url, body) = (format!("{}{path}", self.base), body.into());
        let request = move || read(agent().post(url).content_type(kind).send(&body[..]));
        tokio::task::spawn_blocking(request).await.unwrap()
    }

    pub(super) async fn order(&self, id: &str) -> String {
        let input = json!({ "id": id, "total": 5 }).to_string();
        let (status, _, body) = self.post("/sagas/order", input).await;
        assert_eq!(status, 201, "{body}");
        body["saga_id"].as_str().unwrap().to_owned()
    }

    /// Takes the next command to the participant and answers it.
    pub(super) async fn answer(&self, outcome: &str) {
        let mut consumer = self.broker.consume("payments", 1).await.unwrap();
        let delivery = consumer.deliveries.next_batch(1).await.remove(0);
        consumer.acks.ack(&[delivery.tag]);
        let asked = delivery.message.properties;
        let reply = Outgoing {
            destination: crate::message::Destination::queue(asked.reply_to.unwrap()),
            message: Message {
                properties: Properties {
                    correlation_id: asked.correlation_id,
                    headers: [(HEADER_OUTCOME.to_owned(), json!(outcome))].into(),
                    ..Properties::default()
                },
                body: "{}".into(),
            },
            mandatory: true,
        };
        let published = self.broker.publish(vec![reply]).await;
        assert_eq!(published, [Published::Confirmed]);
    }

    /// What is read once it is as it should be.
    pub(super) async fn until_get(&self, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (_, seen) = self.get(path).await;
            if is_right(&seen) {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn until(&self, id: &str, wanted: Status) {
        loop {
            let (_, head) = self.get(&format!("/sagas/{id}?only=head")).await;
            if head["status"] == wanted.as_str() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn stop(self) {
        self.stopping.request();
        self.engine.stop().await;
        self.end.request();
        self.serving.await.unwrap().unwrap();
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(0);
    config.build().into()
}

type Answer = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

fn read(answer: Answer) -> (u16, Option<String>, Value) {
    let mut answer = answer.unwrap();
    let location = answer.headers().get("location");
    let location = location.map(|value| value.to_str().unwrap().to_owned());
    let text = answer.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (answer.status().as_u16(), location, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_created_and_found_again() {
    let node = Bundle::start().await;
    let input = json!({ "id": "o-1", "total": 5 }).to_string();
    let (status, location, body) = node.post("/sagas/order", input.clone()).await;
    assert_eq!(status, 201);
    assert_eq!(body["saga"], "order");
    assert_eq!(body["key"], "o-1");
    assert_eq!(body["status"], "running");
    let location = location.unwrap();
    assert_eq!(
        location,
        format!("/sagas/{}", body["saga_id"].as_str().unwrap())
    );

    let (status, view) = node.get(&location).await;
    assert_eq!(
        (status, &view["steps"][0]["step"]),
        (200, &json!("payment"))
    );
    assert_eq!(view["journal"]["verified"], true);

    let (status, again, body) = node.post("/sagas/order", input).await;
    assert_eq!((status, again), (200, Some(location)));
    assert_eq!(body["status"], "running");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_start_is_answered_with_status_code_and_reason() {
    let limits = Limits {
        body_bytes_max: 1_000,
        ..Limits::default()
    };
    let node = Bundle::with_limits(limits).await;
    node.order("taken").await;
    let large = format!("\"{}\"", "x".repeat(1_000));
    let cases = [
        ("/sagas/nothing", "{}", 404, "BST-0013", "no saga is called"),
        ("/sagas/order", "{", 400, "BST-0010", "EOF"),
        ("/sagas/order", "", 400, "BST-0010", "EOF"),
        ("/sagas/order", "{}", 422, "BST-0014", "schema"),
        (
            "/sagas/order",
            r#"{"id":"taken","total":6}"#,
            409,
            "BST-0016",
            "another input",
        ),
        (
            "/sagas/order",
            r#"{"id":"","total":6}"#,
            422,
            "BST-0015",
            "empty",
        ),
        (
            "/sagas/order",
            large.as_str(),
            413,
            "BST-0011",
            "1000 bytes",
        ),
        ("/sagas/%ff", "{}", 400, "BST-0040", "UTF-8"),
        ("/elsewhere", "{}", 404, "BST-0040", "path"),
        ("/dead-letters", "{}", 405, "BST-0040", "method"),
    ];
    for (path, body, status, code, reason) in cases {
        let (found, _, answer) = node.post(path, body).await;
        assert_eq!(found, status, "{path} {body}: {answer}");
        assert_eq!(answer["code"], code, "{path} {body}");
        let said = answer["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{path} {body}: {said}");
    }
    let (_, _, answer) = node.post("/sagas/order", "{}").await;
    assert_eq!(answer["problems"].as_array().unwrap().len(), 2, "{answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_json_changes_anything() {
    let node = Bundle::start().await;
    let input = json!({ "id": "o-1", "total": 5 }).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let (status, _, answer) = node.post_as(kind, "/sagas/order", input.clone()).await;
        assert_eq!((status, &answer["code"]), (415, &json!("BST-0040")));
    }
    let kind = "Application/JSON; charset=utf-8";
    let (status, _, _) = node.post_as(kind, "/sagas/order", input).await;
    assert_eq!(status, 201);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_are_listed_in_pages_and_filtered() {
    let node = Bundle::start().await;
    let (first, second) = (node.order("o-1").await, node.order("o-2").await);
    for (query, expected) in [
        ("", vec![&second, &first]),
        ("?limit=1", vec![&second]),
        (&format!("?before={second}"), vec![&first]),
        ("?key=o-1&name=order&status=running", vec![&first]),
        ("?status=completed", vec![]),
    ] {
        let (status, page) = node.get(&format!("/sagas{query}")).await;
        assert_eq!(status, 200, "{page}");
        let sagas = page["sagas"].as_array().unwrap();
        let ids: Vec<_> = sagas.iter().map(|saga| &saga["saga_id"]).collect();
        assert_eq!(ids, expected, "{query}");
    }
    let (_, page) = node.get("/sagas?limit=1").await;
    assert_eq!(page["next"], json!(second));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_have_no_answer_say_why() {
    let node = Bundle::start().await;
    let unknown = format!("/sagas/{}", Uuid::nil());
    for (path, status, code) in [
        (unknown.as_str(), 404, "BST-0041"),
        (&format!("{unknown}?only=head"), 404, "BST-0041"),
        (&format!("{unknown}?only=tail"), 400, "BST-0040"),
        ("/sagas/o-1", 400, "BST-0040"),
        ("/sagas?status=asleep", 400, "BST-0040"),
        ("/sagas?nmae=order", 400, "BST-0040"),
        ("/sagas?limit=many", 400, "BST-0040"),
        ("/dead-letters?limit=-1", 400, "BST-0040"),
        ("/", 404, "BST-0040"),
    ] {
        let (found, answer) = node.get(path).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{path}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_saga_is_resumed_by_someone_for_a_reason() {
    let node = Bundle::start().await;
    let id = node.order("o-1").await;
    let path = format!("/sagas/{id}/resume");
    let ann = json!({ "by": "ann", "why": "the bank is back" }).to_string();
    let (status, _, answer) = node.post(&path, ann.clone()).await;
    assert_eq!((status, &answer["code"]), (409, &json!("BST-0045")));

    node.answer("succeeded").await;
    node.answer("failed").await;
    node.until(&id, Status::Suspended).await;
    let (status, _, head) = node.post(&path, ann.clone()).await;
    assert_eq!((status, &head["status"]), (200, &json!("confirming")));
    node.answer("succeeded").await;
    node.until(&id, Status::Completed).await;
    let (_, view) = node.get(&format!("/sagas/{id}")).await;
    assert!(
        view["timeline"]
            .to_string()
            .contains("resumed by ann: the bank is back")
    );

    let nobody = json!({ "by": " ", "why": "x" }).to_string();
    let unknown = format!("/sagas/{}/resume", Uuid::nil());
    for (path, body, status, code) in [
        (&path, nobody, 400, "BST-0040"),
        (&path, "{}".to_owned(), 400, "BST-0040"),
        (&unknown, ann, 404, "BST-0041"),
    ] {
        let (found, _, answer) = node.post(path, body).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{answer}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_until_its_broker_fails_or_it_stops() {
    let node = Bundle::start().await;
    assert_eq!(node.get("/livez").await.0, 200);
    assert_eq!(node.get("/metrics").await.0, 200);
    let (status, answer) = node.get("/readyz").await;
    assert_eq!((status, &answer["ready"]), (200, &json!(true)));

    for health in [
        Health::Blocked("disk".to_owned()),
        Health::Down("gone".to_owned()),
    ] {
        *node.broker.health.lock().unwrap() = health;
        let (status, answer) = node.get("/readyz").await;
        assert_eq!(
            (status, &answer["reasons"][0]["part"]),
            (503, &json!("broker"))
        );
    }
    *node.broker.health.lock().unwrap() = Health::Up;
    node.stopping.request();
    let (status, answer) = node.get("/readyz").await;
    assert_eq!(
        (status, &answer["reasons"][0]["part"]),
        (503, &json!("node"))
    );
    assert_eq!(node.get("/livez").await.0, 200);
    node.stop().await;
}
