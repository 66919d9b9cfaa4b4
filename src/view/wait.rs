//! What a saga waits for, found in its state, its journal and its definition.
//!
//! Invariant: every live saga waits for something. Of several steps it is one that is in trouble, else
//! the newest, as in the row's `awaits`.

use super::head::{SpotView, masked};
use super::steps::StepView;
use super::timeline::Moment;
use super::why::{QueueView, WaitKind, WhyView};
use crate::definition::{Call, Definition, Forward};
use crate::id::{Phase, StepPath, Timestamp};
use crate::saga::{Event, OperatorKind, Pass, Saga, StepPhase, StepState, Waiting};

/// What is known of a saga.
pub(super) struct Known<'a> {
    pub(super) saga: &'a Saga,
    /// What its row says that it waits for.
    pub(super) awaits: Option<&'a StepPhase>,
    pub(super) definition: Option<&'a Definition>,
    pub(super) steps: &'a [StepView],
    pub(super) timeline: &'a [Moment],
}

impl Known<'_> {
    /// What a saga waits for; `None` once it has ended.
    pub(super) fn why(&self) -> Option<WhyView> {
        let saga = self.saga;
        if saga.status().is_ended() {
            return None;
        }
        let mut why = if saga.paused.is_some() {
            self.paused()
        } else if let Some(left_off) = &saga.left_off {
            WhyView {
                since: Some(left_off.at.to_string()),
                ..WhyView::blank(WaitKind::Node)
            }
        } else if let Some((step, state)) = self.step() {
            self.of_step(step, state)
        } else if saga.pass == Pass::Prepared {
            self.prepared()
        } else {
            WhyView::blank(WaitKind::Node)
        };
        let waits = |state: &&StepState| state.waiting != Waiting::Nothing;
        let waiting = saga.steps.values().filter(waits).count();
        why.others = waiting.saturating_sub(usize::from(why.spot.is_some()));
        why.text = why.sentence();
        Some(why)
    }

    /// Everything that waits for a signal or a person.
    pub(super) fn for_people(&self) -> Vec<WhyView> {
        let saga = self.saga;
        if saga.status().is_ended() {
            return Vec::new();
        }
        let mut all = Vec::new();
        if saga.paused.is_some() {
            all.push(self.paused());
        } else {
            let steps = saga.steps.iter();
            let asks =
                |state: &StepState| matches!(state.waiting, Waiting::Signal(_) | Waiting::Person);
            let asking = steps.filter(|(_, state)| asks(state));
            all.extend(asking.map(|(step, state)| self.of_step(step.clone(), state)));
        }
        for why in &mut all {
            why.text = why.sentence();
        }
        all
    }

    /// The step that the sentence is about.
    fn step(&self) -> Option<(StepPath, &StepState)> {
        let steps = &self.saga.steps;
        let waits = |state: &StepState| state.waiting != Waiting::Nothing;
        let named = self.saga.awaits(self.awaits, &[]).map(|spot| spot.step);
        // Rows of older releases don't say.
        let any = || {
            let mut all = steps.iter().filter(|(_, state)| waits(state));
            all.next().map(|(step, _)| step.clone())
        };
        let named = named.filter(|step| steps.get(step).is_some_and(waits));
        let step = named.or_else(any)?;
        let state = steps.get(&step)?;
        Some((step, state))
    }

    fn of_step(&self, step: StepPath, state: &StepState) -> WhyView {
        let text = step.to_string();
        let view = self.steps.iter().find(|view| view.step == text);
        let call = self.call(&step.name, state.phase);
        let child = view.and_then(|view| view.child.as_ref());
        let (kind, until) = match state.waiting {
            Waiting::Reply(due) if child.is_some() => (WaitKind::SubSaga, Some(due)),
            Waiting::Reply(due) => (WaitKind::Reply, Some(due)),
            Waiting::Retry(at) => (WaitKind::Retry, Some(at)),
            Waiting::Person => (WaitKind::Person, None),
            Waiting::Signal(until) => (WaitKind::Signal, until),
            Waiting::Sleep(until) => (WaitKind::Time, Some(until)),
            Waiting::Nothing => (WaitKind::Node, None),
        };
        let is_command = !matches!(kind, WaitKind::Signal | WaitKind::Time);
        // A sub-saga is asked through the database.
        let goes_to = call.filter(|call| child.is_none() && call.to.exchange.is_empty());
        let is_sent = matches!(kind, WaitKind::Reply | WaitKind::Retry | WaitKind::Person);
        let waiting = view.and_then(|view| view.waiting.as_ref());
        WhyView {
            since: self.since(&step, state),
            until: until.map(|at: Timestamp| at.to_string()),
            attempt: is_command.then_some(state.attempt),
            attempts_max: view
                .and_then(|view| view.attempts_max)
                .filter(|_| is_command),
            command: call.map(|call| call.command.clone()),
            signal: waiting.and_then(|waiting| waiting.signal.clone()),
            other_saga: child.map(|child| child.saga_id),
            trouble: state.reason.as_deref().map(masked),
            unsent: kind == WaitKind::Reply && state.unsent_since.is_some(),
            queue: goes_to.filter(|_| is_sent).map(|call| QueueView {
                name: call.to.routing_key.clone(),
                seen: None,
            }),
            spot: Some(SpotView::new(&StepPhase {
                step,
                phase: state.phase,
            })),
            ..WhyView::blank(kind)
        }
    }

    fn call(&self, step: &str, phase: Phase) -> Option<&Call> {
        let step = self.definition?.step(step)?;
        match phase {
            Phase::Reserve | Phase::Action => step.forward.as_ref().map(Forward::call),
            Phase::Confirm => step.confirm.as_ref(),
            Phase::Compensate => step.compensate.as_ref(),
        }
    }

    fn paused(&self) -> WhyView {
        let paused = self.newest(|event| match event {
            Event::Operated(action) if action.kind == OperatorKind::Pause => {
                Some(format!("{} paused it: {}", action.by, action.why))
            }
            _ => None,
        });
        let (since, trouble) = paused.unzip();
        WhyView {
            since,
            trouble: trouble.map(|text| masked(&text)),
            ..WhyView::blank(WaitKind::Resume)
        }
    }

    fn prepared(&self) -> WhyView {
        let is_prepared = |event: &Event| matches!(event, Event::Prepared { .. }).then_some(());
        let family = self.saga.family.as_ref();
        WhyView {
            since: self.newest(is_prepared).map(|(at, ())| at),
            other_saga: family.map(|family| family.parent.saga),
            ..WhyView::blank(WaitKind::Parent)
        }
    }

    /// When the step began to wait for what it waits for, all attempts of a command counted together.
    fn since(&self, step: &StepPath, state: &StepState) -> Option<String> {
        let begins = |event: &Event| match (state.waiting, event) {
            (Waiting::Person, Event::Suspended { step: of, .. })
            | (Waiting::Signal(_) | Waiting::Sleep(_), Event::Waiting { step: of, .. }) => {
                of == step
            }
            (
                Waiting::Reply(_) | Waiting::Retry(_),
                Event::Asked {
                    step: of,
                    phase,
                    attempt: 1,
                    ..
                },
            ) => of == step && *phase == state.phase,
            _ => false,
        };
        let begun = self.newest(|event| begins(event).then_some(()));
        begun.map(|(at, ())| at)
    }

    /// The newest event that is wanted, and when it was.
    fn newest<T>(&self, wanted: impl Fn(&Event) -> Option<T>) -> Option<(String, T)> {
        self.timeline.iter().rev().find_map(|moment| {
            let mut events = moment.events.iter().rev();
            let found = events.find_map(|view| wanted(&view.event))?;
            Some((moment.at.clone(), found))
        })
    }
}

#[cfg(test)]
mod tests;
