//! What the core does, told as stories: inputs in, commands out.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::definition::{Definition, parse};
use crate::id::{SagaId, StepPath, Timestamp};
use crate::message::Outcome;

const ORDER: &str = "
saga: order
version: 1
key: ${ input.id }
timeout: 10m
steps:
  - step: order
    with: { id: '${ input.id }' }
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
        timeout: 10s
        retry: { attempts: 2, first: 1s, factor: 2, max: 4s }
      - step: payment
        reserve: payments.reserve
        confirm: payments.capture
        compensate: payments.release
        timeout: 10s
        suspend_after: 2
  - step: receipt
    confirm: mailer.send
output: { paid: '${ steps.payment.amount }' }
";

/// A saga under test. Every step of a story also checks that folding the journal gives the state.
struct Story {
    definition: Definition,
    saga: Saga,
    journal: Vec<Event>,
    now: Timestamp,
    notices: Vec<&'static str>,
}

impl Story {
    fn begin(yaml: &str, input: Value) -> (Self, Vec<String>) {
        let definition = parse(yaml, "test.yaml").unwrap_or_else(|problems| panic!("{problems}"));
        let now = Timestamp::from_micros(1_000_000);
        let mut story = Self {
            saga: Saga::new(SagaId(Uuid::from_u128(1)), &definition.name, "k", now),
            definition,
            journal: Vec::new(),
            now,
            notices: Vec::new(),
        };
        let sent = story
            .tell(Input::Start {
                input: Arc::new(input),
                starter: None,
            })
            .unwrap();
        (story, sent)
    }

    fn order(items: &[&str]) -> Self {
        Self::begin(ORDER, json!({ "id": "o1", "items": items })).0
    }

    /// Commands sent, as `step phase#attempt`.
    fn tell(&mut self, input: Input) -> Result<Vec<String>, Refusal> {
        let before = self.saga.clone();
        let decision = match decide(&self.definition, &mut self.saga, input, self.now) {
            Ok(decision) => decision,
            Err(refusal) => {
                assert_eq!(
                    self.saga, before,
                    "a refused input must not change the saga"
                );
                return Err(refusal);
            }
        };
        assert!(!decision.events.is_empty());
        assert_eq!(decision.wake_at, self.saga.wake_at());
        self.journal.extend(decision.events);
        self.check_fold();
        let mut sent = Vec::new();
        for send in decision.sends {
            match send {
                Send::Command {
                    step,
                    phase,
                    attempt,
                    ..
                } => {
                    sent.push(format!("{step} {phase}#{attempt}"));
                }
                Send::Notice { change, .. } => self.notices.push(change),
                Send::Answer { .. } => {}
            }
        }
        Ok(sent)
    }

    fn check_fold(&self) {
        let (id, key) = (self.saga.id, &self.saga.facts.key);
        let mut folded = Saga::new(id, &self.saga.name, key, self.saga.facts.started_at);
        for event in &self.journal {
            let json = serde_json::to_string(event).unwrap();
            apply(&mut folded, &serde_json::from_str(&json).unwrap());
        }
        assert_eq!(folded, self.saga, "fold(journal) must be the state");
        let snapshot = serde_json::to_string(&self.saga).unwrap();
        assert_eq!(serde_json::from_str::<Saga>(&snapshot).unwrap(), self.saga);
    }

    fn answer(&mut self, command: &str, outcome: Outcome) -> Result<Vec<String>, Refusal> {
        self.answer_with(command, outcome, json!({ "amount": 7 }))
    }

    fn answer_with(
        &mut self,
        command: &str,
        outcome: Outcome,
        body: Value,
    ) -> Result<Vec<String>, Refusal> {
        let (step, phase) = command.split_once(' ').unwrap();
        let reason = (outcome != Outcome::Succeeded).then(|| "because".to_owned());
        self.tell(Input::Reply(Reply {
            step: step.parse().unwrap(),
            phase: phase.parse().unwrap(),
            outcome,
            body: Arc::new(body),
            reason,
        }))
    }

    fn yes(&mut self, command: &str) -> Vec<String> {
        self.answer(command, Outcome::Succeeded).unwrap()
    }

    fn no(&mut self, command: &str) -> Vec<String> {
        self.answer(command, Outcome::Rejected).unwrap()
    }

    fn fail(&mut self, command: &str) -> Vec<String> {
        self.answer(command, Outcome::Failed).unwrap()
    }

    /// Lets time pass until the saga wants to be woken.
    fn wake(&mut self) -> Vec<String> {
        self.now = self.saga.wake_at().expect("nothing is due");
        self.tell(Input::Wake).unwrap()
    }

    fn step(&self, path: &str) -> StepStatus {
        self.saga.steps[&path.parse::<StepPath>().unwrap()].status
    }

    fn reason(&self) -> String {
        self.saga.status_reason().unwrap_or_default()
    }
}

#[test]
fn everything_succeeds_in_order_and_completes() {
    let (mut story, sent) = Story::begin(ORDER, json!({ "id": "o1", "items": ["a", "b"] }));
    assert_eq!(sent, ["order reserve#1"]);
    assert_eq!(
        story.yes("order reserve"),
        [
            "stock[0] reserve#1",
            "stock[1] reserve#1",
            "payment reserve#1"
        ]
    );
    assert!(story.yes("stock[1] reserve").is_empty());
    assert!(story.yes("payment reserve").is_empty());
    assert_eq!(story.saga.status(), Status::Running);
    assert_eq!(
        story.yes("stock[0] reserve"),
        [
            "order confirm#1",
            "payment confirm#1",
            "stock[0] confirm#1",
            "stock[1] confirm#1"
        ]
    );
    assert_eq!(story.saga.status(), Status::Confirming);
    for command in ["payment confirm", "stock[1] confirm", "order confirm"] {
        assert!(story.yes(command).is_empty());
    }
    assert_eq!(story.yes("stock[0] confirm"), ["receipt confirm#1"]);
    assert!(story.yes("receipt confirm").is_empty());
    assert_eq!(story.saga.status(), Status::Completed);
    assert_eq!(story.saga.output.as_deref(), Some(&json!({ "paid": 7 })));
    assert_eq!(story.saga.wake_at(), None);
    assert_eq!(story.notices, ["started", "confirming", "completed"]);
}

#[test]
fn a_rejection_rolls_back_in_reverse_order() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.yes("stock[0] reserve");
    assert_eq!(story.no("payment reserve"), ["stock[0] compensate#1"]);
    assert_eq!(story.saga.status(), Status::Compensating);
    assert_eq!(story.yes("stock[0] compensate"), ["order compensate#1"]);
    assert!(story.yes("order compensate").is_empty());
    assert_eq!(story.saga.status(), Status::Compensated);
    assert_eq!(story.reason(), "payment rejected: because");
    assert_eq!(story.step("payment"), StepStatus::Rejected);
    assert_eq!(story.notices, ["started", "compensating", "compensated"]);
}

#[test]
fn a_rejection_is_never_retried_and_a_failure_is() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    assert!(story.fail("stock[0] reserve").is_empty());
    assert_eq!(story.wake(), ["stock[0] reserve#2"]);
    assert!(
        story.no("stock[0] reserve").is_empty(),
        "payment is heard out first"
    );
    assert_eq!(story.yes("payment reserve"), ["payment compensate#1"]);
}

#[test]
fn a_step_in_flight_is_heard_out_before_it_is_compensated() {
    let cases = [
        (Some(Outcome::Succeeded), vec!["payment compensate#1"]),
        (Some(Outcome::Rejected), vec!["order compensate#1"]),
        (Some(Outcome::Failed), vec!["payment compensate#1"]),
        (None, vec!["payment compensate#1"]),
    ];
    for (outcome, expected) in cases {
        let mut story = Story::order(&["a"]);
        story.yes("order reserve");
        assert!(story.no("stock[0] reserve").is_empty());
        let sent = match outcome {
            Some(outcome) => story.answer("payment reserve", outcome).unwrap(),
            None => story.wake(),
        };
        assert_eq!(sent, expected, "{outcome:?}");
    }
}

#[test]
fn an_unknown_outcome_is_compensated() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.yes("payment reserve");
    assert!(story.wake().is_empty(), "first time-out plans a retry");
    assert_eq!(story.wake(), ["stock[0] reserve#2"]);
    assert_eq!(
        story.wake(),
        ["stock[0] compensate#1", "payment compensate#1"]
    );
    assert_eq!(
        story.reason(),
        "stock[0] reserve: no answer within 10s, after 2 attempt(s)"
    );
}

#[test]
fn late_reply_after_timeout_is_compensated() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.yes("payment reserve");
    story.wake();
    story.wake();
    story.wake();
    assert_eq!(
        story.answer("stock[0] reserve", Outcome::Succeeded),
        Err(Refusal::Settled)
    );
    story.yes("payment compensate");
    assert_eq!(story.yes("stock[0] compensate"), ["order compensate#1"]);
}

#[test]
fn a_reply_that_comes_while_a_retry_is_planned_counts() {
    let mut story = Story::order(&[]);
    story.yes("order reserve");
    assert!(story.fail("payment reserve").is_empty());
    assert_eq!(
        story.answer("payment reserve", Outcome::Failed),
        Err(Refusal::Settled)
    );
    assert_eq!(
        story.yes("payment reserve"),
        ["order confirm#1", "payment confirm#1"]
    );
}

#[test]
fn a_retry_planned_when_the_roll_back_comes_is_compensated_instead() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    story.fail("payment reserve");
    assert_eq!(story.no("stock[0] reserve"), ["payment compensate#1"]);
}

#[test]
fn duplicates_and_answers_nobody_asked_for_change_nothing() {
    let mut story = Story::order(&["a"]);
    story.yes("order reserve");
    assert_eq!(
        story.answer("order reserve", Outcome::Succeeded),
        Err(Refusal::Settled)
    );
    assert_eq!(
        story.answer("order reserve", Outcome::Rejected),
        Err(Refusal::Settled)
    );
    for command in [
        "order confirm",
        "order compensate",
        "order action",
        "stock[1] reserve",
        "stock reserve",
        "receipt confirm",
        "nonsense reserve",
    ] {
        let refusal = story.answer(command, Outcome::Succeeded);
        assert!(
            matches!(refusal, Err(Refusal::NeverAsked { .. })),
            "{command}: {refusal:?}"
        );
    }
    let again = Input::Start {
        input: Arc::new(json!({})),
        starter: None,
    };
    assert_eq!(story.tell(again), Err(Refusal::AlreadyStarted));
    assert_eq!(
        story.tell(Input::Wake),
        Err(Refusal::Settled),
        "nothing is due yet"
    );
}

#[test]
fn what_ended_does_not_change_again() {
    let mut story = Story::order(&[]);
    story.no("order reserve");
    assert_eq!(story.saga.status(), Status::Compensated);
    story.now = story.now.after(Duration::from_hours(1));
    assert_eq!(
        story.answer("order reserve", Outcome::Succeeded),
        Err(Refusal::Settled)
    );
    assert_eq!(story.tell(Input::Wake), Err(Refusal::Settled));
    let resume = Input::Resume {
        by: "me".into(),
        why: "no".into(),
    };
    assert_eq!(story.tell(resume), Err(Refusal::Settled));
}

#[test]
fn the_sagas_timeout_counts_before_the_pivot_only() {
    let yaml = ORDER.replace("timeout: 10m", "timeout: 15s");
    let input = json!({ "id": "o1", "items": [] });
    let (mut before, _) = Story::begin(&yaml, input.clone());
    before.yes("order reserve");
    assert!(
        before.wake().is_empty(),
        "the payment's own time-out comes first"
    );
    before.wake();
    before.yes("payment reserve");
    assert_eq!(before.saga.status(), Status::Confirming);

    let (mut late, _) = Story::begin(&yaml, input);
    late.now = late.now.after(Duration::from_secs(15));
    assert!(
        late.tell(Input::Wake).unwrap().is_empty(),
        "the order is heard out"
    );
    assert_eq!(late.reason(), "timed out: not past the pivot within 15s");
    assert_eq!(late.yes("order reserve"), ["order compensate#1"]);

    before.now = before.now.after(Duration::from_mins(5));
    before.tell(Input::Wake).unwrap();
    assert_eq!(
        before.saga.status(),
        Status::Confirming,
        "past the pivot it is driven on"
    );
}

#[test]
fn a_confirm_is_retried_and_then_waits_for_a_person_while_others_go_on() {
    let mut story = Story::order(&["a"]);
    for command in ["order reserve", "stock[0] reserve", "payment reserve"] {
        story.yes(command);
    }
    story.fail("payment confirm");
    assert_eq!(story.wake(), ["payment confirm#2"]);
    assert!(story.fail("payment confirm").is_empty());
    assert_eq!(story.saga.status(), Status::Suspended);
    assert_eq!(story.reason(), "payment confirm: because, after 2 attempts");
    assert!(story.yes("order confirm").is_empty());
    assert!(story.yes("stock[0] confirm").is_empty());
    assert_eq!(story.saga.status(), Status::Suspended);
    let resume = Input::Resume {
        by: "ann".into(),
        why: "bank is back".into(),
    };
    assert_eq!(story.tell(resume).unwrap(), ["payment confirm#1"]);
    assert_eq!(story.saga.status(), Status::Confirming);
    assert_eq!(story.yes("payment confirm"), ["receipt confirm#1"]);
    assert_eq!(
        story.notices,
        ["started", "confirming", "suspended", "resumed"]
    );
}

#[test]
fn a_late_yes_ends_a_suspension() {
    let mut story = Story::order(&[]);
    story.yes("order reserve");
    story.yes("payment reserve");
    story.no("payment confirm");
    assert_eq!(
        story.saga.status(),
        Status::Suspended,
        "a confirm can't be refused"
    );
    assert_eq!(
        story.answer("payment confirm", Outcome::Failed),
        Err(Refusal::Settled)
    );
    story.yes("order confirm");
    assert_eq!(story.yes("payment confirm"), ["receipt confirm#1"]);
    assert_eq!(story.saga.status(), Status::Confirming);
}

#[test]
fn a_refused_compensation_waits_for_a_person_while_others_unwind() {
    let mut story = Story::order(&["a", "b"]);
    for command in ["order reserve", "stock[0] reserve", "stock[1] reserve"] {
        story.yes(command);
    }
    assert_eq!(
        story.no("payment reserve"),
        ["stock[0] compensate#1", "stock[1] compensate#1"]
    );
    assert!(story.no("stock[0] compensate").is_empty());
    assert_eq!(story.saga.status(), Status::Suspended);
    assert!(story.yes("stock[1] compensate").is_empty());
    let resume = Input::Resume {
        by: "ann".into(),
        why: "fixed".into(),
    };
    assert_eq!(story.tell(resume).unwrap(), ["stock[0] compensate#1"]);
    assert_eq!(story.yes("stock[0] compensate"), ["order compensate#1"]);
    story.yes("order compensate");
    assert_eq!(story.saga.status(), Status::Compensated);
}

#[test]
fn payloads_carry_what_was_computed_and_the_reservation() {
    let mut story = Story::order(&["a"]);
    let reply = |step: &str, body| {
        Input::Reply(Reply {
            step: step.parse().unwrap(),
            phase: crate::id::Phase::Reserve,
            outcome: Outcome::Succeeded,
            body: Arc::new(body),
            reason: None,
        })
    };
    let mut bodies = Vec::new();
    for (step, answer) in [
        ("order", json!({ "ticket": 1 })),
        ("stock[0]", json!({ "ticket": 2 })),
        ("payment", json!({ "ticket": 3, "amount": 5 })),
    ] {
        let input = reply(step, answer);
        let decision = decide(&story.definition, &mut story.saga, input, story.now).unwrap();
        for send in decision.sends {
            if let Send::Command {
                step,
                phase,
                body,
                to,
                command,
                ..
            } = send
            {
                bodies.push((format!("{step} {phase} {command} {to}"), body));
            }
        }
    }
    assert_eq!(
        bodies,
        [
            (
                "stock[0] reserve inventory.reserve queue `inventory`".to_owned(),
                json!({ "sku": "a" })
            ),
            (
                "payment reserve payments.reserve queue `payments`".to_owned(),
                json!({})
            ),
            (
                "order confirm orders.confirm queue `orders`".to_owned(),
                json!({ "id": "o1", "reservation": { "ticket": 1 } })
            ),
            (
                "payment confirm payments.capture queue `payments`".to_owned(),
                json!({ "reservation": { "ticket": 3, "amount": 5 } })
            ),
            (
                "stock[0] confirm inventory.confirm queue `inventory`".to_owned(),
                json!({ "sku": "a", "reservation": { "ticket": 2 } })
            ),
        ]
    );
}

const BRANCHES: &str = "
saga: branches
version: 1
key: ${ input.id }
steps:
  - step: look
    reserve: books.look
    read_only: true
  - step: gift
    when: ${ input.gift }
    action: gifts.wrap
    compensate: gifts.unwrap
  - step: ship
    for_each: ${ input.parcels }
    when: ${ item.heavy }
    with: { weight: '${ item.weight }' }
    action: carrier.book
    compensate: carrier.cancel
  - step: tell
    with: { weights: '${ steps.ship }', missing: '${ input.missing }' }
    confirm: mailer.tell
";

#[test]
fn what_is_not_wanted_is_skipped_and_not_undone() {
    let parcels = json!([{ "heavy": false, "weight": 1 }, { "heavy": true, "weight": 9 }]);
    let input = json!({ "id": "b", "gift": false, "parcels": parcels, "missing": 0 });
    let (mut story, sent) = Story::begin(BRANCHES, input);
    assert_eq!(sent, ["look reserve#1"]);
    assert_eq!(story.yes("look reserve"), ["ship[1] action#1"]);
    assert_eq!(story.step("gift"), StepStatus::Skipped);
    assert_eq!(story.step("ship[0]"), StepStatus::Skipped);
    assert!(
        story.no("ship[1] action").is_empty(),
        "look is read-only: nothing to undo"
    );
    assert_eq!(story.saga.status(), Status::Compensated);
}

#[test]
fn actions_are_undone_in_reverse_and_need_no_confirm() {
    let parcels = json!([{ "heavy": true, "weight": 1 }, { "heavy": true, "weight": 2 }]);
    let input = json!({ "id": "b", "gift": true, "parcels": parcels, "missing": 0 });
    let (mut story, _) = Story::begin(BRANCHES, input.clone());
    assert_eq!(story.yes("look reserve"), ["gift action#1"]);
    assert_eq!(
        story.yes("gift action"),
        ["ship[0] action#1", "ship[1] action#1"]
    );
    story.yes("ship[0] action");
    assert_eq!(story.no("ship[1] action"), ["ship[0] compensate#1"]);
    assert_eq!(story.yes("ship[0] compensate"), ["gift compensate#1"]);
    story.yes("gift compensate");
    assert_eq!(story.saga.status(), Status::Compensated);

    let (mut story, _) = Story::begin(BRANCHES, input);
    story.yes("look reserve");
    story.yes("gift action");
    story.yes("ship[0] action");
    assert_eq!(story.yes("ship[1] action"), ["tell confirm#1"]);
    let with = story.saga.steps[&StepPath::plain("tell")]
        .with
        .clone()
        .unwrap();
    assert_eq!(with["weights"], json!([{ "amount": 7 }, { "amount": 7 }]));
}

#[test]
fn an_expression_that_fails_before_the_pivot_rolls_back_and_after_it_suspends() {
    let input = json!({ "id": "b", "gift": true, "parcels": [{ "heavy": true }], "missing": 0 });
    let (mut story, _) = Story::begin(BRANCHES, input);
    story.yes("look reserve");
    assert_eq!(story.yes("gift action"), ["gift compensate#1"]);
    assert!(story.reason().contains("item.weight"), "{}", story.reason());

    let input = json!({ "id": "b", "gift": true, "parcels": [] });
    let (mut story, _) = Story::begin(BRANCHES, input);
    story.yes("look reserve");
    story.yes("gift action");
    assert_eq!(story.saga.status(), Status::Suspended);
    assert!(
        story.reason().contains("tell confirm"),
        "{}",
        story.reason()
    );
    let resume = Input::Resume {
        by: "ann".into(),
        why: "try".into(),
    };
    assert!(story.tell(resume).unwrap().is_empty());
    assert_eq!(
        story.saga.status(),
        Status::Suspended,
        "still can't be computed"
    );
}

#[test]
fn a_for_each_over_nothing_or_over_no_list() {
    let mut story = Story::order(&[]);
    assert_eq!(story.yes("order reserve"), ["payment reserve#1"]);
    let (mut story, _) = Story::begin(ORDER, json!({ "id": "o1", "items": 5 }));
    assert_eq!(story.yes("order reserve"), ["order compensate#1"]);
    assert!(
        story.reason().contains("needs a list"),
        "{}",
        story.reason()
    );
}

#[test]
fn ten_thousand_items_end_with_one_event_or_two_a_reply() {
    const ITEMS: usize = 10_000;
    let items: Vec<Value> = (0..ITEMS).map(|item| json!(item)).collect();
    let definition = parse(ORDER, "test.yaml").unwrap();
    let now = Timestamp::from_micros(1);
    let mut saga = Saga::new(SagaId(Uuid::from_u128(1)), "order", "k", now);
    let input = Arc::new(json!({ "id": "o1", "items": items }));
    decide(
        &definition,
        &mut saga,
        Input::Start {
            input,
            starter: None,
        },
        now,
    )
    .unwrap();
    let reply = |step: StepPath| {
        Input::Reply(Reply {
            step,
            phase: crate::id::Phase::Reserve,
            outcome: Outcome::Succeeded,
            body: Arc::new(json!({ "amount": 1 })),
            reason: None,
        })
    };
    decide(&definition, &mut saga, reply(StepPath::plain("order")), now).unwrap();
    for index in 0..u32::try_from(ITEMS - 1).unwrap() {
        let input = reply(StepPath::at("stock", &[index]));
        let decision = decide(&definition, &mut saga, input, now).unwrap();
        assert!(decision.events.len() <= 2, "{:?}", decision.events);
    }
}
