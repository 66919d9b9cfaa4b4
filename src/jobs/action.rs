//! What a job does to each saga, and how fast.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::saga::OperatorKind;
use crate::store::SagaHead;

/// Most sagas a minute that can be asked for.
const PER_MINUTE_MAX: u32 = 600_000;

/// What is done to each saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum JobAction {
    /// It is sent a signal.
    Signal {
        /// The signal's name.
        signal: String,
        /// Its payload.
        payload: Value,
    },
    /// The step that it is suspended at, whichever that is, is taken for done.
    SkipWhereSuspended {
        /// What came of it.
        skip: Skip,
    },
    /// What a person can do to one.
    Operate(OperatorKind),
}

/// What comes of steps that are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// For the blocks that use the step's reply.
    pub reply: Option<Arc<Value>>,
}

impl JobAction {
    /// The name for people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Signal { .. } => "signal",
            Self::SkipWhereSuspended { .. } => "skip",
            Self::Operate(kind) => kind.as_str(),
        }
    }

    /// What a person would do to this saga; `None` for a signal. Else why nothing can be done.
    pub(super) fn of(&self, head: &SagaHead) -> Result<Option<OperatorKind>, String> {
        match self {
            Self::Signal { .. } => Ok(None),
            Self::Operate(kind) => Ok(Some(kind.clone())),
            Self::SkipWhereSuspended { skip } => {
                let spot = head.cause.as_ref().and_then(|cause| cause.spot.as_ref());
                let spot = spot.ok_or_else(|| "it is not suspended at a step".to_owned())?;
                Ok(Some(OperatorKind::Skip {
                    step: spot.step.clone(),
                    reply: skip.reply.clone(),
                }))
            }
        }
    }
}

impl fmt::Display for JobAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { signal, .. } => write!(f, "signal {signal}"),
            other => f.write_str(other.as_str()),
        }
    }
}

/// How many sagas in what time: `20/s`, `100/m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Most sagas a minute.
    pub per_minute: u32,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.per_minute.is_multiple_of(60) {
            write!(f, "{}/s", self.per_minute / 60)
        } else {
            write!(f, "{}/m", self.per_minute)
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a rate, as in 20/s or 100/m");
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let each = match unit {
            "s" => 60,
            "m" => 1,
            _ => return Err(wrong()),
        };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let per_minute = number.checked_mul(each);
        match per_minute {
            Some(per_minute @ 1..=PER_MINUTE_MAX) => Ok(Self { per_minute }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_comes_back_as_it_was_kept() {
        let actions = [
            JobAction::Operate(OperatorKind::Retry {
                step: None,
                with: None,
            }),
            JobAction::Operate(OperatorKind::ForceComplete),
            JobAction::SkipWhereSuspended {
                skip: Skip { reply: None },
            },
            JobAction::Signal {
                signal: "approved".to_owned(),
                payload: Value::Null,
            },
        ];
        for action in actions {
            let text = serde_json::to_string(&action).unwrap();
            assert_eq!(
                serde_json::from_str::<JobAction>(&text).unwrap(),
                action,
                "{text}"
            );
        }
    }

    #[test]
    fn a_rate_is_a_number_of_sagas_in_a_second_or_minute() {
        for (text, per_minute) in [("20/s", 1_200), ("100/m", 100), ("5", 300)] {
            assert_eq!(text.parse(), Ok(Rate { per_minute }));
        }
        assert_eq!("120/m".parse::<Rate>().unwrap().to_string(), "2/s");
        for text in ["", "0/s", "20/h", "x/s", "99999999/s", "-1/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
