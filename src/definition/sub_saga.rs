//! Blocks that run another saga, and the step that such a block amounts to.
//!
//! Separate from `step`, because such a block has no commands to write down: they follow from the
//! protocol between a saga and its sub-sagas. Whether the other saga exists is found out when all
//! files are read.

use std::time::Duration;

use super::block::Spot;
use super::bounds::{SUB_SAGA_ASKS, SUB_SAGA_TIMEOUT_DEFAULT};
use super::draft::{Draft, Place};
use super::fields::{Fields, wrong_type};
use super::kinds::{Call, Forward, OnReject, ReplyRules, Retry, Step, SubSaga};
use super::names::check_name;
use super::problem::Rule;
use super::template::Template;
use super::tree::{BlockId, BlockKind};
use super::waits::WAIT_RANGE;
use crate::message::{Destination, START_QUEUE};

impl Draft<'_> {
    /// Reads a block that runs another saga, and adds it.
    pub fn sub_saga(&mut self, fields: &Fields<'_>, spot: Spot) -> Option<BlockId> {
        let placeholder = BlockKind::Sequence(Vec::new());
        let id = self.add(fields, spot, placeholder)?;
        let name = self.name(fields, "saga", id);
        if self.is_behind_pivot(id) {
            self.refuse_behind_pivot(
                fields.at,
                "another saga may fail",
                "move the block before it",
            );
        }
        let saga = self.run(fields);
        let with = fields
            .get("with")
            .map(|with| self.template(with, Place::With(id)));
        let timeout = fields.duration("timeout", WAIT_RANGE, &mut self.findings);
        let suspend_after = self.suspend_after(fields);
        let words = [("continue", OnReject::Continue)];
        let on_reject = fields.choice("on_reject", &words, &mut self.findings);
        let block = SubSagaFields {
            name,
            saga,
            with,
            timeout: timeout.unwrap_or(SUB_SAGA_TIMEOUT_DEFAULT),
            suspend_after,
            on_reject: on_reject.unwrap_or_default(),
        };
        self.blocks[usize::from(id.0)].kind = BlockKind::Saga(block.into_step());
        Some(id)
    }

    /// Which saga a block runs.
    fn run(&mut self, fields: &Fields<'_>) -> String {
        let Some(yaml) = fields.require("run", "run: ship-parcel", &mut self.findings) else {
            return String::new();
        };
        let Some(saga) = yaml.text() else {
            wrong_type(yaml, "run", "the name of a saga", &mut self.findings);
            return String::new();
        };
        if let Err(why) = check_name(saga) {
            self.findings.add(yaml.at, Rule::BadName, why);
        } else if saga == self.saga_name {
            let message =
                format!("`{saga}` would run itself, for ever; use a loop (`until`, `at_most`)");
            self.findings.add(yaml.at, Rule::RecursiveSaga, message);
        } else {
            self.runs.push((saga.to_owned(), yaml.at));
        }
        saga.to_owned()
    }
}

/// What is written down.
struct SubSagaFields {
    name: String,
    saga: String,
    with: Option<Template>,
    timeout: Duration,
    suspend_after: u32,
    on_reject: OnReject,
}

impl SubSagaFields {
    /// With the step that the engine runs: all its commands are the saga's name, sent to the start
    /// queue, and the time it has is shared out over the times that it is asked.
    fn into_step(self) -> SubSaga {
        let call = Call {
            command: self.saga.clone(),
            to: Destination::queue(START_QUEUE),
        };
        SubSaga {
            name: self.name.clone(),
            saga: self.saga,
            timeout: self.timeout,
            step: Step {
                name: self.name,
                with: self.with,
                forward: Some(Forward::Reserve(call.clone())),
                confirm: Some(call.clone()),
                compensate: Some(call),
                timeout: self.timeout / SUB_SAGA_ASKS,
                retry: Retry {
                    attempts: SUB_SAGA_ASKS,
                    ..Retry::default()
                },
                suspend_after: self.suspend_after,
                on_reject: self.on_reject,
                reply: ReplyRules::default(),
                expires_in: None,
            },
        }
    }
}
