//! One step: its commands, and which of them go together.

use std::time::Duration;

use super::block::Spot;
use super::draft::{Draft, Place};
use super::fields::Fields;
use super::kinds::{Forward, OnReject, Step};
use super::problem::Rule;
use super::tree::{BlockId, BlockKind};

/// Shortest and longest life of a reservation.
const EXPIRES_IN_RANGE: (Duration, Duration) = (Duration::from_secs(1), super::bounds::WAIT_MAX);

impl Draft<'_> {
    /// Reads a step and adds it.
    pub fn step(&mut self, fields: &Fields<'_>, spot: Spot) -> Option<BlockId> {
        let placeholder = BlockKind::Sequence(Vec::new());
        let id = self.add(fields, spot, placeholder)?;
        let name = self.name(fields, "step", id);
        let to = fields.get("to").and_then(|to| self.destination(to));
        let reserve = self.command(fields, "reserve", to.as_ref());
        let action = self.command(fields, "action", to.as_ref());
        let confirm = self.command(fields, "confirm", to.as_ref());
        let compensate = self.command(fields, "compensate", to.as_ref());
        let read_only = fields.flag("read_only", &mut self.findings) == Some(true);
        if self.is_behind_pivot(id) {
            self.check_commands_behind_pivot(fields);
        } else {
            self.check_commands(fields, read_only);
        }
        let with = fields
            .get("with")
            .map(|with| self.template(with, Place::With(id)));
        let forward = reserve
            .map(Forward::Reserve)
            .or(action.map(Forward::Action));
        let bounded = forward.is_some() && !self.is_behind_pivot(id);
        let pace = self.pace(fields, bounded);
        let step = Step {
            name,
            with,
            forward,
            confirm,
            compensate,
            timeout: pace.timeout,
            retry: pace.retry,
            suspend_after: pace.suspend_after,
            on_reject: self.on_reject(fields),
            reply: self.reply(fields),
            expires_in: self.expires_in(fields),
        };
        self.blocks[usize::from(id.0)].kind = BlockKind::Step(step);
        Some(id)
    }

    fn on_reject(&mut self, fields: &Fields<'_>) -> OnReject {
        let words = [("continue", OnReject::Continue)];
        let given = fields.choice("on_reject", &words, &mut self.findings);
        if let Some(entry) = fields.entry("on_reject")
            && fields.get("reserve").or(fields.get("action")).is_none()
        {
            let message = "only a `reserve` or `action` can be rejected; drop `on_reject`";
            self.findings.add(entry.at, Rule::Contradiction, message);
        }
        given.unwrap_or_default()
    }

    fn expires_in(&mut self, fields: &Fields<'_>) -> Option<Duration> {
        let entry = fields.entry("expires_in")?;
        if fields.get("reserve").is_none() {
            let message = "only what a `reserve` holds can lapse; drop `expires_in`";
            self.findings.add(entry.at, Rule::Contradiction, message);
        }
        fields.duration("expires_in", EXPIRES_IN_RANGE, &mut self.findings)
    }

    /// Which commands go together. Looks at what is written, not at what could be read, so that a
    /// misspelt command is not also called missing.
    fn check_commands(&mut self, fields: &Fields<'_>, read_only: bool) {
        let has = |name: &str| fields.get(name).is_some();
        let forward = if has("reserve") { "reserve" } else { "action" };
        let at = |name: &str| fields.entry(name).map_or(fields.at, |entry| entry.at);
        if has("reserve") && has("action") {
            let message = "a step has `reserve` (and later `confirm`) or `action`, not both";
            self.findings
                .add(at("action"), Rule::Contradiction, message);
        }
        if has("reserve") || has("action") {
            if !has("compensate") && !read_only {
                let message = format!(
                    "`{forward}` has no `compensate`, so it could not be undone; add the command that undoes it, or `read_only: true` if there is nothing to undo"
                );
                self.findings.add(at(forward), Rule::NotUndoable, message);
            }
            if has("compensate") && read_only {
                let message = "`read_only` says there is nothing to undo, so it excludes `compensate`; drop one";
                self.findings
                    .add(at("read_only"), Rule::Contradiction, message);
            }
            if has("confirm") && !has("reserve") {
                let message = "an `action` is final when it succeeds; use `reserve` if there is something to `confirm`";
                self.findings
                    .add(at("confirm"), Rule::Contradiction, message);
            }
            return;
        }
        if has("compensate") {
            let message = "`compensate` has nothing to undo; add `reserve` or `action`";
            self.findings
                .add(at("compensate"), Rule::Contradiction, message);
        }
        if read_only {
            let message = "`read_only` is for a `reserve` or `action`, and this step has neither";
            self.findings
                .add(at("read_only"), Rule::Contradiction, message);
        }
        if !has("confirm") {
            let message = "a step needs a command: `reserve`, `action` or `confirm`, as in `reserve: inventory.reserve`";
            self.findings.add(fields.at, Rule::MissingField, message);
        }
    }

    /// Behind the pivot everything must succeed in the end: nothing is refused, nothing undone.
    fn check_commands_behind_pivot(&mut self, fields: &Fields<'_>) {
        let reasons = [
            (
                "reserve",
                "a `reserve` may be rejected",
                "use an `action` or `confirm`, or move the step before the pivot",
            ),
            (
                "on_reject",
                "what is sent there may not be rejected",
                "drop `on_reject`",
            ),
            ("compensate", "nothing is undone there", "drop `compensate`"),
        ];
        for (name, why, fix) in reasons {
            if let Some(entry) = fields.entry(name) {
                self.refuse_behind_pivot(entry.at, why, fix);
            }
        }
        let has = |name: &str| fields.get(name).is_some();
        if has("action") && has("confirm") {
            let at = fields.entry("confirm").map_or(fields.at, |entry| entry.at);
            let message = "an `action` is final when it succeeds; drop `confirm`";
            self.findings.add(at, Rule::Contradiction, message);
        }
        if !has("action") && !has("confirm") && !has("reserve") {
            let message = "a step behind the pivot needs a command; add `action` or `confirm`, as in `action: mailer.send`";
            self.findings.add(fields.at, Rule::MissingField, message);
        }
    }
}
