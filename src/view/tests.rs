use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::definition::{Definition, parse};
use crate::id::{Phase, SagaId, StepPath, Timestamp};
use crate::message::{Message, Outcome, Properties};
use crate::saga::journal::{self, Cause, GENESIS, JournalEntry, Record};
use crate::saga::{Event, Input, Parent, ParentOrder, Reply, Saga, Signal, Status, decide};
use crate::store::{LoadedSaga, SagaHead, Snapshot};

const ORDER: &str = "
saga: order
version: 1
description: Sell things.
key: ${ input.id }
timeout: 10m
steps:
  - step: order
    reserve: orders.open
    confirm: orders.confirm
    compensate: orders.cancel
  - parallel:
      - step: stock
        for_each: ${ input.items }
        with: { sku: '${ item }' }
        reserve: inventory.reserve
        confirm: inventory.confirm
        compensate: inventory.release
      - step: gift
        when: ${ input.gift }
        reserve: gifts.reserve
        confirm: gifts.confirm
        compensate: gifts.release
  - step: receipt
    confirm: mailer.send
";

const WAITS: &str = "
saga: order
version: 1
key: ${ input.id }
timeout: 30d
steps:
  - { wait: money, signal: paid, timeout: 3d }
  - wait: parcel
";

/// A saga that is told things, as a node would tell it.
pub(crate) struct Bundle {
    definition: Definition,
    saga: Saga,
    history: History,
    now: Timestamp,
}

impl Bundle {
    fn start(input: Value) -> Self {
        Self::of(ORDER, input)
    }

    pub(crate) fn of(definition: &str, input: Value) -> Self {
        let mut bundle = Self::unstarted(definition);
        let input = Arc::new(input);
        let start = Input::Start {
            input,
            starter: None,
        };
        bundle.tell(Cause::Start, start);
        bundle
    }

    fn unstarted(definition: &str) -> Self {
        let definition = parse(definition, "order.yaml").unwrap_or_else(|why| panic!("{why}"));
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let id = SagaId(Uuid::from_u128(7));
        let head = SagaHead {
            id,
            name: "order".to_owned(),
            version: 1,
            key: "o-1".to_owned(),
            input_hash: [1; 32],
            status: Status::Running,
            reason: None,
            revision: 0,
            head_hash: GENESIS,
            started_at: now,
            updated_at: now,
            ended_at: None,
            wake_at: None,
            parent: None,
            awaits: None,
            cause: None,
            superseded: false,
        };
        Self {
            definition,
            saga: Saga::new(id, "order", "o-1", now),
            history: History {
                head,
                entries: Vec::new(),
            },
            now,
        }
    }

    pub(crate) fn order() -> Self {
        Self::start(json!({ "id": "o-1", "items": ["a", "b"], "gift": false }))
    }

    /// Waits for one signal, and keeps another.
    pub(crate) fn waiting() -> Self {
        let mut bundle = Self::of(WAITS, json!({ "id": "o-1" }));
        let signal = Signal {
            name: "parcel".to_owned(),
            id: "s-1".to_owned(),
            body: Arc::new(json!({ "at": "door" })),
            at: None,
        };
        bundle.tell(Cause::Signal, Input::Signal(signal));
        bundle
    }

    /// Is run by another saga, and prepared.
    pub(crate) fn prepared() -> Self {
        let mut bundle = Self::unstarted(ORDER);
        let parent = Parent {
            saga: SagaId(Uuid::from_u128(9)),
            step: "order".parse().unwrap(),
            depth: 1,
        };
        let order = ParentOrder::Reserve {
            parent,
            input: Arc::new(json!({ "id": "o-1", "items": [], "gift": false })),
            refused: None,
        };
        bundle.tell(Cause::Parent, Input::Parent(order));
        bundle.reply("order", Phase::Reserve, Outcome::Succeeded);
        bundle
    }

    pub(crate) fn confirm(&mut self) {
        self.tell(Cause::Parent, Input::Parent(ParentOrder::Confirm));
    }

    pub(crate) fn tell(&mut self, cause: Cause, input: Input) {
        let decision = decide(&self.definition, &mut self.saga, input, self.now).unwrap();
        let head = &mut self.history.head;
        let record = Record {
            cause,
            events: decision.events,
        };
        head.revision += 1;
        let entry =
            JournalEntry::link(head.id, &head.head_hash, head.revision, self.now, &record).unwrap();
        head.head_hash = entry.hash;
        head.status = self.saga.status();
        head.reason = self.saga.status_reason();
        self.history.entries.push(entry);
        self.now = self.now.after(Duration::from_millis(5));
    }

    pub(crate) fn reply(&mut self, step: &str, phase: Phase, outcome: Outcome) {
        let reply = Reply {
            step: step.parse::<StepPath>().unwrap(),
            phase,
            outcome,
            stated: true,
            body: Arc::new(json!({ "ok": true })),
            reason: (outcome != Outcome::Succeeded).then(|| "no".to_owned()),
        };
        self.tell(Cause::Reply, Input::Reply(reply));
    }

    pub(crate) fn view(&self) -> SagaView {
        SagaView::new(&self.history, Some(&self.definition))
    }

    pub(crate) fn tasks(&self) -> Vec<TaskView> {
        tasks_of(&self.history, Some(&self.definition))
    }

    /// `step status >what is to come`, a line each.
    fn steps(&self) -> String {
        let mut text = String::new();
        for step in self.view().steps {
            write!(text, "{} {}", step.step, step.status.as_str()).unwrap();
            for phase in step.next {
                write!(text, " >{phase}").unwrap();
            }
            text.push('\n');
        }
        text
    }
}

#[test]
fn steps_still_to_come_are_shown_before_their_lists_are_counted() {
    let bundle = Bundle::order();
    let expected = "\
order reserving >confirm
stock[…] to come >reserve >confirm
gift to come >reserve >confirm
receipt to come >confirm
";
    assert_eq!(bundle.steps(), expected);
}

#[test]
fn a_counted_list_shows_each_item() {
    let mut bundle = Bundle::order();
    bundle.reply("order", Phase::Reserve, Outcome::Succeeded);
    let expected = "\
order reserved >confirm
stock[0] reserving >confirm
stock[1] reserving >confirm
gift skipped
receipt to come >confirm
";
    assert_eq!(bundle.steps(), expected);
    let view = bundle.view();
    let shape: Vec<_> = view.steps.iter().map(|s| (s.depth, s.parallel)).collect();
    let expected = [(0, false), (1, true), (1, true), (1, true), (0, false)];
    assert_eq!(shape, expected);
}

#[test]
fn an_empty_list_is_shown_as_skipped() {
    let mut bundle = Bundle::start(json!({ "id": "o-1", "items": [], "gift": true }));
    bundle.reply("order", Phase::Reserve, Outcome::Succeeded);
    assert!(bundle.steps().contains("stock[…] skipped\n"));
}

#[test]
fn in_roll_back_what_will_be_undone_is_told_from_what_will_not_run() {
    let mut bundle = Bundle::order();
    bundle.reply("order", Phase::Reserve, Outcome::Succeeded);
    bundle.reply("stock[0]", Phase::Reserve, Outcome::Rejected);
    let expected = "\
order reserved >compensate
stock[0] rejected
stock[1] reserving >compensate
gift skipped
receipt not run
";
    assert_eq!(bundle.steps(), expected);
}

#[test]
fn an_ended_saga_has_nothing_to_come() {
    let mut bundle = Bundle::order();
    for (step, phase) in [
        ("order", Phase::Reserve),
        ("stock[0]", Phase::Reserve),
        ("stock[1]", Phase::Reserve),
        ("order", Phase::Confirm),
        ("stock[1]", Phase::Confirm),
        ("stock[0]", Phase::Confirm),
        ("receipt", Phase::Confirm),
    ] {
        bundle.reply(step, phase, Outcome::Succeeded);
    }
    let expected = "\
order confirmed
stock[0] confirmed
stock[1] confirmed
gift skipped
receipt confirmed
";
    assert_eq!(bundle.steps(), expected);
    assert_eq!(bundle.view().head.status, Status::Completed);
}

#[test]
fn the_timeline_tells_the_story_with_its_times() {
    let mut bundle = Bundle::order();
    bundle.reply("order", Phase::Reserve, Outcome::Succeeded);
    let view = bundle.view();
    let words: Vec<_> = view.timeline[1]
        .events
        .iter()
        .filter_map(|event| event.text.as_deref())
        .collect();
    assert_eq!(view.timeline[1].after_us, 5_000);
    let expected = [
        "order reserve succeeded",
        "parallel in line 12: 2 branches",
        "for_each in line 13: 2 items",
        "asked stock[0] to reserve; answer due within 30s",
        "asked stock[1] to reserve; answer due within 30s",
        "gift skipped: its `when` is false",
    ];
    assert_eq!(words, expected);
}

#[test]
fn a_journal_that_was_tampered_with_is_told_apart() {
    let mut bundle = Bundle::order();
    bundle.reply("order", Phase::Reserve, Outcome::Succeeded);
    assert!(bundle.view().journal.verified);

    let mut changed = bundle.history.clone();
    changed.entries[0].at = Timestamp::from_micros(1);
    let mut cut = bundle.history.clone();
    cut.entries.pop();
    let mut row = bundle.history.clone();
    row.head.status = Status::Completed;
    let mut hash = bundle.history.clone();
    hash.head.head_hash = [9; 32];
    let mut illegal = bundle.history.clone();
    let record = Record {
        cause: Cause::Timer,
        events: vec![Event::PivotPassed, Event::PivotPassed],
    };
    let SagaHead { id, head_hash, .. } = &illegal.head;
    let entry = JournalEntry::link(*id, head_hash, 3, bundle.now, &record).unwrap();
    (illegal.head.revision, illegal.head.head_hash) = (3, entry.hash);
    illegal.entries.push(entry);
    for (history, expected) in [
        (changed, "entry 1 is not what was written"),
        (cut, "the row is at entry 2, the journal ends at 1"),
        (row, "the row says completed, the journal says running"),
        (hash, "the row's hash is not that of entry 2"),
        (
            illegal,
            "entry 3, event 2: the event `pivot_passed` can't be: the saga is confirming",
        ),
    ] {
        let journal = SagaView::new(&history, Some(&bundle.definition)).journal;
        assert!(!journal.verified);
        let problem = journal.problem.unwrap();
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn without_its_definition_a_saga_shows_what_was_reached() {
    let view = SagaView::new(&Bundle::order().history, None);
    let steps: Vec<_> = view.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(steps, ["order"]);
}

#[test]
fn the_view_is_json_with_the_row_at_the_top() {
    let json = serde_json::to_value(Bundle::order().view()).unwrap();
    assert_eq!(json["status"], "running");
    assert_eq!(json["started_at"], "2023-11-14T22:13:20Z");
    assert_eq!(json["steps"][0]["status"], "reserving");
    assert_eq!(json["steps"][0]["waiting"]["for"], "reply");
    assert_eq!(json["steps"][3]["status"], "to_come");
    assert_eq!(json["steps"][3]["next"], json!(["confirm"]));
    assert_eq!(json["timeline"][0]["events"][0]["event"], "started");
    assert_eq!(json["journal"]["verified"], true);
}

#[test]
fn what_a_saga_waits_for_and_what_is_kept_for_it_is_shown() {
    let json = serde_json::to_value(Bundle::waiting().view()).unwrap();
    let waiting = json!({ "for": "signal", "signal": "paid", "until": "2023-11-17T22:13:20Z" });
    assert_eq!(json["steps"][0]["waiting"], waiting);
    assert_eq!(json["steps"][1]["status"], "to_come");
    let kept = json!([{ "name": "parcel", "id": "s-1", "body": { "at": "door" }, "at": "2023-11-14T22:13:20.005Z" }]);
    assert_eq!(json["signals"], kept);
}

#[test]
fn durations_are_said_as_people_say_them() {
    for (millis, expected) in [
        (0, "0ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (1_560, "1.5s"),
        (60_000, "1m"),
        (125_000, "2m 5s"),
        (3_600_000, "1h"),
        (12_000_000, "3h 20m"),
        (349_200_000, "4d 1h"),
    ] {
        assert_eq!(spoken(Duration::from_millis(millis)), expected);
    }
}

#[test]
fn a_letter_shows_text_as_text_and_the_rest_in_hexadecimal() {
    let letter = |body: Vec<u8>| {
        MessageView::new(&Message {
            properties: Properties::default(),
            body: body.into(),
        })
    };
    assert_eq!(letter(b"{".to_vec()).body.as_deref(), Some("{"));
    assert_eq!(letter(vec![0xff]).body_hex.as_deref(), Some("ff"));
    // Cut in the middle of a character of two bytes.
    let long = letter("xä".repeat(letter::LETTER_BODY_BYTES_MAX).into_bytes());
    assert!(long.body.is_some_and(|body| body.ends_with('x')));
    assert!(long.body_cut);
}

#[test]
fn what_signs_a_correlation_id_is_in_no_view() {
    let id = "0192f0c0-7a6f-7a2d-9a7e-3f5c1d2e4b6a/stock[2]/reserve";
    let mac = "0123456789abcdef0123456789abcdef";
    let shown = json_of(&serde_json::json!({ "reply": { "echo": format!("{id}/{mac}") } }));
    let shown = shown.unwrap();
    assert!(shown.contains(id) && !shown.contains(mac), "{shown}");
}

#[test]
fn a_saga_stands_where_its_journal_says_whatever_snapshot_it_is_read_from() {
    let mut bundle = Bundle::order();
    for (step, phase) in [("order", Phase::Reserve), ("stock[1]", Phase::Reserve)] {
        bundle.reply(step, phase, Outcome::Succeeded);
    }
    let History { head, entries } = bundle.history.clone();
    let loaded = |snapshot, entries: &[JournalEntry]| LoadedSaga {
        head: head.clone(),
        snapshot,
        entries: entries.to_vec(),
        left_out: false,
    };
    let definition = Some(&bundle.definition);
    for known in 0..=entries.len() {
        let (first, rest) = entries.split_at(known);
        let mut saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
        journal::fold(&mut saga, 0, first).unwrap();
        let snapshot = (known > 0).then(|| Snapshot {
            revision: known as u64,
            body: serde_json::to_vec(&saga).unwrap().into(),
        });
        let before = Standing {
            head: SagaHead {
                revision: known as u64,
                ..head.clone()
            },
            saga,
            bytes: 0,
        };
        for (snapshot, before) in [(snapshot, None), (None, Some(&before))] {
            let standing = Standing::fold(loaded(snapshot, rest), before).unwrap();
            assert_eq!(standing.saga, bundle.saga, "from {known}");
            assert_eq!(standing.steps(definition), bundle.view().steps);
            let summary = SummaryView::new(&standing, &entries, definition);
            let summary = serde_json::to_value(&summary).unwrap();
            let stages = json!({ "reserved": 2, "reserving": 1, "skipped": 1, "to_come": 1 });
            assert_eq!(summary["stages"]["all"], stages);
            assert_eq!(summary["journal"]["verified"], Value::Null);
        }
    }
    let cut = Standing::fold(loaded(None, &entries[..1]), None);
    assert!(cut.unwrap_err().contains("its journal ends at 1"));
}
