//! Requests that are too many, too slow or too late.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Limits;
use super::tests::Bundle;

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_are_turned_away_but_health_is_told() {
    let node = Bundle::with_limits(Limits {
        requests_max: 0,
        ..Limits::default()
    })
    .await;
    let (status, _, answer) = node.post("/sagas/order", "{}").await;
    assert_eq!((status, &answer["code"]), (503, &json!("BST-0043")));
    assert_eq!(node.get("/livez").await.0, 200);
    assert_eq!(node.get("/readyz").await.0, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_body_does_not_come_is_given_up() {
    let node = Bundle::with_limits(Limits {
        request_time_max: Duration::from_millis(20),
        ..Limits::default()
    })
    .await;
    let address = node.base.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = "POST /sagas/order HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
        content-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    assert!(answer.contains("BST-0044"), "{answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_starts_and_resumes_nothing() {
    let node = Bundle::start().await;
    let id = node.order("o-1").await;
    node.engine.stop().await;
    let input = json!({ "id": "o-2", "total": 5 }).to_string();
    let ann = json!({ "by": "ann", "why": "x" }).to_string();
    for (path, body) in [
        ("/sagas/order".to_owned(), input),
        (format!("/sagas/{id}/resume"), ann),
    ] {
        let (status, _, answer) = node.post(&path, body).await;
        assert_eq!(
            (status, &answer["code"]),
            (503, &json!("BST-0042")),
            "{answer}"
        );
    }
    node.stop().await;
}
