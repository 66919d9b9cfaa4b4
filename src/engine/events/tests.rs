//! Which events mean what: matching, keys, payloads, ids.

use serde_json::json;

use super::intake::{note_route, route_of};
use super::*;
use crate::definition::parse;
use crate::engine::catalogue::Catalogue;
use crate::store::DefinitionRow;

const PARCEL: &str = "
saga: parcel
version: 1
key: ${ input.order }
timeout: 30d
input:
  type: object
  required: [order]
start:
  on:
    - { exchange: shop, routing_key: order.placed, with: { order: '${ event.id }' } }
    - { exchange: shop, routing_key: 'order.*.again', key: 'again-${ event.id }' }
steps:
  - wait: arrived
    signal: delivery
    on: { exchange: carrier, routing_key: 'parcel.#', key: '${ event.reference }' }
  - step: thank
    confirm: mailer.thank
";

fn rules(sources: &[&str]) -> EventRules {
    EventRules::of(catalogue(sources).known())
}

fn catalogue(sources: &[&str]) -> Catalogue {
    let catalogue = Catalogue::default();
    for source in sources {
        let definition = parse(source, "parcel.yaml").unwrap_or_else(|why| panic!("{why}"));
        catalogue.offer(Arc::new(definition));
    }
    catalogue
}

fn route(exchange: &str, routing_key: &str) -> Destination {
    Destination {
        exchange: exchange.to_owned(),
        routing_key: routing_key.to_owned(),
    }
}

fn message(body: &str) -> Message {
    Message {
        body: body.to_owned().into(),
        ..Message::default()
    }
}

/// What the event means, in words.
fn meant(rules: &EventRules, exchange: &str, key: &str, body: &str) -> Vec<String> {
    let meanings = rules.meanings(&message(body), &route(exchange, key), true);
    let in_words = |meaning| match meaning {
        Meaning::Start(request) => {
            // A second delivery must not count as a second start.
            assert!(request.id.is_some_and(|id| id.starts_with("hash:")));
            format!("start {} {}", request.key, request.input)
        }
        Meaning::Signal(SignalRequest {
            to: Addressee::Key(key),
            what: What::Event(correlated),
            ..
        }) => {
            let version = correlated.definition.version;
            format!("signal {} {} v{version}", key.name, key.key)
        }
        Meaning::Signal(other) => panic!("{other:?}"),
        Meaning::Unusable { wrong, .. } => wrong.to_string(),
        Meaning::Beyond(why) => why,
    };
    match meanings {
        Ok(Meant::Something(meanings)) => meanings.into_iter().map(in_words).collect(),
        Ok(Meant::NothingNow) => vec![String::new()],
        Ok(stray @ (Meant::Stray | Meant::AskAgain)) => vec![format!("{stray:?}")],
        Err(wrong) => vec![wrong.to_string()],
    }
}

#[test]
fn an_event_means_what_the_rules_say_of_it() {
    let rules = rules(&[PARCEL]);
    for (exchange, key, body, expected) in [
        (
            "shop",
            "order.placed",
            r#"{"id":"7"}"#,
            r#"start 7 {"order":"7"}"#,
        ),
        (
            "shop",
            "order.eu.again",
            r#"{"id":7,"order":"x"}"#,
            r#"start again-7 {"id":7,"order":"x"}"#,
        ),
        (
            "carrier",
            "parcel",
            r#"{"reference":7}"#,
            "signal parcel 7 v1",
        ),
        (
            "carrier",
            "parcel.de.arrived",
            r#"{"reference":"7"}"#,
            "signal parcel 7 v1",
        ),
        // Nothing here is bound to these: they came by another way, and the key says what they are.
        (
            "elsewhere",
            "order.placed",
            r#"{"id":"7"}"#,
            r#"start 7 {"order":"7"}"#,
        ),
        (
            "shop",
            "parcel.7",
            r#"{"reference":7}"#,
            "signal parcel 7 v1",
        ),
        // Others' events, of which nobody knows how they came here.
        ("shop", "order.cancelled", "{}", "Stray"),
        ("elsewhere", "order.cancelled", "{}", "Stray"),
        // It correlates to nothing: that is no mistake of anybody.
        ("carrier", "parcel.lost", "{}", ""),
        ("carrier", "parcel.lost", r#"{"reference":null}"#, ""),
        // It should start something, and can't.
        (
            "shop",
            "order.placed",
            "{}",
            "BST-0065: the event should start `parcel`, but its `with` fails: ${ event.id }: `event` has no field `id`",
        ),
        (
            "shop",
            "order.eu.again",
            "{}",
            "BST-0065: the event should start `parcel`, but its `key` fails: ${ event.id }: `event` has no field `id`",
        ),
        (
            "shop",
            "order.eu.again",
            r#"{"id":1}"#,
            "BST-0065: the event should start `parcel`, but the input of `parcel` does not fit its schema: the input: \"order\" is a required property",
        ),
        // It means something, and can't be read.
        (
            "carrier",
            "parcel",
            "<xml/>",
            "BST-0010: the body is not JSON: expected value at line 1 column 1",
        ),
    ] {
        let found = meant(&rules, exchange, key, body).join("; ");
        assert_eq!(found, expected, "{exchange} {key} {body}");
    }
}

#[test]
fn waits_of_every_version_count_and_starts_of_the_newest_alone() {
    let second = PARCEL.replace("version: 1", "version: 2");
    let rules = rules(&[PARCEL, &second]);
    let waits = meant(&rules, "carrier", "parcel", r#"{"reference":"7"}"#);
    assert_eq!(waits, ["signal parcel 7 v1", "signal parcel 7 v2"]);
    let starts = meant(&rules, "shop", "order.placed", r#"{"id":"7"}"#);
    assert_eq!(starts.len(), 1, "{starts:?}");
}

#[test]
fn rules_of_definitions_that_another_node_has_stored_are_learned() {
    let catalogue = catalogue(&[PARCEL]);
    let before = EventRules::of(catalogue.known());
    let source = PARCEL
        .replace("version: 1", "version: 2")
        .replace("order.placed", "order.made")
        .replace("parcel.#", "box.#");
    let row = |version: u32, source: &str| DefinitionRow {
        name: "parcel".to_owned(),
        version,
        hash: crate::definition::hash_of(source),
        source: source.to_owned(),
        stored_at: crate::id::Timestamp::from_micros(0),
    };
    assert!(!catalogue.learn(&[row(1, PARCEL)]));
    assert!(before.are_of(&catalogue.known()));
    assert!(catalogue.learn(&[row(1, PARCEL), row(2, &source)]));
    assert!(!catalogue.learn(&[row(2, &source)]));
    assert!(!before.are_of(&catalogue.known()));
    let rules = EventRules::of(catalogue.known());
    let waits = meant(&rules, "carrier", "box.1", r#"{"reference":"7"}"#);
    assert_eq!(waits, ["signal parcel 7 v2"]);
    let starts = meant(&rules, "shop", "order.made", r#"{"id":"7"}"#);
    assert_eq!(starts, [r#"start 7 {"order":"7"}"#]);
    let old = meant(&rules, "shop", "order.placed", r#"{"id":"7"}"#);
    assert_eq!(old, [""], "the rule of the version before starts nothing");
}

#[test]
fn an_event_is_known_by_its_id_or_by_what_it_is_and_says() {
    let mut named = message("{}");
    named.properties.message_id = Some("m-1".to_owned());
    let id = |message: &Message, key: &str| id_of(message, &route("shop", key), &json!({}));
    assert_eq!(id(&named, "a"), "m-1");
    let nameless = message("{}");
    assert_eq!(id(&nameless, "a"), id(&nameless, "a"));
    assert_ne!(id(&nameless, "a"), id(&nameless, "b"));
}

#[test]
fn a_replayed_event_says_itself_where_it_was_published() {
    let mut message = message("{}");
    let to_queue = || Destination::queue(DOMAIN_EVENT_QUEUE);
    let wrong = route_of(&message, to_queue()).unwrap_err();
    assert_eq!(wrong.code, code::EVENT_UNUSABLE);
    note_route(&mut message, &route("shop", "order.placed"));
    assert_eq!(
        route_of(&message, to_queue()),
        Ok(route("shop", "order.placed"))
    );
}

#[test]
fn what_comes_by_a_binding_that_outlived_its_definition_is_no_stray() {
    let second = PARCEL
        .replace("version: 1", "version: 2")
        .replace("order.placed", "order.made");
    let rules = rules(&[PARCEL, &second]);
    assert_eq!(meant(&rules, "shop", "order.placed", "{}"), [""]);
    assert_eq!(meant(&rules, "shop", "order.lost", "{}"), ["Stray"]);
}

#[test]
fn before_a_key_alone_decides_the_rules_must_be_complete() {
    let rules = rules(&[PARCEL]);
    let foreign = route("elsewhere", "order.placed");
    let first = rules.meanings(&message("{}"), &foreign, false);
    assert!(matches!(first, Ok(Meant::AskAgain)), "{first:?}");
}

#[test]
fn an_event_that_may_have_come_by_two_ways_is_guessed_only_if_both_mean_the_same() {
    let other = PARCEL
        .replace("saga: parcel", "saga: box")
        .replace("exchange: shop", "exchange: market");
    let both = rules(&[PARCEL, &other]);
    let told = meant(&both, "elsewhere", "order.placed", r#"{"id":"7"}"#);
    assert!(told[0].starts_with("BST-0075"), "{told:?}");
    assert!(told[0].contains("`market` or `shop`"), "{told:?}");
    // The exchange that it was published to is named: that decides.
    let told = meant(&both, "market", "order.placed", r#"{"id":"7"}"#);
    assert_eq!(told, [r#"start 7 {"order":"7"}"#]);
    let same = PARCEL.replace(
        "    - { exchange: shop, routing_key: 'order.*.again'",
        "    - { exchange: market, routing_key: order.placed, with: { order: '${ event.id }' } }\n    - { exchange: shop, routing_key: 'order.*.again'",
    );
    let told = meant(
        &rules(&[&same]),
        "elsewhere",
        "order.placed",
        r#"{"id":"7"}"#,
    );
    assert_eq!(told, [r#"start 7 {"order":"7"}"#]);
}

#[test]
fn each_route_is_bound_once_and_starts_of_older_versions_no_more() {
    let second = PARCEL
        .replace("version: 1", "version: 2")
        .replace("order.placed", "order.made");
    let topology = topology(&catalogue(&[PARCEL, &second]).known());
    assert_eq!(topology.topic_exchanges, ["carrier", "shop"]);
    let bound = topology.bindings.iter();
    let bound: Vec<_> = bound.map(|binding| binding.routing_key.as_str()).collect();
    assert_eq!(bound, ["parcel.#", "order.*.again", "order.made"]);
}
