//! Values made up from what a definition says about them: its JSON Schema, and the way its
//! expressions use what has no schema (replies, signals, inputs that nobody described).
//!
//! Good enough to see a definition run. Deliberately absent: patterns and everything else of JSON
//! Schema that would take a solver; what comes out is checked against the schema, and if it does
//! not fit, a person must give the input.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::scheduler::EPOCH;
use super::DAY;
use super::usage::{self, Hint};
use crate::definition::{Definition, parse_delay};

/// Deepest value that is made up.
const DEPTH_MAX: usize = 8;
/// Items of a list that may have any number.
const ITEMS: usize = 2;
/// Longest list that is made up because a schema wants it.
const ITEMS_MAX: usize = 200;
/// Largest number that is made up when nothing else is said.
const NUMBER_MAX: i64 = 100;
/// Words in a field's name that make it a number.
const NUMBERS: &[&str] = &[
    "age", "amount", "balance", "cents", "count", "days", "limit", "number", "price", "quantity",
    "seats", "size", "sum", "times", "total",
];
/// Words in a field's name that make it a time.
const TIMES: &[&str] = &["_at", "date", "deadline", "until"];

/// An input that fits the definition.
///
/// # Errors
/// In words, why none could be made up.
pub fn input(definition: &Definition, random: &mut fastrand::Rng) -> Result<Value, String> {
    let mut made = match &definition.input {
        Some(schema) => {
            let root = &schema.schema;
            Maker { root, random }.make("", root, 0)
        }
        None => json!({}),
    };
    fill_in(&mut made, "input", definition, random);
    tell_times(&mut made, definition, random);
    let advice = "give one with --input";
    definition
        .check_input(&made)
        .map_err(|wrong| format!("no input could be made up ({}); {advice}", wrong.join("; ")))?;
    definition
        .key_of(&made)
        .map_err(|error| format!("no input could be made up ({error}); {advice}"))?;
    Ok(made)
}

/// What `root` (such as `steps.payment` or `signal`) must have for the expressions that use it;
/// added to `made` where it lacks it.
pub(super) fn fill_in(
    made: &mut Value,
    root: &str,
    definition: &Definition,
    random: &mut fastrand::Rng,
) {
    let Value::Object(fields) = made else {
        return;
    };
    for usage in usages(root, &definition.source) {
        if !fields.contains_key(&usage.name) {
            let value = match usage::delay(root, &usage.name, definition, random) {
                Some(delay) => delay,
                None => usage.guess(definition, random),
            };
            fields.insert(usage.name, value);
        }
    }
}

/// Gives the fields of an input that tell how long to wait, and of which the schema says no more
/// than that they are text, what can be waited for.
fn tell_times(made: &mut Value, definition: &Definition, random: &mut fastrand::Rng) {
    for usage in usages("input", &definition.source) {
        let is_time = |value: &Value| parse_delay(value, EPOCH).is_ok();
        let Some(field) = made.get_mut(&usage.name).filter(|field| !is_time(field)) else {
            continue;
        };
        let Some(delay) = usage::delay("input", &usage.name, definition, random) else {
            continue;
        };
        let before = std::mem::replace(field, delay);
        if definition.check_input(made).is_err() {
            made[&usage.name] = before;
        }
    }
}

/// How expressions use one field.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Usage {
    name: String,
    is_list: bool,
    is_condition: bool,
    /// What it is compared or reckoned with.
    hint: Option<Hint>,
}

impl Usage {
    fn guess(&self, definition: &Definition, random: &mut fastrand::Rng) -> Value {
        if self.is_list {
            let mut item = json!({});
            fill_in(&mut item, "item", definition, random);
            let item = match &item {
                Value::Object(fields) if fields.is_empty() => named(&self.name, random),
                _ => item,
            };
            return Value::Array(vec![item; ITEMS]);
        }
        if let Some(hint) = &self.hint {
            return hint.guess(&self.name, random);
        }
        if self.is_condition {
            return Value::Bool(random.bool());
        }
        named(&self.name, random)
    }
}

/// The fields of `root` that a source uses: `root.name` and `root["name"]`.
fn usages(root: &str, source: &str) -> BTreeSet<Usage> {
    let quoted = root
        .split_once('.')
        .map(|(all, name)| format!("{all}[\"{name}\"]"));
    let roots = [Some(root.to_owned()), quoted];
    let mut found = BTreeSet::new();
    for line in source.lines() {
        for root in roots.iter().flatten() {
            for (at, _) in line.match_indices(root.as_str()) {
                let before = line[..at].chars().next_back();
                let is_part = before.is_some_and(|c| c.is_alphanumeric() || "._-".contains(c));
                if let Some(name) = field(&line[at + root.len()..]).filter(|_| !is_part) {
                    let after = &line[at + root.len()..];
                    found.insert(usage(name, line, &line[..at], after));
                }
            }
        }
    }
    // The first word about a field counts: a list is a list everywhere.
    let lists: BTreeSet<String> = found
        .iter()
        .filter(|usage| usage.is_list)
        .map(|usage| usage.name.clone())
        .collect();
    // So is what it is compared with, and each field is guessed once.
    let hinted: BTreeSet<String> = found
        .iter()
        .filter(|usage| usage.hint.is_some())
        .map(|usage| usage.name.clone())
        .collect();
    found.retain(|usage| {
        let known = usage.hint.is_some() || !hinted.contains(&usage.name);
        usage.is_list || (known && !lists.contains(&usage.name))
    });
    found
}

fn usage(name: &str, line: &str, before: &str, after: &str) -> Usage {
    let hint = Hint::of(before, after);
    let line = line.trim_start().trim_start_matches("- ");
    let asked = ["when:", "until:", "match:"]
        .iter()
        .any(|field| line.contains(field));
    let compared = ["==", "<", ">", "in ", "size", "!="]
        .iter()
        .any(|operator| line.contains(operator));
    let repeated = before
        .rsplit("for_each:")
        .next()
        .is_some_and(|between| between.len() < before.len() && !between.contains('}'));
    Usage {
        name: name.to_owned(),
        is_list: repeated && !NUMBERS.iter().any(|word| name.contains(word)),
        is_condition: asked && !compared,
        hint,
    }
}

/// The name that follows a root: `.name` or `["name"]`.
fn field(rest: &str) -> Option<&str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = if let Some(rest) = rest.strip_prefix('.') {
        rest.split(|c| !is_name(c)).next()?
    } else {
        rest.strip_prefix("[\"")?.split('"').next()?
    };
    (!name.is_empty()).then_some(name)
}

/// A value that fits a field's name.
fn named(name: &str, random: &mut fastrand::Rng) -> Value {
    if NUMBERS.iter().any(|word| name.contains(word)) {
        json!(random.i64(1..=NUMBER_MAX))
    } else if TIMES.iter().any(|word| name.ends_with(word)) {
        json!(time(random))
    } else {
        json!(text(name, random))
    }
}

fn text(name: &str, random: &mut fastrand::Rng) -> String {
    let name = if name.is_empty() { "text" } else { name };
    format!("{name}-{}", random.u32(1..10_000))
}

fn time(random: &mut fastrand::Rng) -> String {
    EPOCH.after(DAY * random.u32(1..30)).to_string()
}

/// Makes values from a schema.
struct Maker<'a> {
    root: &'a Value,
    random: &'a mut fastrand::Rng,
}

impl Maker<'_> {
    fn make(&mut self, name: &str, schema: &Value, depth: usize) -> Value {
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
            Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("null"),
            _ if schema.contains_key("properties") || schema.contains_key("required") => "object",
            _ if schema.contains_key("items") => "array",
            _ if schema.contains_key("minimum") || schema.contains_key("maximum") => "integer",
            _ => return named(name, self.random),
        };
        match kind {
            "object" => self.object(schema, depth),
            "array" => self.array(name, schema, depth),
            // A whole number is a number, and the one that expressions expect.
            "integer" | "number" => json!(self.whole(schema)),
            "boolean" => json!(self.random.bool()),
            "null" => Value::Null,
            _ => json!(self.string(name, schema)),
        }
    }

    /// All properties that are known or required.
    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let mut made = Map::new();
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (name, schema) in properties {
                made.insert(name.clone(), self.make(name, schema, depth + 1));
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;

    fn made(input: &str, steps: &str) -> Result<Value, String> {
        let source = format!("saga: s\nversion: 1\nkey: ${{ input.id }}\n{input}\nsteps:\n{steps}");
        let definition = parse(&source, "s.yaml").unwrap_or_else(|wrong| panic!("{wrong}"));
        super::input(&definition, &mut fastrand::Rng::with_seed(1))
    }

    #[test]
    fn an_input_follows_its_schema() {
        let schema = "
input:
  type: object
  required: [id, kind, items, at]
  properties:
    id: { type: string, minLength: 12, maxLength: 14 }
    kind: { enum: [big, small] }
    at: { type: string, format: date-time }
    even: { type: integer, minimum: 10, maximum: 20, multipleOf: 2 }
    who: { $ref: \"#/$defs/person\" }
    items: { type: array, minItems: 3, items: { type: object, required: [sku], properties: { sku: { type: string } } } }
  $defs: { person: { type: object, required: [mail], properties: { mail: { type: string, format: email } } } }
";
        let made = made(schema, "  - { step: a, confirm: p.f }").unwrap();
        assert!((12..=14).contains(&made["id"].as_str().unwrap().len()));
        assert_eq!(made["items"].as_array().unwrap().len(), 3);
        assert!(made["items"][0]["sku"].is_string());
        assert!(
            made["who"]["mail"]
                .as_str()
                .unwrap()
                .ends_with("@example.org")
        );
        assert_eq!(made["even"].as_i64().unwrap() % 2, 0);
    }

    #[test]
    fn what_has_no_schema_is_guessed_from_its_use() {
        let steps = "
  - step: a
    for_each: ${ input.lines }
    with: { sku: \"${ item.sku }\", n: \"${ item.quantity }\" }
    when: ${ input.wanted }
    action: p.a
    read_only: true
  - step: b
    with: \"${ input.total * 2 }\"
    confirm: p.f
";
        let made = made("", steps).unwrap();
        assert!(made["id"].is_string() && made["wanted"].is_boolean());
        assert!(made["total"].is_i64());
        assert!(made["lines"][1]["quantity"].is_i64() && made["lines"][1]["sku"].is_string());
    }

    #[test]
    fn what_is_reckoned_or_waited_with_is_of_the_type_that_it_takes() {
        let steps = "
  - step: poll
    confirm: p.f
    with: { a: \"${ input.id }\", b: \"${ 2 * input.load + input.rest - 1 }\", c: \"${ input.level >= 3 }\" }
    when: ${ input.state == 'done' && 7 < input.n }
  - { sleep: nap, for: \"${ input.nap }\" }
  - { sleep: night, until: \"${ input.morning }\" }
  - wait: call
    timeout: ${ input.patience }
    on_timeout: continue
";
        let schema = "input: { type: object, properties: { nap: { type: string } } }";
        for made in [made("", steps).unwrap(), made(schema, steps).unwrap()] {
            for number in ["load", "rest", "level", "n"] {
                assert!(made[number].is_i64(), "{number}: {made}");
            }
            assert!(made["state"].is_string(), "{made}");
            for delay in ["nap", "morning", "patience"] {
                assert!(parse_delay(&made[delay], EPOCH).is_ok(), "{delay}: {made}");
            }
            assert!(made["morning"].as_str().unwrap().ends_with('Z'), "{made}");
        }
    }

    #[test]
    fn what_can_not_be_made_up_is_said() {
        let schema = "input: { type: object, properties: { id: { type: string, pattern: \"^[A-Z]{3}$\" } } }";
        let why = made(schema, "  - { step: a, confirm: p.f }").unwrap_err();
        assert!(why.contains("/id") && why.contains("--input"), "{why}");
    }
}
