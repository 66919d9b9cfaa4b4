//! Messages, read marks, and what the badge makes of them.

use serde_json::{Value, json};

use super::*;
use crate::aggregates::tests::{Bundle, command};
use crate::id::Timestamp;
use crate::participant::Aggregate;
use crate::projection::fold;
use crate::store::feed::{PlacedEvent, Position};
use crate::store::participant::{AggregateEvent, AggregateKey, Origin};

fn placed(number: u64, kind: &str, id: &str, body: Value) -> PlacedEvent {
    PlacedEvent {
        position: Position(number),
        event: AggregateEvent {
            key: AggregateKey {
                kind: kind.to_owned(),
                id: id.to_owned(),
            },
            seq: 1,
            at: Timestamp::default(),
            valid_from: None,
            origin: Origin::default(),
            body: body.to_string().into(),
        },
    }
}

/// `post CHAT MESSAGE`, `take CHAT MESSAGE` and `read CHAT MESSAGE`, one after the other.
fn badge_after(script: &[&str]) -> Badge {
    let events = (1..).zip(script).map(|(number, line)| {
        let words: Vec<&str> = line.split(' ').collect();
        let (chat, message) = (words[1], words[2]);
        match words[0] {
            "post" => placed(
                number,
                ChatMessages::KIND,
                message,
                json!({ "event": "posted", "chat": chat, "from": "bob", "to": "ann", "text": "?" }),
            ),
            "take" => placed(
                number,
                ChatMessages::KIND,
                message,
                json!({ "event": "withdrawn", "chat": chat, "to": "ann" }),
            ),
            _ => placed(
                number,
                ReadMarks::KIND,
                "ann",
                json!({ "event": "read", "chat": chat, "upto": message }),
            ),
        }
    });
    fold::<UnreadBadge>(&events.collect::<Vec<_>>())
}

#[test]
fn the_badge_counts_what_is_unread_in_all_chats() {
    let cases: [(&[&str], u64); 7] = [
        (&[], 0),
        (&["post x 1", "post x 2", "post y 3"], 3),
        (&["post x 1", "post x 2", "post y 3", "read x 1"], 2),
        (&["post x 1", "post x 2", "read x 2", "post x 3"], 1),
        (&["post x 1", "take x 1", "post x 2"], 1),
        // Read before it was taken back: it is not counted twice.
        (&["post x 1", "read x 1", "take x 1", "post x 2"], 1),
        // A mark at a message that is read already.
        (&["post x 1", "read x 1", "post x 2", "read x 1"], 1),
    ];
    for (script, unread) in cases {
        assert_eq!(badge_after(script).unread, unread, "{script:?}");
    }
    let many: Vec<String> = (0..700).map(|number| format!("post x {number}")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(badge_after(&many).unread, 700);
    many.push("read x 650");
    assert_eq!(badge_after(&many).unread, 49);
}

#[test]
fn a_message_is_posted_once_and_a_mark_is_set_once() {
    let mut message = Bundle::<ChatMessages>::new();
    let post = |saga, text: &str| {
        let payload =
            json!({ "message": "m", "chat": "c", "from": "bob", "to": "ann", "text": text });
        command("chat.post", saga, "message", payload)
    };
    message.tell(&post(1, "hi")).unwrap();
    message.tell(&post(2, "hi")).unwrap();
    message.tell(&post(3, "ho")).unwrap_err();
    assert_eq!(message.events.len(), 1);
    let withdraw = command("chat.withdraw", 1, "message", json!({ "message": "m" }));
    message.tell(&withdraw).unwrap();
    message.tell(&withdraw).unwrap();
    message.tell(&post(4, "hi")).unwrap_err();
    assert_eq!(message.events.len(), 2);

    let mut marks = Bundle::<ReadMarks>::new();
    let payload = json!({ "customer": "ann", "chat": "c", "upto": "m" });
    for _ in 0..2 {
        let mark = command("chat.mark-read", 5, "mark", payload.clone());
        marks.tell(&mark).unwrap();
    }
    assert_eq!(marks.events.len(), 1);
}
