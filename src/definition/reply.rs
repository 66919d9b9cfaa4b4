//! `reply`: what an answer must be like to count as a yes.
//!
//! Any RPC server is a participant, so an answer without the header `outcome` is a yes; and many
//! frameworks answer an error in the body, just as they answer a result. A definition that talks to
//! such a one demands the header, or says what a result looks like.

use serde_json::Value;

use super::draft::Draft;
use super::fields::Fields;
use super::grammar::{DEFAULT_REPLY, REPLY};
use super::kinds::{ReplyRules, Step};
use super::problem::Rule;
use crate::id::Phase;

impl Draft<'_> {
    /// `reply` of a step, or what the file says for all.
    pub fn reply(&mut self, fields: &Fields<'_>) -> ReplyRules {
        let mut rules = ReplyRules {
            outcome_required: self.defaults.outcome_required,
            schema: None,
        };
        let Some(yaml) = fields.get("reply") else {
            return rules;
        };
        let Some(fields) = Fields::of(yaml, "`reply`", REPLY, &mut self.findings) else {
            return rules;
        };
        if let Some(required) = self.outcome(&fields) {
            rules.outcome_required = required;
        }
        rules.schema = fields
            .get("schema")
            .and_then(|schema| self.schema("schema", schema));
        if fields.get("outcome").is_none() && fields.get("schema").is_none() {
            let message =
                "`reply` says nothing; add `outcome: required`, or a JSON Schema as `schema`";
            self.findings.add(yaml.at, Rule::MissingField, message);
        }
        rules
    }

    /// `reply` of `defaults`: whether outcomes are required.
    pub fn default_reply(&mut self, fields: &Fields<'_>) -> bool {
        let Some(yaml) = fields.get("reply") else {
            return false;
        };
        let fields = Fields::of(
            yaml,
            "`reply` of `defaults`",
            DEFAULT_REPLY,
            &mut self.findings,
        );
        fields.and_then(|fields| self.outcome(&fields)) == Some(true)
    }

    fn outcome(&mut self, fields: &Fields<'_>) -> Option<bool> {
        let words = [("required", true), ("optional", false)];
        fields.choice("outcome", &words, &mut self.findings)
    }
}

impl Step {
    /// Why an answer that says yes, or says nothing about it (`stated` is false), can't be taken for
    /// one.
    pub fn objection(&self, phase: Phase, stated: bool, body: &Value) -> Option<String> {
        if self.reply.outcome_required && !stated {
            let why = "the reply has no header `outcome`, which the definition requires";
            return Some(why.to_owned());
        }
        let is_result = match phase {
            Phase::Reserve | Phase::Action => true,
            Phase::Confirm => self.forward.is_none(),
            Phase::Compensate => false,
        };
        let schema = self.reply.schema.as_ref().filter(|_| is_result)?;
        let wrong = schema.check("the reply", body).err()?;
        Some(format!(
            "the reply does not fit its schema: {}",
            wrong.join("; ")
        ))
    }
}
