use std::time::Instant;

use serde_json::{Value, json};

use super::super::tests::Bundle;
use crate::definition::parse;

/// Items with a payload each, side by side.
const CROWD: &str = "
saga: crowd
version: 1
key: ${ input.id }
steps:
  - step: stock
    for_each: ${ input.items }
    with: { sku: '${ item }' }
    reserve: payments.reserve
    confirm: payments.capture
    compensate: payments.release
";

async fn crowd(node: &Bundle, items: usize) -> String {
    let items: Vec<String> = (0..items).map(|item| format!("sku-{item}")).collect();
    let input = json!({ "id": "c-1", "items": items }).to_string();
    let (status, _, started) = node.post("/sagas/crowd", input).await;
    assert_eq!(status, 201, "{started}");
    started["saga_id"].as_str().unwrap().to_owned()
}

fn texts<'a>(rows: &'a Value, field: &str) -> Vec<&'a str> {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row[field].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_saga_is_read_in_parts() {
    let node = Bundle::of(&[CROWD]).await;
    let id = crowd(&node, 5).await;
    node.answer("succeeded").await;
    let whole = node
        .until_get(&format!("/sagas/{id}"), |seen| seen["revision"] == 2)
        .await;
    let (status, summary) = node.get(&format!("/sagas/{id}?only=summary")).await;
    assert_eq!(status, 200, "{summary}");
    let reserving = json!({ "reserved": 1, "reserving": 4 });
    assert_eq!(summary["stages"]["all"], reserving);
    assert_eq!(
        summary["stages"]["steps"],
        json!([{ "step": "stock", "count": 5, "stages": reserving }])
    );
    assert_eq!(summary["journal"]["verified"], Value::Null);
    assert_eq!(summary["journal"]["head"], whole["journal"]["head"]);
    for part in ["saga_id", "status", "why", "input", "output", "signals"] {
        assert_eq!(summary[part], whole[part], "{part}");
    }
    assert!(summary["steps"].is_null() && summary["timeline"].is_null());
    let (_, verified) = node
        .get(&format!("/sagas/{id}?only=summary&verify=true"))
        .await;
    assert_eq!(verified["journal"]["verified"], json!(true));
    assert_eq!(verified["stages"], summary["stages"]);

    let steps = async |query: &str| node.get(&format!("/sagas/{id}/steps{query}")).await.1;
    assert_eq!(steps("").await["steps"], whole["steps"]);
    let first = steps("?limit=2").await;
    assert_eq!(texts(&first["steps"], "step"), ["stock[0]", "stock[1]"]);
    let next = first["next"].as_str().unwrap();
    let second = steps(&format!("?limit=3&after={next}")).await;
    assert_eq!(texts(&second["steps"], "step").len(), 3);
    assert_eq!(second["next"], Value::Null);
    for (query, found) in [
        ("?stage=reserved", 1),
        ("?stage=reserved,reserving", 5),
        ("?stage=to_come", 0),
        ("?path=stock", 5),
        ("?path=stock[3]", 1),
        ("?path=other", 0),
    ] {
        let page = steps(query).await;
        assert_eq!(page["steps"].as_array().unwrap().len(), found, "{query}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_read_from_either_end() {
    let node = Bundle::of(&[CROWD]).await;
    let id = crowd(&node, 4).await;
    for _ in 0..3 {
        node.answer("succeeded").await;
    }
    let whole = node
        .until_get(&format!("/sagas/{id}"), |seen| seen["revision"] == 4)
        .await;
    let read = async |query: &str| {
        let (_, page) = node.get(&format!("/sagas/{id}/timeline{query}")).await;
        let seqs: Vec<u64> = page["timeline"]
            .as_array()
            .unwrap_or_else(|| panic!("{page}"))
            .iter()
            .map(|moment| moment["seq"].as_u64().unwrap())
            .collect();
        (seqs, page["next"].clone())
    };
    for (query, seqs, next) in [
        ("", vec![4, 3, 2, 1], Value::Null),
        ("?limit=3", vec![4, 3, 2], json!(2)),
        ("?limit=3&before=2", vec![1], Value::Null),
        ("?before=1", vec![], Value::Null),
        ("?after=0&limit=2", vec![1, 2], json!(2)),
        ("?after=2&limit=2", vec![3, 4], Value::Null),
        ("?after=9", vec![], Value::Null),
    ] {
        assert_eq!(read(query).await, (seqs, next), "{query}");
    }
    let (_, page) = node.get(&format!("/sagas/{id}/timeline?after=0")).await;
    assert_eq!(page["timeline"], whole["timeline"]);
    for (path, status) in [
        ("timeline?after=1&before=2", 400),
        ("timeline?after=x", 400),
        ("steps?after=other", 400),
        ("steps?limit=x", 400),
    ] {
        let (found, answer) = node.get(&format!("/sagas/{id}/{path}")).await;
        assert_eq!(found, status, "{path}: {answer}");
    }
    let nobody = uuid::Uuid::nil();
    for part in ["steps", "timeline"] {
        let (found, answer) = node.get(&format!("/sagas/{nobody}/{part}")).await;
        assert_eq!((found, &answer["code"]), (404, &json!("BST-0041")));
    }
    node.stop().await;
}

/// How long each part of a saga of ten thousand items takes; in a release build it is a question of
/// milliseconds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn parts_of_ten_thousand_items() {
    assert!(parse(CROWD, "crowd.yaml").is_ok());
    let node = Bundle::of(&[CROWD]).await;
    let id = crowd(&node, 10_000).await;
    node.until_get(&format!("/sagas/{id}?only=summary"), |seen| {
        seen["stages"]["all"]["reserving"] == 10_000
    })
    .await;
    for path in [
        "",
        "?only=summary",
        "/steps?limit=100",
        "/steps?stage=reserved",
        "/steps?path=stock[9999]",
        "/timeline?limit=100",
    ] {
        let began = Instant::now();
        let (status, answer) = node.get(&format!("/sagas/{id}{path}")).await;
        assert_eq!(status, 200);
        let bytes = answer.to_string().len();
        println!(
            "{:>6} ms {bytes:>9} bytes {path}",
            began.elapsed().as_millis()
        );
    }
    node.stop().await;
}
