//! What stand-in participants answer: to which call, what, and when.

use std::time::Duration;

use serde_json::Value;

use crate::id::{Phase, StepPath};

/// What a stand-in does with one delivery of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub(super) does: Does,
    /// How long the answer takes; the effect is there at once.
    pub(super) after: Duration,
    /// Whether the answer gets lost on its way.
    pub(super) lost: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Does {
    /// Does it, and answers with this body; without one, with the command's own payload.
    Succeed(Option<Value>),
    /// A business no.
    Reject(String),
    /// Try again.
    Fail(String),
    /// Hears nothing: no effect, no answer.
    Nothing,
}

impl Response {
    pub(super) fn of(does: Does) -> Self {
        Self {
            does,
            after: Duration::ZERO,
            lost: false,
        }
    }

    /// The same, answered this much later: past the step's `timeout`, it is a late answer to a
    /// command that was done.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// The same, with the answer lost: it was done, and nobody is told.
    #[must_use]
    pub fn lost(self) -> Self {
        Self { lost: true, ..self }
    }
}

/// Does what is asked and answers with `body`.
pub fn succeeds(body: Value) -> Response {
    Response::of(Does::Succeed(Some(body)))
}

/// Does what is asked and answers with the command's own payload.
pub fn echoes() -> Response {
    Response::of(Does::Succeed(None))
}

/// Says no: never asked again.
pub fn rejects(reason: impl Into<String>) -> Response {
    Response::of(Does::Reject(reason.into()))
}

/// Asks to be asked again.
pub fn fails(reason: impl Into<String>) -> Response {
    Response::of(Does::Fail(reason.into()))
}

/// Does nothing and never answers.
pub fn silent() -> Response {
    Response::of(Does::Nothing)
}

/// Which calls a response is for. Made from a command's name, or narrowed by its methods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calls {
    pub(super) command: Option<String>,
    pub(super) step: Option<String>,
    pub(super) phase: Option<Phase>,
    pub(super) key: Option<String>,
    pub(super) item: Option<u32>,
    pub(super) from: Option<u32>,
    pub(super) until: Option<u32>,
}

/// Calls of this command, such as `payments.reserve`.
pub fn on(command: impl Into<String>) -> Calls {
    Calls {
        command: Some(command.into()),
        ..Calls::default()
    }
}

/// Calls of any of this step's commands.
pub fn on_step(step: impl Into<String>) -> Calls {
    Calls {
        step: Some(step.into()),
        ..Calls::default()
    }
}

impl From<&str> for Calls {
    fn from(command: &str) -> Self {
        on(command)
    }
}

impl Calls {
    /// Only those for this step.
    #[must_use]
    pub fn step(self, step: impl Into<String>) -> Self {
        Self {
            step: Some(step.into()),
            ..self
        }
    }

    /// Only those of this phase.
    #[must_use]
    pub fn phase(self, phase: Phase) -> Self {
        Self {
            phase: Some(phase),
            ..self
        }
    }

    /// Only those of the saga with this key.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// Only those for this item (from 0) of the innermost `for_each`.
    #[must_use]
    pub fn item(self, item: u32) -> Self {
        Self {
            item: Some(item),
            ..self
        }
    }

    /// Only the n-th time (from 1) that the same command of the same step and item comes.
    #[must_use]
    pub fn nth(self, call: u32) -> Self {
        Self {
            from: Some(call),
            until: Some(call),
            ..self
        }
    }

    /// Only the first `calls` times that the same command of the same step and item comes.
    #[must_use]
    pub fn first(self, calls: u32) -> Self {
        Self {
            until: Some(calls),
            ..self
        }
    }

    pub(super) fn include(&self, call: &Call<'_>) -> bool {
        let is = |wanted: &Option<String>, what: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == what)
        };
        is(&self.command, call.command)
            && is(&self.step, &call.step.name)
            && is(&self.key, call.key)
            && self.phase.is_none_or(|phase| phase == call.phase)
            && self
                .item
                .is_none_or(|item| call.step.indices.last() == Some(&item))
            && self.from.is_none_or(|from| from <= call.number)
            && self.until.is_none_or(|until| call.number <= until)
    }
}

/// One delivery of a command.
pub(super) struct Call<'a> {
    pub(super) command: &'a str,
    pub(super) step: &'a StepPath,
    pub(super) phase: Phase,
    /// The saga's.
    pub(super) key: &'a str,
    /// From 1.
    pub(super) number: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_narrowed_by_all_that_was_said() {
        let step = StepPath::at("stock", &[3, 1]);
        let call = |number| Call {
            command: "inventory.reserve",
            step: &step,
            phase: Phase::Reserve,
            key: "k",
            number,
        };
        let reserve = || on("inventory.reserve");
        let cases = [
            (reserve(), 9, true),
            (on("inventory.release"), 1, false),
            (on_step("stock").phase(Phase::Reserve), 1, true),
            (on_step("stock").phase(Phase::Confirm), 1, false),
            (reserve().step("other"), 1, false),
            (reserve().item(1), 1, true),
            (reserve().item(3), 1, false),
            (reserve().key("k"), 1, true),
            (reserve().key("l"), 1, false),
            (reserve().first(2), 2, true),
            (reserve().first(2), 3, false),
            (reserve().nth(2), 1, false),
            (reserve().nth(2), 2, true),
        ];
        for (calls, number, included) in cases {
            assert_eq!(calls.include(&call(number)), included, "{calls:?} {number}");
        }
    }
}
