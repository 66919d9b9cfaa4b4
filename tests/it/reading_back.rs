//! What can be read back, as people see it: nodes, participants and projectors on PostgreSQL and
//! RabbitMQ, asked over HTTP and by the command line.

use backstitch::id::Timestamp;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use serde_json::{Value, json};

use crate::fixture::{
    Backends, Command, Node, PATIENCE, Wire, eventually, finish, get, get_json, post, repository,
    told,
};

/// The exchange on which aggregate events are published.
const EXCHANGE: &str = "backstitch.aggregate-events";

fn serve(backends: &Backends) -> Node {
    let with = ["--with-participants", "--publish-aggregate-events"];
    Node::serve_with(backends, &repository("sagas"), &with)
}

fn start(node: &Node, saga: &str, input: &Value) {
    let answer = post(&format!("{}/sagas/{saga}", node.url), input);
    assert!(matches!(answer, Ok((200 | 201, _))), "{saga}: {answer:?}");
}

fn all_ended(backends: &Backends, count: usize) {
    eventually("every saga ends", PATIENCE, || {
        (backends.database.ended_sagas() == count).then_some(())
    });
    let wrong = backends
        .database
        .count("backstitch.sagas WHERE status <> 'completed'");
    assert_eq!(wrong, 0, "all of them complete");
}

/// A document once the projector has come to where it is told.
fn kept(node: &Node, projection: &str, key: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let url = format!("{}/projections/{projection}/{key}", node.url);
    eventually("the projector has caught up", PATIENCE, || {
        match get(&url) {
            Ok((200, found)) if is_it(&found["document"]) => Some(found["document"].clone()),
            _ => None,
        }
    })
}

#[test]
fn a_work_items_page_is_the_same_kept_live_and_made_on_demand() {
    let backends = Backends::create();
    let mut node = serve(&backends);
    let wire = Wire::connect(&backends.virtual_host.url);
    let heard = wire.own_queue();
    // Who listens declares what they bind to: the node may not have come to it yet.
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    wire.declare_exchange(EXCHANGE, ExchangeKind::Topic, durable, &[]);
    wire.bind(&heard, EXCHANGE, "work-items.*");

    let people = [("ann", "roofer"), ("bob", "owner")];
    let people = people.map(|(person, role)| json!({ "person": person, "role": role }));
    for item in ["w1", "w2"] {
        let input = json!({ "work_item": item, "title": format!("roof {item}"), "people": people });
        start(&node, "open-work-item", &input);
    }
    all_ended(&backends, 2);
    for number in 0..6 {
        let input = json!({
            "action": format!("a{number}"), "work_item": "w1", "by": "ann", "text": "tiles",
            "closes": number == 5,
        });
        // Twice, as a client does that has got no answer.
        start(&node, "record-action", &input);
        start(&node, "record-action", &input);
        all_ended(&backends, 3 + number);
    }

    let page = kept(&node, "work-item-details", "w1", |page| {
        page["events"] == 10
    });
    assert_eq!(
        (&page["status"], &page["actions"]),
        (&json!("closed"), &json!(6))
    );
    assert_eq!(page["people"], json!({ "ann": "roofer", "bob": "owner" }));
    for fresh in ["on-demand", "now", "on-demand"] {
        let url = format!("{}/projections/work-item-details/w1?as={fresh}", node.url);
        assert_eq!(get_json(&url)["document"], page, "{fresh}");
    }
    // What belongs together, in one order, each with what led to it.
    let feed = get_json(&format!("{}/events?correlation=w1", node.url));
    let events = feed["events"].as_array().unwrap();
    assert_eq!(events.len(), 10);
    assert!(events.is_sorted_by_key(|event| event["position"].as_u64()));
    for event in events {
        assert!(
            event["saga_id"].is_string() && event["message_id"].is_string(),
            "{event}"
        );
    }
    assert_eq!(events[0]["saga_key"], "w1");
    let told_of = wire.wait_for(&heard);
    let told_of: Value = serde_json::from_slice(&told_of.body).unwrap();
    assert_eq!(told_of["event"]["event"], "opened");

    // The page is damaged and made anew, over the same database, while the node runs.
    let anew = ["projection", "rebuild", "work-item-details"];
    let rebuilt = finish(&Command::backstitch(anew).on(&backends));
    assert!(rebuilt.status.success(), "{}", told(&rebuilt));
    assert!(
        told(&rebuilt).contains("generation 2 serves"),
        "{}",
        told(&rebuilt)
    );
    assert_eq!(kept(&node, "work-item-details", "w1", |_| true), page);
    let shown =
        finish(&Command::backstitch(["aggregate", "work-items", "w1", "--at", "1"]).on(&backends));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["state"]["status"], "open", "before it was closed");
    assert!(node.terminate().success(), "{}", node.log());
}

#[test]
fn the_badge_that_a_push_carries_is_right_and_replaying_pushes_nothing() {
    let backends = Backends::create();
    let mut node = serve(&backends);
    let mut sagas = 0;
    let mut run = |saga: &str, input: Value, badge: u64| {
        start(&node, saga, &input);
        sagas += 1;
        all_ended(&backends, sagas);
        let pushes = get_json(&format!("{}/aggregates/pushes/ann", node.url));
        assert_eq!(
            pushes["state"],
            json!({ "sent": sagas, "badge": badge }),
            "{saga} {input}"
        );
    };
    let message = |id: &str, chat: &str| {
        json!({
            "message": id, "chat": chat, "from": "bob", "to": "ann", "text": "hello",
        })
    };
    let read = |chat: &str, upto: &str| json!({ "customer": "ann", "chat": chat, "upto": upto });
    run("post-message", message("m1", "c1"), 1);
    run("post-message", message("m2", "c1"), 2);
    run("post-message", message("m3", "c2"), 3);
    run("mark-read", read("c1", "m1"), 2);
    run("post-message", message("m4", "c1"), 3);
    run("mark-read", read("c1", "m4"), 1);
    run("mark-read", read("c2", "m3"), 0);

    let outbox = "SELECT count(*)::text FROM backstitch.outbox";
    eventually("everything is sent", PATIENCE, || {
        (backends.database.text(outbox) == "0").then_some(())
    });
    let rebuilt =
        finish(&Command::backstitch(["projection", "rebuild", "unread-badge"]).on(&backends));
    assert!(rebuilt.status.success(), "{}", told(&rebuilt));
    let one = ["projection", "rebuild", "unread-badge", "--key", "ann"];
    let rebuilt = finish(&Command::backstitch(one).on(&backends));
    assert!(rebuilt.status.success(), "{}", told(&rebuilt));
    let badge = kept(&node, "unread-badge", "ann", |badge| badge["unread"] == 0);
    assert_eq!(badge["chats"], json!({}));
    assert_eq!(
        backends.database.text(outbox),
        "0",
        "replaying sends nothing"
    );
    let pushes = get_json(&format!("{}/aggregates/pushes/ann", node.url));
    assert_eq!(pushes["state"]["sent"], 7);
    assert!(node.terminate().success(), "{}", node.log());
}

#[test]
fn an_offer_expires_by_itself_though_the_participant_is_killed() {
    let backends = Backends::create();
    let mut node = serve(&backends);
    let now = || {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
    };
    let after = |seconds| {
        now()
            .after(std::time::Duration::from_secs(seconds))
            .to_string()
    };
    let later = [json!({ "price": 80, "valid_from": after(1_800) })];
    let make = |node: &Node, offer: &str, expires_at: &str| {
        let input = json!({
            "offer": offer, "customer": "ann", "price": 100, "expires_at": expires_at, "later": later,
        });
        start(node, "make-offer", &input);
    };
    make(&node, "o2", &after(3_600));
    all_ended(&backends, 1);
    // An offer that expires before it is made is refused: it takes as long as the machine takes.
    let mut ended = 1;
    let (o1, soon) = [4, 8, 16, 32, 64]
        .into_iter()
        .find_map(|seconds| {
            let (offer, expires_at) = (format!("within-{seconds}"), after(seconds));
            make(&node, &offer, &expires_at);
            ended += 1;
            eventually("every saga ends", PATIENCE, || {
                (backends.database.ended_sagas() == ended).then_some(())
            });
            let answer = get(&format!("{}/aggregates/offers/{offer}", node.url));
            matches!(answer, Ok((200, _))).then_some((offer, expires_at))
        })
        .expect("an offer is made within a minute");
    start(
        &node,
        "accept-offer",
        &json!({ "offer": "o2", "customer": "ann" }),
    );
    eventually("every saga ends", PATIENCE, || {
        (backends.database.ended_sagas() == ended + 1).then_some(())
    });
    node.kill9();
    let mut node = serve(&backends);
    let url = format!("{}/aggregates/offers/{o1}", node.url);
    let expired = eventually("the offer has expired", PATIENCE, || {
        let offer = get_json(&url);
        (offer["state"]["status"] == "expired").then_some(offer)
    });
    assert_eq!(expired["revision"], 3);
    let events = get_json(&format!("{url}/events"));
    let expiry = &events["events"][2];
    assert_eq!(
        (&expiry["event"]["event"], &expiry["valid_from"]),
        (&json!("expired"), &json!(soon))
    );
    assert_eq!(expiry["saga_id"], Value::Null, "no saga has asked for it");
    // What the price will be, by what is known now.
    let price = |at: &str| {
        let state = get_json(&format!("{}/aggregates/offers/o2?valid_at={at}", node.url));
        state["state"]["prices"]
            .as_array()
            .and_then(|prices| prices.last()?[1].as_u64())
    };
    assert_eq!(
        (price(&after(60)), price(&after(2_000))),
        (Some(100), Some(80))
    );
    let accepted = get_json(&format!("{}/aggregates/offers/o2", node.url));
    assert_eq!(accepted["state"]["status"], "accepted");
    assert!(node.terminate().success(), "{}", node.log());
}
