//! Commands to the three aggregates, and the page that is folded from them.

use serde_json::json;

use super::*;
use crate::aggregates::tests::{Bundle, command};
use crate::participant::Aggregate;
use crate::projection::fold;
use crate::store::feed::{PlacedEvent, Position};
use crate::store::participant::{AggregateEvent, AggregateKey, Origin};

/// Events of one aggregate after another, as the feed would give them.
#[derive(Default)]
struct Feed(Vec<PlacedEvent>);

impl Feed {
    fn of<A: Aggregate>(&mut self, id: &str, events: &[A::Event]) {
        for (seq, event) in (1..).zip(events) {
            let position = Position(self.0.len() as u64 + 1);
            let event = AggregateEvent {
                key: AggregateKey {
                    kind: A::KIND.to_owned(),
                    id: id.to_owned(),
                },
                seq,
                at: crate::id::Timestamp::from_micros(7),
                valid_from: None,
                origin: Origin::default(),
                body: serde_json::to_vec(event).unwrap().into(),
            };
            self.0.push(PlacedEvent { position, event });
        }
    }
}

#[test]
fn a_command_that_comes_again_from_somebody_else_changes_nothing() {
    let mut items = Bundle::<WorkItems>::new();
    let open = |saga, title: &str| {
        let payload = json!({ "work_item": "w", "title": title });
        command("work-items.open", saga, "item", payload)
    };
    items.tell(&open(1, "roof")).unwrap();
    items.tell(&open(2, "roof")).unwrap();
    items.tell(&open(3, "cellar")).unwrap_err();
    assert_eq!(items.events.len(), 1);

    let mut actions = Bundle::<WorkActions>::new();
    let record = |saga, text: &str| {
        let payload = json!({ "action": "a", "work_item": "w", "by": "ann", "text": text });
        command("work-actions.record", saga, "action", payload)
    };
    actions.tell(&record(1, "tiles")).unwrap();
    actions.tell(&record(2, "tiles")).unwrap();
    actions.tell(&record(3, "slates")).unwrap_err();
    let revoke = command("work-actions.revoke", 1, "action", json!({ "action": "a" }));
    actions.tell(&revoke).unwrap();
    actions.tell(&record(4, "tiles")).unwrap_err();
    assert_eq!(actions.events.len(), 2);

    let mut people = Bundle::<WorkPeople>::new();
    let part = |name: &str, role: &str| {
        let payload = json!({ "work_item": "w", "person": "ann", "role": role });
        command(name, 1, "people", payload)
    };
    people.tell(&part("work-people.add", "roofer")).unwrap();
    people.tell(&part("work-people.add", "roofer")).unwrap();
    // A compensation for what another saga has changed since.
    people.tell(&part("work-people.remove", "painter")).unwrap();
    assert_eq!(people.state.people["ann"], "roofer");
    assert_eq!(people.events.len(), 1);
}

#[test]
fn a_work_items_page_is_folded_from_all_three() {
    let action = |text: &str| {
        actions::Event::Recorded(actions::Action {
            work_item: "w".to_owned(),
            by: "ann".to_owned(),
            text: text.to_owned(),
        })
    };
    let joined = |person: &str| people::Event::Joined {
        person: person.to_owned(),
        role: "roofer".to_owned(),
    };
    let mut feed = Feed::default();
    let title = "roof".to_owned();
    feed.of::<WorkItems>("w", &[items::Event::Opened { title }, items::Event::Closed]);
    let left = people::Event::Left {
        person: "bob".to_owned(),
    };
    feed.of::<WorkPeople>("w", &[joined("ann"), joined("bob"), left]);
    for number in 0..25 {
        feed.of::<WorkActions>(&format!("a{number}"), &[action("tiles")]);
    }
    feed.of::<WorkActions>("wrong", &[action("slates"), actions::Event::Revoked]);

    let page = fold::<WorkItemDetails>(&feed.0);
    assert_eq!(page.status, items::Status::Closed);
    assert_eq!(page.title, "roof");
    assert_eq!(page.people.keys().collect::<Vec<_>>(), ["ann"]);
    assert_eq!((page.actions, page.events), (25, 32));
    // The one that was revoked had pushed the oldest out.
    assert_eq!(page.latest.len(), 19);
    assert_eq!(page.latest[0].action, "a6");
    assert_eq!(page.latest.last().unwrap().action, "a24");
}
