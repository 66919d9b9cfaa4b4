//! A saga as the API tells it, in parts.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::page::diagram::{Node, class_of_stage};
use crate::page::text::{self, Text, When};

/// A saga's row.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) revision: u64,
}

/// A saga, but for its steps and what happened.
#[derive(Debug, Deserialize)]
#[allow(clippy::struct_field_names)] // the API's names
pub(super) struct Saga {
    pub(super) saga_id: Text,
    pub(super) saga: Text,
    pub(super) version: u32,
    pub(super) key: Text,
    pub(super) status: Text,
    pub(super) reason: Text,
    pub(super) started_at: When,
    pub(super) updated_at: When,
    pub(super) ended_at: When,
    pub(super) why: Option<Why>,
    pub(super) description: Text,
    pub(super) input: Value,
    pub(super) output: Option<Value>,
    #[serde(default)]
    pub(super) output_error: Text,
    pub(super) deadline: When,
    #[serde(default)]
    pub(super) parent: Option<Parent>,
    #[serde(default)]
    pub(super) stages: StagesFound,
    #[serde(default)]
    pub(super) signals: Vec<Signal>,
    pub(super) journal: Journal,
}

/// How many steps stand where.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StagesFound {
    #[serde(default)]
    pub(super) all: BTreeMap<Text, u64>,
    #[serde(default)]
    pub(super) steps: Vec<StepStages>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StepStages {
    pub(super) step: Text,
    pub(super) stages: BTreeMap<Text, u64>,
}

/// A page of its steps.
#[derive(Debug, Deserialize)]
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
    pub(super) next: Option<Text>,
}

/// A page of what happened, newest first.
#[derive(Debug, Deserialize)]
pub(super) struct Timeline {
    pub(super) timeline: Vec<Moment>,
    pub(super) next: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Why {
    pub(super) text: Text,
    pub(super) r#for: Text,
    #[serde(default)]
    pub(super) step: Text,
    pub(super) since: When,
    pub(super) until: When,
    #[serde(default)]
    pub(super) trouble: Text,
    #[serde(default)]
    pub(super) other_saga: Text,
    #[serde(default)]
    pub(super) open_letters: Option<u64>,
    #[serde(default)]
    pub(super) others: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parent {
    pub(super) saga_id: Text,
    pub(super) step: Text,
}

#[derive(Debug, Deserialize)]
#[allow(clippy::struct_field_names)] // the API's names
pub(super) struct Step {
    pub(super) step: Text,
    pub(super) depth: usize,
    pub(super) status: Text,
    #[serde(default)]
    pub(super) phase: Text,
    pub(super) attempt: u32,
    pub(super) attempts_max: Option<u32>,
    pub(super) waiting: Option<Waiting>,
    pub(super) with: Option<Value>,
    pub(super) reply: Option<Value>,
    #[serde(default)]
    pub(super) reason: Text,
    #[serde(default)]
    pub(super) commands: BTreeMap<String, Text>,
    #[serde(default)]
    pub(super) child: Option<Child>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Waiting {
    pub(super) r#for: Text,
    pub(super) until: When,
}

#[derive(Debug, Deserialize)]
pub(super) struct Child {
    pub(super) saga_id: Text,
    pub(super) saga: Text,
}

impl Step {
    /// The command that was sent last.
    pub(super) fn command(&self) -> Text {
        let known = self.commands.get(self.phase.as_str());
        known.cloned().unwrap_or_default()
    }

    pub(super) fn stage(&self) -> String {
        self.status.as_str().replace('_', " ")
    }

    pub(super) fn class(&self) -> &'static str {
        class_of_stage(self.status.as_str())
    }

    pub(super) fn indent(&self) -> usize {
        self.depth.min(6)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Signal {
    pub(super) name: Text,
    pub(super) id: Text,
    pub(super) body: Value,
    #[serde(default)]
    pub(super) at: When,
}

#[derive(Debug, Deserialize)]
pub(super) struct Moment {
    pub(super) seq: u64,
    pub(super) at: When,
    pub(super) after_us: u64,
    #[serde(default)]
    pub(super) cause: Text,
    pub(super) events: Vec<Value>,
}

impl Moment {
    /// Since the saga started.
    pub(super) fn after(&self) -> String {
        let millis = self.after_us / 1_000;
        match millis {
            0..10_000 => format!("+{millis} ms"),
            10_000..600_000 => format!("+{} s", millis / 1_000),
            600_000..36_000_000 => format!("+{} min", millis / 60_000),
            _ => format!("+{} h", millis / 3_600_000),
        }
    }

    /// What happened, in words.
    pub(super) fn words(&self) -> Vec<Text> {
        let texts = self
            .events
            .iter()
            .filter_map(|event| event["text"].as_str());
        texts.map(Text::from).collect()
    }

    /// All of it, as the journal has it.
    pub(super) fn events(&self) -> Text {
        let mut events = self.events.clone();
        for event in &mut events {
            if let Some(fields) = event.as_object_mut() {
                fields.remove("text");
            }
        }
        text::json(&Value::Array(events))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Journal {
    pub(super) entries: u64,
    /// None: it was not looked at.
    pub(super) verified: Option<bool>,
    #[serde(default)]
    pub(super) problem: Text,
}

#[derive(Debug, Deserialize)]
pub(super) struct Drawn {
    pub(super) tree: Node,
}

#[derive(Debug, Deserialize)]
pub(super) struct Letters {
    pub(super) dead_letters: Vec<Letter>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Letter {
    pub(super) id: Text,
    pub(super) at: When,
    pub(super) queue: Text,
    pub(super) status: Text,
    pub(super) code: Text,
    pub(super) reason: Text,
}

/// The colour of a stage.
pub(super) fn class_of(stage: &Text) -> &'static str {
    class_of_stage(stage.as_str())
}
