//! A journal in words.

use std::collections::BTreeMap;

use serde::Serialize;

use super::spoken::spoken;
use crate::definition::{BlockKind, Definition};
use crate::id::{StepPath, Timestamp};
use crate::saga::journal::{Cause, JournalEntry};
use crate::saga::{BlockPath, Event, OperatorAction, OperatorKind};

/// One journal entry: what came in, and what followed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moment {
    /// The entry's number.
    pub seq: u64,
    /// When it was decided, RFC 3339.
    pub at: String,
    /// Microseconds since the saga started.
    pub after_us: u64,
    /// What came in; none if the entry can't be read.
    pub cause: Option<Cause>,
    /// What followed.
    pub events: Vec<EventView>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventView {
    /// In words; none for bookkeeping that tells people nothing.
    pub text: Option<String>,
    /// As the journal has it.
    #[serde(flatten)]
    pub event: Event,
}

/// The journal in words.
pub(super) fn moments(
    definition: Option<&Definition>,
    started_at: Timestamp,
    entries: &[JournalEntry],
) -> Vec<Moment> {
    let mut came = BTreeMap::new();
    entries
        .iter()
        .map(|entry| {
            let record = entry.record().ok();
            let cause = record.as_ref().map(|record| record.cause.clone());
            let events = record.map(|record| record.events).unwrap_or_default();
            let after = entry.at.since(started_at);
            Moment {
                seq: entry.seq,
                at: entry.at.to_string(),
                after_us: u64::try_from(after.as_micros()).unwrap_or(u64::MAX),
                cause,
                events: events
                    .into_iter()
                    .map(|event| {
                        let text = match &event {
                            Event::Signalled(signal) => {
                                let at = signal.at.unwrap_or(entry.at);
                                came.insert(signal.id.clone(), at);
                                words(definition, entry.at, &event)
                            }
                            Event::Received { step, id } => {
                                Some(taken(step, came.get(id).copied(), entry.at))
                            }
                            _ => words(definition, entry.at, &event),
                        };
                        EventView { text, event }
                    })
                    .collect(),
            }
        })
        .collect()
}

#[allow(clippy::too_many_lines)] // one short arm an event; a reader looks for one of them
fn words(definition: Option<&Definition>, now: Timestamp, event: &Event) -> Option<String> {
    let text = match event {
        Event::Advanced { .. } | Event::NextItem { .. } | Event::AnswerTaken => return None,
        Event::Started { deadline: None, .. } => "started".to_owned(),
        Event::Started {
            deadline: Some(deadline),
            ..
        } => format!(
            "started; must pass the pivot within {}",
            spoken(deadline.since(now))
        ),
        Event::Listening(starter) => {
            format!(
                "the same start again; {} will hear the end",
                starter.reply_to
            )
        }
        Event::InLine(line) => match line.replaces {
            Some(before) => format!("takes the key over from saga {before}"),
            None => return None,
        },
        Event::Superseding(successor) => {
            format!("saga {} is to replace it once it has ended", successor.saga)
        }
        Event::Asked {
            step,
            phase,
            attempt,
            due,
            ..
        } => {
            let due = spoken(due.since(now));
            match attempt {
                0 | 1 => format!("asked {step} to {phase}; answer due within {due}"),
                _ => format!("asked {step} to {phase}, attempt {attempt}; answer due within {due}"),
            }
        }
        Event::Skipped { step } => format!("{step} skipped: its `when` is false"),
        Event::BlockSkipped { at } => {
            format!("{} skipped: its `when` is false", block(definition, at).0)
        }
        Event::Opened { at, children, .. } => {
            let (block, (one, many)) = block(definition, at);
            let of = if *children == 1 { one } else { many };
            format!("{block}: {children} {of}")
        }
        Event::Succeeded { step, phase, .. } => format!("{step} {phase} succeeded"),
        Event::Rejected { step, reason } => format!("{step} rejected: {reason}"),
        Event::RetryPlanned {
            step,
            phase,
            at,
            reason,
        } => format!(
            "{step} {phase} failed: {reason}; trying again in {}",
            spoken(at.since(now))
        ),
        Event::Returned {
            step,
            phase,
            again,
            reason,
            ..
        } => format!(
            "{step} {phase} was not delivered: {reason}; sent again in {}",
            spoken(again.since(now))
        ),
        Event::Unsent { step, phase, .. } => {
            format!("{step} {phase}: the command is still in the outbox, so no answer is due yet")
        }
        Event::SentLate { step, phase, due } => format!(
            "{step} {phase} was sent late; answer due within {}",
            spoken(due.since(now))
        ),
        Event::NeverDelivered { step, reason } => {
            format!("{step} was never delivered, so it was not done: {reason}")
        }
        Event::OutcomeUnknown { step, reason } => {
            format!("whether {step} was done is unknown: {reason}; it will be compensated")
        }
        Event::Suspended {
            step,
            phase,
            reason,
        } => format!("{step} {phase} suspended, waits for a person: {reason}"),
        Event::Resumed { step, by, why } => format!("{step} resumed by {by}: {why}"),
        Event::Waiting {
            step,
            until,
            signal,
            but_not,
        } => match but_not.len() {
            0 => pause(step, *until, *signal),
            kept => format!(
                "{}; {kept} kept before do not count",
                pause(step, *until, *signal)
            ),
        },
        Event::KeptForSuccessor(signal) => {
            format!(
                "signal `{}` came for the saga that is to replace it",
                signal.name
            )
        }
        Event::Signalled(signal) => format!("signal `{}` came", signal.name),
        Event::Received { step, .. } => taken(step, None, now),
        Event::Unjudged { step, id, reason } => {
            format!("{step} can't tell whether signal {id} is the one it waits for: {reason}")
        }
        Event::Elapsed { step } => format!("{step} is over"),
        Event::Operated(action) => operated(action),
        Event::Held { reply } => {
            format!("{} {} answered while paused; kept", reply.step, reply.phase)
        }
        Event::LeftOff(left_off) if left_off.moves.is_empty() => return None,
        Event::LeftOff(_) => "so large that the rest follows in portions".to_owned(),
        Event::ChildOf(parent) => format!("run by saga {} as its {}", parent.saga, parent.step),
        Event::ParentAsked { phase } => format!("the saga that runs it said: {phase}"),
        Event::Prepared { .. } => {
            "prepared: at its pivot, waits for the saga that runs it".to_owned()
        }
        Event::PivotPassed => "pivot passed: from here on only forward".to_owned(),
        Event::ReservationsConfirmed => "everything reserved is confirmed".to_owned(),
        Event::RollbackStarted { reason } => format!("rolling back: {reason}"),
        Event::Completed {
            output_error: Some(error),
            ..
        } => format!("completed, but its output can't be computed: {error}"),
        Event::Completed { .. } => "completed".to_owned(),
        Event::Compensated { .. } => "compensated".to_owned(),
    };
    Some(text)
}

fn operated(action: &OperatorAction) -> String {
    let what = match &action.kind {
        OperatorKind::Retry {
            with: Some(with), ..
        } => format!(" with {with}"),
        OperatorKind::Skip {
            reply: Some(reply), ..
        } => format!(" with the reply {reply}"),
        _ => String::new(),
    };
    let OperatorAction { kind, by, why, .. } = action;
    format!("{}{what} by {by}: {why}", kind.as_str())
}

/// A signal that was kept is told from one that was waited for.
fn taken(step: &StepPath, came: Option<Timestamp>, now: Timestamp) -> String {
    let age = came.map(|came| now.since(came)).unwrap_or_default();
    if age.is_zero() {
        format!("{step} took its signal")
    } else {
        format!(
            "{step} took its signal, which had come {} before",
            spoken(age)
        )
    }
}

fn pause(step: &StepPath, until: Option<Timestamp>, signal: bool) -> String {
    let what = if signal {
        "waits for a signal"
    } else {
        "sleeps"
    };
    match until {
        Some(until) => format!("{step} {what} until {until}"),
        None => format!("{step} {what}"),
    }
}

/// A block's name for people, and what one and several of its children are called.
fn block(
    definition: Option<&Definition>,
    at: &BlockPath,
) -> (String, (&'static str, &'static str)) {
    let node = definition.and_then(|definition| definition.blocks.get(usize::from(at.block.0)));
    let Some(node) = node else {
        return (format!("block {}", at.block.0), ("child", "children"));
    };
    let (name, children) = match &node.kind {
        BlockKind::ForEach { .. } => ("for_each", ("item", "items")),
        BlockKind::Parallel(_) => ("parallel", ("branch", "branches")),
        BlockKind::Sequence(_) => ("steps", ("step", "steps")),
        BlockKind::Step(_) => ("step", ("step", "steps")),
        BlockKind::Wait(_) => ("wait", ("signal", "signals")),
        BlockKind::Sleep(_) => ("sleep", ("sleep", "sleeps")),
        BlockKind::Saga(_) => ("saga", ("saga", "sagas")),
    };
    (format!("{name} in line {}", node.line), children)
}
