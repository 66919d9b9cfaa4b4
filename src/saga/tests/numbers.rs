//! Numbers that no double holds go through a saga with every digit: input, `with`, reply, signal,
//! journal, snapshot, output.

use super::*;

const PAY: &str = "
saga: pay
version: 1
key: ${ input.id }
timeout: 1h
steps:
  - { step: a, with: { n: '${ input.n }' }, reserve: bank.reserve, confirm: bank.confirm, compensate: bank.release }
  - { wait: go, match: '${ signal.n == input.n }' }
  - { step: b, with: { got: '${ steps.a }', sig: '${ steps.go.n }', maybe: '${ has(input.x) ? 0 : input.n }' }, reserve: bank.second, compensate: bank.release2 }
output: { n: '${ input.n }', r: '${ steps.a.n }' }
";

#[test]
fn a_number_is_carried_as_it_came() {
    for (number, kept) in [
        ("20000000000000000000", "20000000000000000000"),
        ("18446744073709551615", "18446744073709551615"),
        ("9007199254740993", "9007199254740993"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("12345678901234567.89", "12345678901234567.89"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("1e400", "1e+400"),
        ("0.1", "0.1"),
        ("-0.0", "-0.0"),
        ("1.0", "1.0"),
        ("1.10", "1.10"),
        ("1E5", "1e+5"),
        (
            "100000000000000000000000000000001",
            "100000000000000000000000000000001",
        ),
    ] {
        let value: Value =
            serde_json::from_str(&format!(r#"{{"id": "i", "n": {number}}}"#)).unwrap();
        let reply = || serde_json::from_str(&format!(r#"{{"n": {number}}}"#)).unwrap();
        let (mut story, _) = Story::begin(PAY, value);
        let with = |story: &Story, step: &str| {
            let state = &story.saga.steps[&StepPath::plain(step)];
            state.with.as_ref().unwrap().to_string()
        };
        assert_eq!(with(&story, "a"), format!(r#"{{"n":{kept}}}"#));
        story
            .answer_with("a reserve", Outcome::Succeeded, reply())
            .unwrap();
        let signal = Signal {
            name: "go".into(),
            id: "s".into(),
            body: Arc::new(reply()),
            at: None,
        };
        let sent = story.tell(Input::Signal(signal)).unwrap();
        assert_eq!(sent, ["b reserve#1"], "{number}");
        let sent: Value = serde_json::from_str(&with(&story, "b")).unwrap();
        assert_eq!(sent["got"].to_string(), format!(r#"{{"n":{kept}}}"#));
        assert_eq!(sent["sig"].to_string(), kept);
        assert_eq!(sent["maybe"].to_string(), kept, "through CEL");
        story.yes("b reserve");
        story.yes("a confirm");
        let output = story.saga.output.as_ref().unwrap().to_string();
        assert_eq!(output, format!(r#"{{"n":{kept},"r":{kept}}}"#));
    }
}

#[test]
fn a_number_in_the_file_is_sent_as_it_is_written() {
    let yaml = "
saga: s
version: 1
key: ${ input.id }
steps:
  - step: a
    with:
      - 12345678901234567.89
      - { a: 1.10, b: 9007199254740993, c: -0.5, d: [ 1.0, 20000000000000000000 ] }
    confirm: p.a
";
    let (story, _) = Story::begin(yaml, json!({ "id": "i" }));
    let with = story.saga.steps[&StepPath::plain("a")]
        .with
        .as_ref()
        .unwrap();
    assert_eq!(
        with.to_string(),
        r#"[12345678901234567.89,{"a":1.10,"b":9007199254740993,"c":-0.5,"d":[1.0,20000000000000000000]}]"#
    );
}

#[test]
fn keys_and_inputs_are_told_apart_by_value() {
    let definition = parse(&PAY.replace("input.id", "input.n"), "t.yaml").unwrap();
    let key = |number: &str| {
        let input: Value = serde_json::from_str(&format!(r#"{{"n": {number}}}"#)).unwrap();
        let fingerprint = crate::canonical::fingerprint_text(&input);
        (definition.key_of(&input).ok(), fingerprint)
    };
    let same = |one: &str, other: &str| key(one) == key(other);
    assert!(same("50", "50.0") && same("50", "5e1") && same("20000000000000000000", "2e19"));
    assert!(!same("20000000000000000000", "20000000000000000001"));
    assert_ne!(key("0.1").1, key("0.10000000000000000001").1);
    assert_eq!(key("50.0").0.as_deref(), Some("50"));
    let long = "100000000000000000000000000000001";
    assert_eq!(key(long).0.as_deref(), Some(long));
    for refused in ["50.5", "1e400", "0.1"] {
        assert_eq!(key(refused).0, None, "{refused}");
    }
}

#[test]
fn times_and_waits_take_whole_numbers_however_they_are_spelled() {
    let yaml = "
saga: s
version: 1
key: ${ input.id }
timeout: 1h
steps:
  - { sleep: rest, for: '${ input.s }' }
  - { step: a, for_each: '${ input.n }', action: p.a, read_only: true }
";
    for (seconds, times) in [
        ("90", "2"),
        ("90.0", "2.0"),
        ("9e1", "20e-1"),
        ("89.5", "2"),
    ] {
        let input = format!(r#"{{"id": "i", "s": {seconds}, "n": {times}}}"#);
        let (mut story, _) = Story::begin(yaml, serde_json::from_str(&input).unwrap());
        let due = story.saga.wake_at().unwrap().since(story.now);
        let expected = if seconds == "89.5" { 89.5 } else { 90.0 };
        assert_eq!(due, Duration::from_secs_f64(expected), "{seconds}");
        assert_eq!(story.wake(), ["a[0] action#1", "a[1] action#1"], "{times}");
    }
}
