//! `labels`: what people search sagas by, computed from the input when a saga starts.
//!
//! A label whose expression has no value on an input, or one that is no text, number or time, is left
//! out: whether a saga can be found by it is no reason not to start it.

use serde_json::Value;

use super::bounds::LABELS_MAX;
use super::draft::{Draft, Place};
use super::expression::EvaluationScope;
use super::fields::{Fields, wrong_type};
use super::grammar::LABEL;
use super::label::{Label, LabelRule, LabelValue};
use super::names::check_name;
use super::problem::Rule;
use super::template::{Shape, Template};
use super::tree::Definition;
use super::yaml::{Content, Yaml};
use crate::limits::{BODY, Limit};

/// What a label may compute: it is cut to what an index takes.
const LABEL_LIMIT: Limit = BODY;

impl Definition {
    /// The labels of a saga with this input.
    pub fn labels_of(&self, input: &Value) -> Vec<Label> {
        let scope = EvaluationScope {
            input,
            steps: &(),
            item: None,
            given: None,
            saga: None,
        };
        let label = |rule: &LabelRule| {
            let value = rule.value.render_within(&scope, &LABEL_LIMIT).ok()?;
            Some(Label {
                name: rule.name.clone(),
                value: label_value(value, rule.is_time)?,
            })
        };
        self.labels.iter().filter_map(label).collect()
    }
}

fn label_value(value: Value, is_time: bool) -> Option<LabelValue> {
    match value {
        Value::String(text) if is_time => text.parse().ok().map(LabelValue::Time),
        _ if is_time => None,
        Value::String(text) => Some(LabelValue::Text(text)),
        Value::Bool(is_true) => Some(LabelValue::Text(is_true.to_string())),
        Value::Number(number) => {
            let number = number.as_f64().filter(|number| number.is_finite())?;
            Some(LabelValue::Number(number))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Draft<'_> {
    /// `labels`: names, each with its value.
    pub fn labels(&mut self, fields: &Fields<'_>) -> Vec<LabelRule> {
        let Some(yaml) = fields.get("labels") else {
            return Vec::new();
        };
        let Content::Map(entries) = &yaml.content else {
            let expected =
                "a map of names and values, as in `{ customer: \"${ input.customer }\" }`";
            wrong_type(yaml, "labels", expected, &mut self.findings);
            return Vec::new();
        };
        if entries.len() > LABELS_MAX {
            let message =
                format!("more than {LABELS_MAX} labels; keep those that people search by");
            self.findings.add(yaml.at, Rule::TooLarge, message);
            return Vec::new();
        }
        let mut rules = Vec::new();
        for entry in entries {
            if let Err(why) = check_name(&entry.key) {
                self.findings.add(entry.at, Rule::BadName, why);
            }
            let Some((value, is_time)) = self.label(&entry.value) else {
                continue;
            };
            rules.push(LabelRule {
                name: entry.key.clone(),
                value,
                is_time,
            });
        }
        rules
    }

    /// A value, or `{ time: … }`.
    fn label(&mut self, yaml: &Yaml) -> Option<(Template, bool)> {
        let (yaml, is_time) = match &yaml.content {
            Content::Map(_) => {
                let fields = Fields::of(yaml, "a label", LABEL, &mut self.findings)?;
                let example = "due: { time: \"${ input.due }\" }";
                (fields.require("time", example, &mut self.findings)?, true)
            }
            _ => (yaml, false),
        };
        if yaml.text().is_none() {
            let expected = "text with an expression, as in `${ input.customer }`";
            wrong_type(yaml, "a label", expected, &mut self.findings);
            return None;
        }
        let problems_before = self.findings.len();
        let value = self.template(yaml, Place::Label);
        if matches!(value.0, Shape::Constant(_)) && self.findings.len() == problems_before {
            let message = "this label is the same for every saga, so nothing is found by it; use the input, as in `${ input.customer }`";
            self.findings.add(yaml.at, Rule::Contradiction, message);
        }
        Some((value, is_time))
    }
}
