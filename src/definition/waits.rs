//! The blocks that wait: for a signal, or for time to pass.

use std::time::Duration;

use super::block::Spot;
use super::bounds::WAIT_MAX;
use super::draft::{Draft, Place};
use super::fields::{Fields, read_duration};
use super::kinds::{Delay, OnTimeout, Sleep, Wait};
use super::names::check_name;
use super::problem::Rule;
use super::tree::{BlockId, BlockKind};
use super::yaml::Yaml;

/// Shortest and longest wait, sleep, or time for a sub-saga.
pub(super) const WAIT_RANGE: (Duration, Duration) = (Duration::from_millis(10), WAIT_MAX);
/// What `timeout` says of a wait that nothing ends but the signal.
const NO_TIMEOUT: &str = "none";

impl Draft<'_> {
    /// Reads a wait and adds it.
    pub fn wait(&mut self, fields: &Fields<'_>, spot: Spot) -> Option<BlockId> {
        let placeholder = BlockKind::Sequence(Vec::new());
        let id = self.add(fields, spot, placeholder)?;
        let name = self.name(fields, "wait", id);
        let signal = self.signal(fields).unwrap_or_else(|| name.clone());
        let matching = fields
            .get("match")
            .and_then(|yaml| self.expression(yaml, "match", Place::Match(id)));
        let words = [("start", false), ("begin", true)];
        let since_begin = fields.choice("since", &words, &mut self.findings);
        let on = fields.get("on").and_then(|yaml| self.event(yaml, true));
        let timeout = self.wait_timeout(fields, id);
        let on_timeout = self.on_timeout(fields, id);
        self.blocks[usize::from(id.0)].kind = BlockKind::Wait(Wait {
            name,
            signal,
            matching,
            since_begin: since_begin.unwrap_or_default(),
            on,
            timeout,
            on_timeout,
        });
        Some(id)
    }

    fn signal(&mut self, fields: &Fields<'_>) -> Option<String> {
        let signal = fields.text("signal", &mut self.findings)?;
        let at = fields.get("signal").map_or(fields.at, |yaml| yaml.at);
        if let Err(why) = check_name(signal) {
            self.findings.add(at, Rule::BadName, why);
        }
        Some(signal.to_owned())
    }

    /// How long; a wait that nothing would ever end must say so.
    fn wait_timeout(&mut self, fields: &Fields<'_>, id: BlockId) -> Option<Delay> {
        let Some(yaml) = fields.get("timeout") else {
            if !self.saga_ends || self.is_behind_pivot(id) {
                let message = "if no signal comes, nothing ends this wait; add `timeout: 7d`, or `timeout: none` if it may wait for ever";
                self.findings.add(fields.at, Rule::UnboundedWait, message);
            }
            return None;
        };
        if yaml.text() == Some(NO_TIMEOUT) {
            return None;
        }
        // What can't be read counts as no time at all, so that it causes no other problem.
        let timeout = self.delay(yaml, "timeout", Place::With(id));
        timeout.or(Some(Delay::Fixed(Duration::ZERO)))
    }

    fn on_timeout(&mut self, fields: &Fields<'_>, id: BlockId) -> OnTimeout {
        let words = [("continue", OnTimeout::Continue), ("fail", OnTimeout::Fail)];
        let given = fields.choice("on_timeout", &words, &mut self.findings);
        let timeout = fields
            .get("timeout")
            .filter(|yaml| yaml.text() != Some(NO_TIMEOUT));
        let entry = fields.entry("on_timeout");
        if let (None, Some(entry)) = (timeout, entry) {
            let message = "without a `timeout` there is no time-out to follow; add `timeout: 7d`";
            self.findings.add(entry.at, Rule::Contradiction, message);
        }
        let misread = given.is_none() && entry.is_some();
        let on_timeout = given.unwrap_or(OnTimeout::Fail);
        if let Some(timeout) = timeout
            && on_timeout == OnTimeout::Fail
            && !misread
            && self.is_behind_pivot(id)
        {
            let at = entry.map_or(timeout.at, |entry| entry.at);
            let why = "this wait fails when its time is up";
            self.refuse_behind_pivot(at, why, "write `on_timeout: continue`");
        }
        on_timeout
    }

    /// Reads a sleep and adds it.
    pub fn sleep(&mut self, fields: &Fields<'_>, spot: Spot) -> Option<BlockId> {
        let placeholder = BlockKind::Sequence(Vec::new());
        let id = self.add(fields, spot, placeholder)?;
        let name = self.name(fields, "sleep", id);
        let place = Place::With(id);
        let delay = match (fields.get("for"), fields.get("until")) {
            (Some(duration), None) => self.delay(duration, "for", place),
            (None, Some(time)) => self.expression(time, "until", place).map(Delay::Computed),
            (None, None) => {
                let message =
                    "a sleep needs to know how long; add `for: 3d`, or `until: ${ … }` with a time";
                self.findings.add(fields.at, Rule::MissingField, message);
                None
            }
            (Some(_), Some(until)) => {
                let message = "a sleep is `for` some time or `until` a time; drop one (a loop that shall end early goes around `steps: [ … ]`)";
                self.findings.add(until.at, Rule::Contradiction, message);
                None
            }
        };
        self.blocks[usize::from(id.0)].kind = BlockKind::Sleep(Sleep {
            name,
            delay: delay.unwrap_or(Delay::Fixed(Duration::ZERO)),
        });
        Some(id)
    }

    /// A duration, or an expression that gives one.
    fn delay(&mut self, yaml: &Yaml, name: &str, place: Place) -> Option<Delay> {
        if yaml.text().is_some_and(|text| text.contains("${")) {
            return self.expression(yaml, name, place).map(Delay::Computed);
        }
        read_duration(yaml, name, WAIT_RANGE, &mut self.findings).map(Delay::Fixed)
    }
}
