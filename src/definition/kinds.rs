//! What blocks are made of: commands to a participant, waits, sub-sagas; and how a saga comes to be started.

use std::time::Duration;

use serde_json::Value;

use super::bounds::WAIT_MAX;
use super::duration::{format_duration, parse_duration};
use super::expression::Expression;
use super::template::Template;
use crate::id::{Phase, Timestamp};
use crate::message::Destination;
use crate::numeral;

/// A compiled JSON Schema.
pub struct InputSchema {
    /// The schema as written.
    pub schema: Value,
    pub(in crate::definition) validator: jsonschema::Validator,
}

impl std::fmt::Debug for InputSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InputSchema").field(&self.schema).finish()
    }
}

/// A step: the commands of one unit of work.
#[derive(Debug)]
pub struct Step {
    /// Unique in the definition.
    pub name: String,
    /// The commands' payload.
    pub with: Option<Template>,
    /// What the forward pass sends: `None` for a confirm-only step.
    pub forward: Option<Forward>,
    /// Sent after the pivot.
    pub confirm: Option<Call>,
    /// Sent in roll-back. Always there if `forward` is, unless the step is `read_only`.
    pub compensate: Option<Call>,
    /// How long to wait for each answer.
    pub timeout: Duration,
    /// How `failed` answers and time-outs are retried.
    pub retry: Retry,
    /// Attempts of a confirm or compensate after which the saga is suspended.
    pub suspend_after: u32,
    /// What a rejection of the forward command leads to.
    pub on_reject: OnReject,
    /// What the answer to its first command must be like.
    pub reply: ReplyRules,
    /// How long a reservation holds, as far as the author knows; the participant's `expires_at`
    /// says it exactly.
    pub expires_in: Option<Duration>,
}

/// What a reply must be like to count as a yes.
#[derive(Debug, Default)]
pub struct ReplyRules {
    /// Whether it must say its outcome: an answer without the header is a failed attempt then.
    pub outcome_required: bool,
    /// What `steps.<name>` must look like.
    pub schema: Option<InputSchema>,
}

/// What a step's forward command is.
#[derive(Debug)]
pub enum Forward {
    /// Hold, to be confirmed or compensated.
    Reserve(Call),
    /// Do at once, to be compensated.
    Action(Call),
}

impl Forward {
    /// The command.
    pub fn call(&self) -> &Call {
        match self {
            Self::Reserve(call) | Self::Action(call) => call,
        }
    }

    /// Which phase it is.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Reserve(_) => Phase::Reserve,
            Self::Action(_) => Phase::Action,
        }
    }
}

/// A command and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The command's name, such as `inventory.reserve`.
    pub command: String,
    /// What `to:` says, else the participant's queue: the command up to its first dot.
    pub to: Destination,
}

/// How often and how fast to try again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first included. Bounds `reserve` and `action`; `confirm` and
    /// `compensate` go on until `suspend_after`.
    pub attempts: u32,
    /// Wait before the second attempt.
    pub first: Duration,
    /// Each wait is this many times the one before.
    pub factor: f64,
    /// Longest wait.
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first: Duration::from_millis(200),
            factor: 2.0,
            max: Duration::from_secs(10),
        }
    }
}

/// Waits for a signal.
#[derive(Debug)]
pub struct Wait {
    /// The block's name, unique in the definition; `steps.<name>` is the signal's payload.
    pub name: String,
    /// The signal's name; the block's own unless the definition says otherwise.
    pub signal: String,
    /// Which signals count: over `signal`, `input`, `steps`, `item`. All, if absent.
    pub matching: Option<Expression>,
    /// Whether only signals count that come after the wait has begun, not those kept from before.
    pub since_begin: bool,
    /// Domain events that count as this signal.
    pub on: Option<EventRule>,
    /// How long to wait; for ever, if absent.
    pub timeout: Option<Delay>,
    /// What follows when nothing came.
    pub on_timeout: OnTimeout,
}

/// What follows when a `wait` has waited long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// Go on; `steps.<name>` stays absent.
    Continue,
    /// Roll back.
    Fail,
}

/// Waits for time to pass.
#[derive(Debug)]
pub struct Sleep {
    /// The block's name, unique in the definition.
    pub name: String,
    /// How long.
    pub delay: Delay,
}

/// How long: written down, or computed.
#[derive(Debug)]
pub enum Delay {
    /// Written down.
    Fixed(Duration),
    /// Computed when the block is entered: seconds, a duration text such as `3d`, or an
    /// RFC 3339 time, which is waited for (in the past: no wait).
    Computed(Expression),
}

/// When a computed delay is over: seconds or a duration text from `now`, or an RFC 3339 time.
/// Not later than a written one could be.
///
/// # Errors
/// Says what the value should have been.
pub fn parse_delay(value: &Value, now: Timestamp) -> Result<Timestamp, String> {
    let wrong =
        || format!("a delay is seconds, a duration such as `3d`, or an RFC 3339 time, not {value}");
    let until = match value {
        Value::Number(seconds) => now.after(numeral::seconds(seconds).ok_or_else(wrong)?),
        Value::String(text) => match parse_duration(text) {
            Ok(duration) => now.after(duration),
            Err(_) => text.parse().map_err(|_| wrong())?,
        },
        _ => return Err(wrong()),
    };
    if until > now.after(WAIT_MAX) {
        return Err(format!(
            "{value} is further away than the longest delay, {}",
            format_duration(WAIT_MAX)
        ));
    }
    Ok(until)
}

/// Runs another saga as one step of this one: its forward pass is the reservation, its confirm
/// pass the confirmation, its roll-back the compensation.
#[derive(Debug)]
pub struct SubSaga {
    /// The block's name, unique in the definition; `steps.<name>` is the sub-saga's output.
    pub name: String,
    /// The definition to run, in its newest version.
    pub saga: String,
    /// How long it may take to reach its pivot.
    pub timeout: Duration,
    /// The block as the step that it amounts to: the other saga is its participant. Its commands
    /// go to the start queue, where they are told from ordinary starts by their seal.
    pub step: Step,
}

/// What a rejection of a `reserve` or `action` leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReject {
    /// Roll back.
    #[default]
    RollBack,
    /// Go on without it; `steps.<name>` stays absent.
    Continue,
}

/// How sagas of a definition are started besides by command, which is always possible.
#[derive(Debug, Default)]
pub struct StartRules {
    /// By domain events.
    pub on: Vec<EventRule>,
    /// By the clock.
    pub every: Option<Every>,
    /// What a start with the key of a live saga does.
    pub conflict: ConflictRule,
}

/// A domain event, and what it means here.
#[derive(Debug)]
pub struct EventRule {
    /// The topic exchange it is published on.
    pub exchange: String,
    /// The binding's pattern, with `*` and `#`.
    pub routing_key: String,
    /// Computes the saga's key from `event` (the body); for a start, absent means that the
    /// definition's own `key` is computed from the input.
    pub key: Option<Template>,
    /// Computes the input, or the signal's payload, from `event`; absent means the event itself.
    pub with: Option<Template>,
}

/// A schedule.
#[derive(Debug)]
pub struct Every {
    /// Five fields, as cron(5) has them.
    pub schedule: String,
    /// An IANA time zone.
    pub timezone: String,
    /// What to do about ticks that passed while no node ran.
    pub catch_up: CatchUp,
    /// Computes the input, over `tick` (RFC 3339 text); absent means `{ "tick": … }`.
    pub with: Option<Template>,
}

/// What to do about missed ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// Start one saga for each.
    All,
    /// Start one for the newest.
    #[default]
    Last,
    /// Start none.
    None,
}

/// What a start with the key of a live saga does, if the input is the same or another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConflictRule {
    /// The same input: answers with the live saga. Another input: is refused.
    #[default]
    Existing,
    /// Is refused, also with the same input.
    Reject,
    /// Rolls the live saga back, then starts anew.
    Restart,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_computed_delay_is_no_longer_than_a_written_one_may_be() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let longest = WAIT_MAX.as_secs();
        let last = now.after(WAIT_MAX);
        let cases = [
            (json!(0), Some(now)),
            (json!("3d"), Some(now.after(Duration::from_hours(72)))),
            (
                json!("2020-01-01T00:00:00Z"),
                "2020-01-01T00:00:00Z".parse().ok(),
            ),
            (json!(longest), Some(last)),
            (json!(format!("{longest}s")), Some(last)),
            (json!(last.to_string()), Some(last)),
            (json!(longest + 1), None),
            (json!(i64::MAX), None),
            (json!(u64::MAX), None),
            (json!("99999d"), None),
            (json!("9999999999w"), None),
            (json!("2036-12-31T00:00:00Z"), None),
            (json!("9999-01-01T00:00:00Z"), None),
        ];
        for (value, expected) in cases {
            let until = parse_delay(&value, now);
            assert_eq!(until.clone().ok(), expected, "{value}: {until:?}");
            if let Err(why) = until {
                assert!(why.contains("the longest delay, 3660d"), "{why}");
            }
        }
        assert!(
            parse_delay(&json!(-1), now)
                .unwrap_err()
                .contains("seconds")
        );
    }
}
