//! `wait` and `sleep`: what comes from outside, or just with time.
//!
//! A signal is kept until a `wait` takes it or the saga ends, so it may come early; it is known by
//! its id, so it may come twice, but not say two things; after the saga's end it is refused, so it may come late.

use std::sync::Arc;

use serde_json::Value;

use super::too_late::no_signal_in_time;
use super::turn::Turn;
use super::walk::block_named;
use crate::definition::{
    Block, BlockKind, Delay, EvaluationError, EvaluationScope, OnTimeout, Sleep, Wait, parse_delay,
};
use crate::id::{StepPath, Timestamp};
use crate::saga::event::Event;
use crate::saga::incoming::Signal;
use crate::saga::pass::Pass;
use crate::saga::refusal::Refusal;
use crate::saga::state::{SIGNALS_KEPT_MAX, Saga};
use crate::saga::step::{BlockPath, StepStatus, Waiting};

impl Saga {
    /// Why a signal is not taken in, if one with its id was seen before.
    pub(super) fn refused_as_known(&self, signal: &Signal) -> Option<Refusal> {
        if !self.has_seen(&signal.id) {
            return None;
        }
        // An older version did not write down what was said.
        let said = self.said.get(&signal.id);
        Some(match said {
            Some(said) if *said != signal.mark() => Refusal::OtherSignal(signal.id.clone()),
            _ => Refusal::Settled,
        })
    }
}

impl<'d> Turn<'d> {
    pub(super) fn enter_wait(
        &mut self,
        node: &Block,
        wait: &Wait,
        at: BlockPath,
        item: Option<&Value>,
    ) {
        let path = StepPath::at(wait.name.clone(), &at.indices);
        if self.is_over(&path) {
            return self.step_done(&path);
        }
        let until = wait
            .timeout
            .as_ref()
            .map(|delay| self.time_after(delay, item));
        let until = match until.transpose() {
            Ok(until) => until,
            Err(error) => return self.cannot_compute(node, &at, &error),
        };
        let kept = self.saga.signals.iter();
        let too_old = kept.filter(|signal| wait.since_begin && signal.name == wait.signal);
        let but_not = too_old.map(|signal| signal.id.clone()).collect();
        self.emit(Event::Waiting {
            step: path.clone(),
            until,
            signal: true,
            but_not,
        });
        self.take_signal(&path, wait);
    }

    pub(super) fn enter_sleep(
        &mut self,
        node: &Block,
        sleep: &Sleep,
        at: BlockPath,
        item: Option<&Value>,
    ) {
        let path = StepPath::at(sleep.name.clone(), &at.indices);
        if self.is_over(&path) {
            return self.step_done(&path);
        }
        match self.time_after(&sleep.delay, item) {
            Ok(until) => self.emit(Event::Waiting {
                step: path,
                until: Some(until),
                signal: false,
                but_not: Vec::new(),
            }),
            Err(error) => self.cannot_compute(node, &at, &error),
        }
    }

    /// Keeps a signal, and lets the waits that are under way have it.
    pub(super) fn signal(&mut self, mut signal: Signal) -> Result<(), Refusal> {
        if let Some(known) = self.saga.refused_as_known(&signal) {
            return Err(known);
        }
        if self.saga.status().is_ended() {
            return Err(Refusal::Ended);
        }
        let waits =
            self.definition.blocks.iter().any(
                |node| matches!(&node.kind, BlockKind::Wait(wait) if wait.signal == signal.name),
            );
        if !waits {
            return Err(Refusal::NoSuchSignal(signal.name));
        }
        if let Some(why) = self.goes_back() {
            return Err(Refusal::RollingBack(why));
        }
        signal.at = signal.at.or(Some(self.now));
        if self.saga.signals.len() >= SIGNALS_KEPT_MAX && !self.is_waited_for(&signal) {
            return Err(Refusal::TooManySignals);
        }
        if self.saga.has_room(&signal.body).is_err() {
            return Err(Refusal::TooManySignals);
        }
        let name = signal.name.clone();
        self.emit(Event::Signalled(signal));
        if self.saga.paused.is_none() {
            self.offer_signals(&name);
        }
        Ok(())
    }

    /// Offers what is kept to the waits under way.
    pub(super) fn offer_all_signals(&mut self) {
        let names: Vec<String> = self.saga.signals.iter().map(|it| it.name.clone()).collect();
        for name in names {
            self.offer_signals(&name);
        }
    }

    fn offer_signals(&mut self, name: &str) {
        for (path, wait) in self.waits_for(name) {
            self.take_signal(&path, wait);
            let state = self.saga.steps.get(&path).map(|state| state.waiting);
            if matches!(state, Some(Waiting::Signal(Some(until))) if until <= self.now) {
                // The clock has not been looked at yet; what comes now comes too late.
                self.waited(&path);
                self.walk();
            }
        }
    }

    /// Whether a wait that is under way would take the signal at once, so that it need not be kept.
    fn is_waited_for(&mut self, signal: &Signal) -> bool {
        let mut waits = self.waits_for(&signal.name).into_iter();
        self.saga.paused.is_none()
            && waits.any(|(path, wait)| {
                let item = self.look_from(&path);
                let fits = self.matches(wait, &signal.body, item.as_deref());
                self.is_in_time(&path, signal) && fits.unwrap_or(false)
            })
    }

    /// The waits under way that are for signals of this name.
    fn waits_for(&self, name: &str) -> Vec<(StepPath, &'d Wait)> {
        if self.saga.pass == Pass::Rollback {
            return Vec::new();
        }
        let definition = self.definition;
        let steps = self.saga.steps.iter();
        steps
            .filter(|(_, state)| matches!(state.waiting, Waiting::Signal(_)))
            .filter_map(|(path, _)| {
                let block = block_named(definition, &path.name)?;
                match &definition.block(block).kind {
                    BlockKind::Wait(wait) if wait.signal == name => Some((path.clone(), wait)),
                    _ => None,
                }
            })
            .collect()
    }

    /// Has expressions see what this block sees; its item, if it is in a loop.
    fn look_from(&mut self, path: &StepPath) -> Option<Arc<Value>> {
        let block = block_named(self.definition, &path.name)?;
        self.focus = (block, path.indices.clone());
        self.item_at(block, &path.indices)
    }

    /// Whether the saga had the signal before the wait's time was over, even if it is over now, and
    /// not before the wait began, if that matters. What comes after another wait's end has turned the
    /// saga round, or has ended this one too, does not.
    fn is_in_time(&self, path: &StepPath, signal: &Signal) -> bool {
        let Some(state) = self.saga.steps.get(path) else {
            return false;
        };
        let in_time = match (state.waiting, signal.at) {
            (Waiting::Signal(Some(until)), Some(at)) => at <= until,
            (Waiting::Signal(_), _) => true,
            _ => false,
        };
        in_time && !state.but_not.contains(&signal.id)
    }

    /// Ends the wait with the oldest kept signal that it accepts. One that it can't judge is not the
    /// one that is waited for, but that is said: it may well have been.
    fn take_signal(&mut self, path: &StepPath, wait: &Wait) {
        let item = self.look_from(path);
        let mut taken = None;
        let mut unjudged = None;
        for signal in &self.saga.signals {
            if signal.name != wait.signal || !self.is_in_time(path, signal) {
                continue;
            }
            match self.matches(wait, &signal.body, item.as_deref()) {
                Ok(false) => {}
                Ok(true) => {
                    taken = Some(signal.id.clone());
                    break;
                }
                Err(error) => unjudged = Some((signal.id.clone(), error.to_string())),
            }
        }
        if let Some(id) = taken {
            self.emit(Event::Received {
                step: path.clone(),
                id,
            });
            self.step_done(path);
        } else if let Some((id, reason)) = unjudged {
            self.note_unjudged(path, id, reason);
        }
    }

    /// Once a reason: the kept signals are offered again whenever another one comes.
    fn note_unjudged(&mut self, path: &StepPath, id: String, reason: String) {
        let known = self.saga.steps.get(path);
        let known = known.and_then(|state| state.reason.as_ref());
        if known != Some(&reason) {
            let step = path.clone();
            self.emit(Event::Unjudged { step, id, reason });
        }
    }

    fn matches(
        &self,
        wait: &Wait,
        body: &Value,
        item: Option<&Value>,
    ) -> Result<bool, EvaluationError> {
        let scope = EvaluationScope {
            given: Some(("signal", body)),
            ..self.scope(item)
        };
        let Some(matching) = &wait.matching else {
            return Ok(true);
        };
        match matching.evaluate(&scope)? {
            Value::Bool(fits) => Ok(fits),
            other => Err(EvaluationError {
                expression: matching.source.clone(),
                why: format!("`match` must be true or false, not {other}"),
            }),
        }
    }

    /// The time of a `wait` or `sleep` has come.
    pub(super) fn waited(&mut self, path: &StepPath) {
        let kind = block_named(self.definition, &path.name)
            .map(|block| &self.definition.block(block).kind);
        if let Some(BlockKind::Wait(wait)) = kind
            && wait.on_timeout == OnTimeout::Fail
            && self.saga.pass == Pass::Forward
        {
            let known = self.saga.steps.get(path);
            let trouble = known.and_then(|state| state.reason.as_deref());
            self.roll_back(no_signal_in_time(path, &wait.signal, trouble));
            return;
        }
        self.emit(Event::Elapsed { step: path.clone() });
        self.step_done(path);
    }

    /// The roll-back has come to a `wait` or `sleep`.
    pub(super) fn wait_no_more(&mut self, path: &StepPath) {
        if self
            .saga
            .steps
            .get(path)
            .is_some_and(|state| state.status == StepStatus::Waiting)
        {
            self.emit(Event::Elapsed { step: path.clone() });
        }
        self.step_done(path);
    }

    pub(super) fn is_over(&self, path: &StepPath) -> bool {
        self.saga
            .steps
            .get(path)
            .is_some_and(|state| !state.is_resumed())
    }

    fn time_after(
        &self,
        delay: &Delay,
        item: Option<&Value>,
    ) -> Result<Timestamp, EvaluationError> {
        let expression = match delay {
            Delay::Fixed(duration) => return Ok(self.now.after(*duration)),
            Delay::Computed(expression) => expression,
        };
        let value = expression.evaluate(&self.scope(item))?;
        parse_delay(&value, self.now).map_err(|why| EvaluationError {
            expression: expression.source.clone(),
            why,
        })
    }
}
