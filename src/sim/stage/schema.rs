//! Values that fit a JSON Schema, as far as a look at it tells.
//!
//! Separate from `invent`, which adds what a definition's expressions want of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::definition::InputSchema;

use super::guess::{ITEMS, NUMBER_MAX, named, text, time};

/// Deepest value that is made up.
const DEPTH_MAX: usize = 8;
/// Longest list that is made up because a schema wants it.
const ITEMS_MAX: usize = 200;
/// How many of the properties that are not required are left out: one in so many.
const LEFT_OUT_ONE_IN: u8 = 4;

/// Makes a value what the schema wants, if it is not; what it has besides, it keeps.
pub(super) fn fit(value: &mut Value, schema: &InputSchema, random: &mut fastrand::Rng) {
    if schema.check("the value", value).is_ok() {
        return;
    }
    let root = &schema.schema;
    let sparse = false;
    let mut maker = Maker {
        root,
        sparse,
        random,
    };
    match (value, maker.make("", root, 0)) {
        (Value::Object(fields), Value::Object(made)) => fields.extend(made),
        (value, made) => *value = made,
    }
}

/// Makes values from a schema.
pub(super) struct Maker<'a> {
    /// The whole schema.
    pub root: &'a Value,
    /// Whether some of what is not required is left out.
    pub sparse: bool,
    /// What is drawn from.
    pub random: &'a mut fastrand::Rng,
}

impl Maker<'_> {
    /// A value for a field of this name.
    pub fn make(&mut self, name: &str, schema: &Value, depth: usize) -> Value {
        if depth > DEPTH_MAX {
            return Value::Null;
        }
        let Value::Object(fields) = schema else {
            return named(name, self.random);
        };
        if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
            let pointer = target.trim_start_matches('#');
            let target = self.root.pointer(pointer).cloned().unwrap_or_default();
            return self.make(name, &target, depth + 1);
        }
        for given in ["const", "default"] {
            if let Some(value) = fields.get(given) {
                return value.clone();
            }
        }
        for given in ["enum", "examples"] {
            if let Some(Value::Array(values)) = fields.get(given)
                && let Some(value) = self.random.choice(values)
            {
                return value.clone();
            }
        }
        for given in ["anyOf", "oneOf"] {
            if let Some(Value::Array(schemas)) = fields.get(given)
                && let Some(schema) = self.random.choice(schemas)
            {
                return self.make(name, &merged(fields, given, schema), depth + 1);
            }
        }
        if let Some(Value::Array(schemas)) = fields.get("allOf") {
            let mut all = Value::Object(fields.clone());
            for schema in schemas {
                let Value::Object(so_far) = &all else { break };
                all = merged(so_far, "allOf", schema);
            }
            return self.make(name, &all, depth + 1);
        }
        self.of_type(name, fields, depth)
    }

    fn of_type(&mut self, name: &str, schema: &Map<String, Value>, depth: usize) -> Value {
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => {
                let kind = self.random.choice(kinds);
                kind.and_then(Value::as_str).unwrap_or("null")
            }
            _ if schema.contains_key("properties") || schema.contains_key("required") => "object",
            _ if schema.contains_key("items") => "array",
            _ if schema.contains_key("minimum") || schema.contains_key("maximum") => "integer",
            _ => return named(name, self.random),
        };
        match kind {
            "object" => self.object(schema, depth),
            "array" => self.array(name, schema, depth),
            "integer" => json!(self.whole(schema)),
            "number" => self.number(schema),
            "boolean" => json!(self.random.bool()),
            "null" => Value::Null,
            _ => json!(self.string(name, schema)),
        }
    }

    /// All properties that are required, and most that are known.
    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let mut made = Map::new();
        let required: BTreeSet<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (name, schema) in properties {
                let is_optional = !required.contains(name.as_str());
                if self.sparse && is_optional && self.random.u8(..LEFT_OUT_ONE_IN) == 0 {
                    continue;
                }
                made.insert(name.clone(), self.make(name, schema, depth + 1));
            }
        }
        for name in required {
            if !made.contains_key(name) && depth > 0 {
                made.insert(name.to_owned(), named(name, self.random));
            }
        }
        Value::Object(made)
    }

    fn array(&mut self, name: &str, schema: &Map<String, Value>, depth: usize) -> Value {
        let bound = |field| schema.get(field).and_then(Value::as_u64);
        let least = bound("minItems").map_or(0, |least| usize::try_from(least).unwrap_or(0));
        let most = bound("maxItems").map_or(ITEMS_MAX, |most| usize::try_from(most).unwrap_or(0));
        let count = ITEMS.max(least).min(most).min(ITEMS_MAX);
        let any = Value::Bool(true);
        let items = schema.get("items").unwrap_or(&any);
        Value::Array(
            (0..count)
                .map(|_| self.make(name, items, depth + 1))
                .collect(),
        )
    }

    /// Any number, in one of the spellings that writers of JSON choose: a whole one with or without a
    /// point, or one with a fraction if such a one fits.
    fn number(&mut self, schema: &Map<String, Value>) -> Value {
        let whole = self.whole(schema);
        let most = schema.get("maximum").or(schema.get("exclusiveMaximum"));
        #[allow(clippy::cast_precision_loss)] // Near is enough.
        let fits = most
            .and_then(Value::as_f64)
            .is_none_or(|most| whole as f64 + 0.5 < most);
        let text = match self.random.u8(..4) {
            0 if whole >= 0 && fits && !schema.contains_key("multipleOf") => format!("{whole}.5"),
            0 | 1 => format!("{whole}.0"),
            _ => whole.to_string(),
        };
        text.parse().map_or(json!(whole), Value::Number)
    }

    fn whole(&mut self, schema: &Map<String, Value>) -> i64 {
        let bound = |field| schema.get(field).and_then(Value::as_i64);
        let above = bound("exclusiveMinimum").map(|least| least.saturating_add(1));
        let below = bound("exclusiveMaximum").map(|most| most.saturating_sub(1));
        let least = bound("minimum").or(above);
        let most = bound("maximum").or(below);
        let (least, most) = match (least, most) {
            (None, None) => (1, NUMBER_MAX),
            (Some(least), None) => (least, least.saturating_add(NUMBER_MAX)),
            (None, Some(most)) => (most.saturating_sub(NUMBER_MAX), most),
            (Some(least), Some(most)) => (least, most.max(least)),
        };
        let number = self.random.i64(least..=most);
        match bound("multipleOf") {
            Some(step) if step > 0 => (number / step).saturating_mul(step).max(step),
            _ => number,
        }
    }

    fn string(&mut self, name: &str, schema: &Map<String, Value>) -> String {
        let format = schema.get("format").and_then(Value::as_str);
        let text = match format {
            Some("date-time") => time(self.random),
            Some("date") => time(self.random).chars().take(10).collect(),
            Some("email") => format!("{}@example.org", text("person", self.random)),
            Some("uri" | "url") => format!("https://example.org/{}", text(name, self.random)),
            Some("uuid") => format!(
                "{:08x}-0000-4000-8000-{:012x}",
                self.random.u32(..),
                self.random.u32(..)
            ),
            _ => text(name, self.random),
        };
        let bound = |field| schema.get(field).and_then(Value::as_u64);
        let most = bound("maxLength").map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(0));
        let least = bound("minLength").map_or(0, |least| usize::try_from(least).unwrap_or(0));
        let mut text: String = text.chars().take(most).collect();
        while text.chars().count() < least.min(ITEMS_MAX) {
            text.push('x');
        }
        text
    }
}

/// A schema without one of its fields, and what another one adds to it.
fn merged(fields: &Map<String, Value>, without: &str, other: &Value) -> Value {
    let mut all = fields.clone();
    all.remove(without);
    for (name, value) in other.as_object().into_iter().flatten() {
        match (all.get_mut(name), value) {
            (Some(Value::Object(ours)), Value::Object(theirs)) => ours.extend(theirs.clone()),
            (Some(Value::Array(ours)), Value::Array(theirs)) => ours.extend(theirs.clone()),
            _ => {
                all.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(all)
}
