//! What strangers may throw at a node: each gets a clear, recorded answer, nothing is lost, and the
//! node goes on.

use std::collections::BTreeMap;

use backstitch::error::{Code, code};
use backstitch::id::SagaId;
use backstitch::message::correlation::{Correlation, Secret};
use backstitch::message::{REPLY_QUEUE, START_QUEUE};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{Backends, Node, PATIENCE, Sent, Wire, eventually, get, post, repository};

const GOOD: &str =
    r#"{"order_id": "1", "customer": "c", "total": 100, "items": [{"sku": "s", "quantity": 1}]}"#;

/// A body that RabbitMQ takes and we don't.
const HUGE_BYTES: usize = 20 * 1024 * 1024;

#[test]
fn each_bad_start_is_refused_and_kept_and_the_node_goes_on() {
    let backends = Backends::create();
    let node = Node::serve(&backends, &repository("sagas"));
    let wire = Wire::connect(&backends.virtual_host.url);
    let answers = wire.own_queue();
    let huge = format!("\"{}\"", "x".repeat(HUGE_BYTES));
    let other_input = GOOD.replace("100", "200");
    assert_eq!(
        start(&wire, &answers, Some("place-order"), GOOD).0,
        "accepted"
    );

    let cases: &[(&str, Option<&str>, &str, Code)] = &[
        (
            "cut off",
            Some("place-order"),
            "{\"order_id\":",
            code::BODY_NOT_JSON,
        ),
        (
            "not UTF-8 JSON",
            Some("place-order"),
            "<xml/>",
            code::BODY_NOT_JSON,
        ),
        ("20 MB", Some("place-order"), &huge, code::BODY_TOO_LARGE),
        ("no type", None, GOOD, code::TYPE_MISSING),
        ("unknown saga", Some("place-ordr"), GOOD, code::SAGA_UNKNOWN),
        (
            "wrong type of input",
            Some("place-order"),
            "[1]",
            code::INPUT_INVALID,
        ),
        (
            "a field missing",
            Some("place-order"),
            "{\"order_id\":\"9\"}",
            code::INPUT_INVALID,
        ),
        (
            "same key, other input",
            Some("place-order"),
            &other_input,
            code::KEY_CONFLICT,
        ),
    ];
    let mut expected = Vec::new();
    for (what, kind, body, code) in cases {
        let (answer, reason, said) = start(&wire, &answers, *kind, body);
        assert_eq!(answer, "refused", "{what}: {said}");
        assert_eq!(said["code"], code.to_string(), "{what}");
        assert!(!reason.is_empty(), "{what}");
        expected.push(i32::from(code.0));
    }
    assert_eq!(backends.database.dead_letter_codes(), expected);

    // The same start again is no mistake.
    assert_eq!(
        start(&wire, &answers, Some("place-order"), GOOD).0,
        "accepted"
    );
    assert_eq!(backends.database.dead_letter_codes(), expected);
    assert!(matches!(get(&format!("{}/readyz", node.url)), Ok((200, _))));
}

#[test]
fn each_bad_reply_is_kept_and_changes_no_saga() {
    let backends = Backends::create();
    let node = Node::serve(&backends, &repository("sagas"));
    let wire = Wire::connect(&backends.virtual_host.url);
    let answers = wire.own_queue();
    let (_, _, accepted) = start(&wire, &answers, Some("place-order"), GOOD);
    let saga: SagaId = accepted["saga_id"].as_str().unwrap().parse().unwrap();
    let secret = Secret::new(backends.database.secret());
    let signed = |saga: SagaId, step: &str, secret: &Secret| {
        let step = step.parse().unwrap();
        let phase = backstitch::id::Phase::Reserve;
        Correlation { saga, step, phase }.sign(secret)
    };
    let ours = signed(saga, "order", &secret);
    let forged = signed(saga, "order", &Secret::new([7; 32]));
    let nobody = signed(SagaId(Uuid::now_v7()), "order", &secret);
    let never = signed(saga, "payment", &secret);

    let cases: &[(&str, Option<&str>, &str, &str, Code)] = &[
        (
            "no correlation id",
            None,
            "succeeded",
            "{}",
            code::CORRELATION_MISSING,
        ),
        (
            "a word for one",
            Some("hello"),
            "succeeded",
            "{}",
            code::CORRELATION_MISSING,
        ),
        (
            "forged",
            Some(&forged),
            "succeeded",
            "{}",
            code::CORRELATION_FORGED,
        ),
        (
            "for no saga",
            Some(&nobody),
            "succeeded",
            "{}",
            code::REPLY_FOR_NO_SAGA,
        ),
        (
            "never asked",
            Some(&never),
            "succeeded",
            "{}",
            code::REPLY_UNEXPECTED,
        ),
        (
            "unknown outcome",
            Some(&ours),
            "Succeeded",
            "{}",
            code::OUTCOME_UNKNOWN,
        ),
        (
            "not JSON",
            Some(&ours),
            "succeeded",
            "{",
            code::BODY_NOT_JSON,
        ),
    ];
    let mut expected = BTreeMap::new();
    for (_, correlation_id, outcome, body, code) in cases {
        *expected.entry(i32::from(code.0)).or_insert(0) += 1;
        let reply = Sent {
            correlation_id: *correlation_id,
            headers: &[("outcome", outcome)],
            body: body.as_bytes(),
            ..Sent::default()
        };
        wire.send(REPLY_QUEUE, &reply);
    }
    let kept = eventually("all are kept", PATIENCE, || {
        let codes = backends.database.dead_letter_codes();
        (codes.len() >= cases.len()).then_some(codes)
    });
    let mut found = BTreeMap::new();
    for code in kept {
        *found.entry(code).or_insert(0) += 1;
    }
    assert_eq!(found, expected);

    // The forged success did not move it: its participant, which is not there, was never heard.
    let (_, said) = get(&format!("{}/sagas/{saga}", node.url)).unwrap();
    assert_ne!(said["status"], "completed");
    assert!(matches!(get(&format!("{}/readyz", node.url)), Ok((200, _))));
}

#[test]
fn http_says_what_is_wrong_with_a_start() {
    let backends = Backends::create();
    let node = Node::serve(&backends, &repository("sagas"));
    let good: Value = serde_json::from_str(GOOD).unwrap();
    let url = format!("{}/sagas/place-order", node.url);
    assert!(matches!(post(&url, &good), Ok((200..300, _))));

    let mut other = good.clone();
    other["total"] = json!(200);
    let unknown = format!("{}/sagas/place-ordr", node.url);
    let cases: &[(&str, &str, &Value, u16, Code)] = &[
        (
            "the schema",
            &url,
            &json!({"order_id": "9"}),
            422,
            code::INPUT_INVALID,
        ),
        ("the name", &unknown, &good, 404, code::SAGA_UNKNOWN),
        ("the key", &url, &other, 409, code::KEY_CONFLICT),
    ];
    for (what, url, input, status, code) in cases {
        let (found, said) = post(url, input).unwrap();
        assert_eq!(found, *status, "{what}: {said}");
        assert!(
            said.to_string().contains(&code.to_string()),
            "{what}: {said}"
        );
    }
    // What is answered at once need not be kept.
    assert_eq!(backends.database.dead_letter_codes(), Vec::<i32>::new());
}

/// Starts a saga by message; gives the answer's kind, its reason and its body.
#[track_caller]
fn start(wire: &Wire, answers: &str, kind: Option<&str>, body: &str) -> (String, String, Value) {
    let message = Sent {
        kind,
        reply_to: Some(answers),
        correlation_id: Some("the starter's own"),
        body: body.as_bytes(),
        ..Sent::default()
    };
    wire.send(START_QUEUE, &message);
    let answer = wire.wait_for(answers);
    assert_eq!(answer.correlation_id.as_deref(), Some("the starter's own"));
    (
        answer.kind.unwrap_or_default(),
        answer.headers.get("reason").cloned().unwrap_or_default(),
        serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
    )
}
