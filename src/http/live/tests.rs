use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tower::ServiceExt;
use uuid::Uuid;

use super::super::rights_tests;
use super::super::tests::Bundle;
use super::*;
use crate::environment::{Environment, TokioEnvironment};
use crate::id::Timestamp;

/// A stream that is read line by line.
struct Reader(BufReader<TcpStream>);

/// An event of it.
#[derive(Debug, Default)]
struct Heard {
    event: String,
    id: String,
    data: Value,
}

impl Reader {
    async fn open(node: &Bundle, path: &str, last: Option<&str>) -> Self {
        let address = node.base.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.unwrap();
        let last = last.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{last}\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut reader = Self(BufReader::new(connection));
        assert_eq!(reader.line().await.as_deref(), Some("HTTP/1.1 200 OK"));
        reader
    }

    /// The next line; none at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await.unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; none at the end.
    async fn next(&mut self) -> Option<Heard> {
        let mut heard = Heard::default();
        loop {
            let line = self.line().await?;
            match line.split_once(": ") {
                Some(("event", event)) => event.clone_into(&mut heard.event),
                Some(("id", id)) => id.clone_into(&mut heard.id),
                Some(("data", data)) => heard.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !heard.event.is_empty() => return Some(heard),
                // Sizes of chunks, headers, heartbeats.
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sagas_journal_is_told_as_it_grows_and_from_where_one_was() {
    let node = Bundle::start().await;
    let id = node.order("o-1").await;
    let path = format!("/sagas/{id}/live");
    let mut live = Reader::open(&node, &path, None).await;
    node.answer("succeeded").await;
    let heard = live.next().await.unwrap();
    assert_eq!((&*heard.event, &*heard.id), ("entry", "2"));
    assert_eq!(heard.data["seq"], 2);
    assert!(heard.data.to_string().contains("payment reserve succeeded"));

    let mut again = Reader::open(&node, &path, Some("0")).await;
    node.answer("succeeded").await;
    for seq in 1..=3 {
        let heard = again.next().await.unwrap();
        assert_eq!(heard.data["seq"], seq, "{heard:?}");
    }
    assert_eq!(live.next().await.unwrap().id, "3");
    for (last, status) in [("x", 400), ("-1", 400)] {
        let (found, answer) = node.get_with(&path, "last-event-id", last).await;
        assert_eq!(found, status, "{answer}");
    }
    let nobody = format!("/sagas/{}/live", Uuid::nil());
    assert_eq!(node.get(&nobody).await.0, 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_of_a_filter_are_told_as_they_change_and_when_they_fit_no_longer() {
    let node = Bundle::start().await;
    let (first, second) = (node.order("o-1").await, node.order("o-2").await);
    let path = "/sagas/live?status=running&key=o-1";
    let mut live = Reader::open(&node, path, None).await;
    // Told once somebody listens: they have just begun.
    let begun = live.next().await.unwrap();
    assert_eq!(
        (&*begun.event, &begun.data["saga_id"]),
        ("saga", &json!(first))
    );
    node.answer("succeeded").await;
    node.answer("succeeded").await;
    let left = live.next().await.unwrap();
    assert_eq!(left.event, "left");
    assert_eq!(left.data["status"], "confirming");

    let all = "/sagas/live?name=order";
    let mut again = Reader::open(&node, all, Some(&begun.id)).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let heard = again.next().await.unwrap();
        told.push(heard.data["saga_id"].as_str().unwrap().to_owned());
    }
    assert!(told.contains(&first) && told.contains(&second), "{told:?}");
    for query in ["?nmae=order", "?limit=1"] {
        let (status, _) = node.get(&format!("/sagas/live{query}")).await;
        assert_eq!(status, 400, "{query}");
    }
    let (status, _) = node.get_with(all, "last-event-id", "5").await;
    assert_eq!(status, 400);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_told_when_they_change() {
    let node = Bundle::start().await;
    let mut live = Reader::open(&node, "/live", None).await;
    let first = live.next().await.unwrap();
    assert_eq!(
        (&*first.event, &first.data["outcomes"]["started"]),
        ("counters", &json!(0))
    );
    node.order("o-1").await;
    let second = live.next().await.unwrap();
    assert_eq!(second.data["outcomes"]["started"], 1);
    assert_eq!(second.data["live"][0]["status"], "running");
    // Who comes later is told at once.
    let mut other = Reader::open(&node, "/live", None).await;
    assert_eq!(other.next().await.unwrap().data, second.data);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_node_stops_and_are_no_more_than_there_may_be() {
    let node = Bundle::start().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(Reader::open(&node, "/live", None).await);
    }
    let (status, answer) = node.get("/live").await;
    assert_eq!((status, &answer["code"]), (503, &json!("BST-0043")));
    node.stopping.request();
    for mut stream in streams {
        while stream.next().await.is_some() {}
    }
    node.stop().await;
}

/// A world in which time passes as fast as somebody waits for it.
#[derive(Default)]
struct Hasty(Mutex<Duration>);

impl Environment for Hasty {
    fn now(&self) -> Timestamp {
        TokioEnvironment.now()
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        *self.0.lock().unwrap() += duration;
        Box::pin(tokio::task::yield_now())
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        TokioEnvironment.spawn(name, task);
    }

    fn new_id(&self) -> Uuid {
        TokioEnvironment.new_id()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_beats_and_ends_when_its_token_is_revoked() {
    let bundle = rights_tests::Bundle::start_in(Arc::new(Hasty::default())).await;
    let token = bundle.token("sagas:read", false).await;
    let request = Request::builder()
        .uri("/live")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty());
    let response = bundle.router.clone().oneshot(request.unwrap()).await;
    let mut body = response.unwrap().into_body().into_data_stream();
    let mut beats = 0;
    while beats < 9 {
        let event = body.next().await.unwrap().unwrap();
        beats += usize::from(event.starts_with(b":"));
    }
    bundle.revoke_all().await;
    while body.next().await.is_some() {}
    bundle.engine.stop().await;
}
