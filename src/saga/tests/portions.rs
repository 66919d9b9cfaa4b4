//! Decisions that are too large for one: what leaves off goes on, and what is too much is refused.

use super::*;
use crate::limits::{BODY, COMMAND, COMPUTED, Extent, PORTION_BYTES, PORTION_COMMANDS, SAGA};

/// A loop over the whole input, with something before and something behind it.
const FAN_OUT: &str = "
saga: fan-out
version: 1
key: ${ input.id }
timeout: 10m
defaults: { retry: { attempts: 1 } }
steps:
  - step: part
    for_each: ${ input.items }
    with: { all: '${ input.pad }', item: '${ item }' }
    reserve: parts.reserve
    confirm: parts.confirm
    compensate: parts.release
";

/// A story of so many steps that checking the fold each time would take minutes.
struct Large(Story);

impl Large {
    fn begin(yaml: &str, items: usize, pad: usize) -> Result<(Self, Vec<String>), Refusal> {
        let mut large = Self(Story::unstarted(yaml));
        let items: Vec<usize> = (0..items).collect();
        let input = json!({ "id": "f", "items": items, "pad": "x".repeat(pad) });
        let sent = large.tell(Input::Start {
            input: Arc::new(input),
            starter: None,
        })?;
        Ok((large, sent))
    }

    /// Commands sent. No decision is larger than one may be.
    fn tell(&mut self, input: Input) -> Result<Vec<String>, Refusal> {
        let Story {
            definition,
            saga,
            journal,
            now,
            ..
        } = &mut self.0;
        let decision = decide(definition, saga, input, *now)?;
        let written = serde_json::to_string(&decision.events).unwrap().len();
        let sent: usize = decision.emissions.iter().map(bytes_of).sum();
        // What it says besides (paths, times) is small.
        let most = PORTION_BYTES + COMPUTED.bytes + COMMAND.bytes + BODY.bytes + 1024 * 1024;
        assert!(written + sent <= most, "{written} + {sent}");
        assert_eq!(decision.wake_at, saga.wake_at());
        journal.extend(decision.events);
        let commands = decision.emissions.iter().filter_map(|send| match send {
            Emission::Command { step, phase, .. } => Some(format!("{step} {phase}")),
            _ => None,
        });
        let commands: Vec<String> = commands.collect();
        assert!(commands.len() <= PORTION_COMMANDS);
        Ok(commands)
    }

    /// Lets it go on, portion by portion, until it waits for something outside.
    fn go_on(&mut self) -> Vec<Vec<String>> {
        let mut portions = Vec::new();
        while self.0.saga.is_left_off() {
            assert!(
                self.0.saga.wake_at() <= Some(self.0.now),
                "it is due at once"
            );
            portions.push(self.tell(Input::GoOn).unwrap());
        }
        portions
    }

    fn answer(&mut self, command: &str, outcome: Outcome, body: Value) -> Vec<String> {
        let (step, phase) = command.split_once(' ').unwrap();
        self.tell(Input::Reply(Reply {
            step: step.parse().unwrap(),
            phase: phase.parse().unwrap(),
            outcome,
            stated: true,
            body: Arc::new(body),
            reason: None,
        }))
        .unwrap()
    }

    fn yes(&mut self, command: &str) -> Vec<String> {
        self.answer(command, Outcome::Succeeded, json!({}))
    }
}

fn bytes_of(send: &Emission) -> usize {
    match send {
        Emission::Command { body, .. } => Extent::of(body).bytes,
        _ => 0,
    }
}

#[test]
fn a_large_fan_out_is_asked_confirmed_and_done_in_portions() {
    for (items, pad) in [(2_500, 10), (40, 400_000)] {
        let (mut large, first) = Large::begin(FAN_OUT, items, pad).unwrap();
        assert!(!first.is_empty() && first.len() < items);
        let mut asked = first;
        let portions = large.go_on();
        assert!(portions.len() > 1, "{}", portions.len());
        asked.extend(portions.concat());
        let all: Vec<String> = (0..items)
            .map(|item| format!("part[{item}] reserve"))
            .collect();
        assert_eq!(asked, all, "each once, in order");
        let mut confirmed = Vec::new();
        for command in &all {
            confirmed.extend(large.yes(command));
        }
        assert!(large.0.saga.is_left_off());
        // Those that were asked first are answered before the others are asked.
        for command in &confirmed.clone() {
            assert_eq!(large.yes(command), [""; 0]);
        }
        assert_eq!(large.0.saga.pass, Pass::Confirm);
        for portion in large.go_on() {
            for command in &portion {
                large.yes(command);
            }
            confirmed.extend(portion);
        }
        assert_eq!(confirmed.len(), items);
        assert_eq!(large.0.saga.status(), Status::Completed);
        large.0.check_fold();
    }
}

#[test]
fn a_no_between_two_portions_rolls_back_what_was_asked_and_no_more() {
    let (mut large, asked) = Large::begin(FAN_OUT, 40, 400_000).unwrap();
    large.answer(&asked[0], Outcome::Rejected, json!({}));
    assert_eq!(large.go_on().concat(), [""; 0], "nothing more is asked");
    let mut undone = Vec::new();
    for command in &asked[1..] {
        // Those in flight are heard out.
        undone.extend(large.yes(command));
    }
    assert_eq!(undone.len(), asked.len() - 1);
    for command in &undone {
        large.yes(command);
    }
    assert_eq!(large.0.saga.status(), Status::Compensated);
    large.0.check_fold();
}

#[test]
fn a_large_roll_back_comes_in_portions() {
    let (mut large, mut asked) = Large::begin(FAN_OUT, 40, 400_000).unwrap();
    asked.extend(large.go_on().concat());
    for command in &asked[1..] {
        large.yes(command);
    }
    let mut undone = large.answer(&asked[0], Outcome::Rejected, json!({}));
    assert!(undone.len() < 39);
    undone.extend(large.go_on().concat());
    undone.sort();
    undone.dedup();
    assert_eq!(undone.len(), 39, "each once");
    for command in &undone {
        large.yes(command);
    }
    assert_eq!(large.0.saga.status(), Status::Compensated);
    large.0.check_fold();
}

#[test]
fn what_is_answered_before_the_roll_back_comes_to_it_is_undone_and_counted_once() {
    let (mut large, mut asked) = Large::begin(FAN_OUT, 40, 400_000).unwrap();
    asked.extend(large.go_on().concat());
    for command in &asked[1..35] {
        large.yes(command);
    }
    let mut undone = large.answer(&asked[0], Outcome::Rejected, json!({}));
    assert!(large.0.saga.is_left_off());
    for command in &asked[35..37] {
        assert_eq!(large.yes(command), [""; 0], "its turn is still to come");
    }
    for command in &asked[37..39] {
        large.answer(command, Outcome::Rejected, json!({}));
    }
    undone.extend(large.go_on().concat());
    undone.extend(large.yes(&asked[39]));
    let items = (1..37).chain([39]);
    let expected: Vec<String> = items
        .map(|item| format!("part[{item}] compensate"))
        .collect();
    assert_eq!(undone, expected, "each once, in order");
    for command in &undone {
        assert_eq!(large.0.saga.status(), Status::Compensating);
        large.yes(command);
    }
    assert_eq!(large.0.saga.status(), Status::Compensated);
    large.0.check_fold();
}

#[test]
fn a_pause_between_two_portions_holds_the_rest_back() {
    let (mut large, mut asked) = Large::begin(FAN_OUT, 40, 400_000).unwrap();
    large.tell(operator("p", OperatorKind::Pause)).unwrap();
    assert_eq!(large.0.saga.wake_at(), None);
    for command in &asked {
        large.yes(command);
    }
    asked.extend(large.tell(operator("r", OperatorKind::Resume)).unwrap());
    asked.extend(large.go_on().concat());
    assert_eq!(asked.len(), 40);
    assert_eq!(large.0.step("part[0]"), StepStatus::Reserved);
    large.0.check_fold();
}

#[test]
fn a_start_that_would_be_too_large_is_refused_and_leaves_no_trace() {
    let product = Large::begin(FAN_OUT, 300, 900_000);
    let confirm_only = FAN_OUT.replace(
        "reserve: parts.reserve\n    confirm: parts.confirm\n    compensate: parts.release",
        "confirm: parts.print",
    );
    for refused in [product, Large::begin(&confirm_only, 300, 900_000)] {
        let Err(Refusal::TooLarge(why)) = refused else {
            panic!("it was begun");
        };
        assert!(why.contains(&SAGA.bytes.to_string()), "{why}");
    }
    let mut story = Story::unstarted(FAN_OUT);
    let input =
        json!({ "id": "f", "items": (0..300).collect::<Vec<_>>(), "pad": "x".repeat(900_000) });
    let starter = None;
    let input = Arc::new(input);
    // `tell` sees to it that a refused input leaves the saga as it was.
    assert!(story.tell(Input::Start { input, starter }).is_err());
}

#[test]
fn what_turns_out_to_be_too_large_before_the_pivot_is_rolled_back() {
    let later = FAN_OUT.replace(
        "steps:",
        "steps:\n  - { step: first, reserve: a.b, confirm: a.c, compensate: a.d }",
    );
    let (mut large, _) = Large::begin(&later, 300, 900_000).unwrap();
    // The first portion was asked already, and is heard out.
    assert!(large.yes("first reserve").len() < 10);
    large.go_on();
    assert_eq!(large.0.saga.pass, Pass::Rollback);
    assert!(large.0.reason().contains(&SAGA.bytes.to_string()));
}

#[test]
fn what_is_gathered_is_too_large_before_the_pivot_also_if_it_is_sent_behind_it() {
    for command in ["action: mail.send, read_only: true", "confirm: mail.send"] {
        let gather = format!(
            "{FAN_OUT}  - {{ step: letter, with: {{ all: '${{ steps.part }}' }}, {command} }}\n"
        );
        let (mut large, asked) = Large::begin(&gather, 5, 10).unwrap();
        let reply = json!({ "pdf": "x".repeat(BODY.bytes - 20) });
        let mut undone = Vec::new();
        for command in &asked {
            undone.extend(large.answer(command, Outcome::Succeeded, reply.clone()));
        }
        undone.extend(large.go_on().concat());
        assert_eq!(undone.len(), 5, "{command}");
        assert!(undone.iter().all(|it| it.ends_with("compensate")));
        assert!(large.0.reason().contains("letter"), "{}", large.0.reason());
    }
}

#[test]
fn replies_that_a_saga_can_not_hold_are_undone_like_unknown_ones() {
    let (mut large, mut asked) = Large::begin(FAN_OUT, 80, 10).unwrap();
    asked.extend(large.go_on().concat());
    let reply = json!({ "pdf": "x".repeat(BODY.bytes - 20) });
    for command in &asked {
        large.answer(command, Outcome::Succeeded, reply.clone());
        large.go_on();
    }
    assert!(large.0.saga.held.bytes <= SAGA.bytes);
    assert_eq!(large.0.saga.pass, Pass::Rollback);
    let states = large.0.saga.steps.values();
    let undone = states.filter(|state| state.status == StepStatus::Compensating);
    assert_eq!(undone.count(), 80);
}
