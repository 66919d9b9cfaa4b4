//! What a JSON Schema may cost: bounded when it is loaded, and again when it is evaluated.
//!
//! `anyOf` and `allOf` apply several schemas to one value, and those may do so again: thirty lines
//! double thirty times, and a node would evaluate one input for days. So a schema is refused at load
//! if, recursion aside, it applies more schemas than [`COST_MAX`]. Recursion follows the data, which
//! only a run shows: so each evaluation is metered, and one that takes more than [`METER_MAX`] steps
//! is broken off.
//!
//! Deliberately absent: what a schema means (the library's).

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use jsonschema::{Keyword, ValidationError, Validator};
use serde_json::{Map, Value};

/// Schemas that one may apply, counted as often as they are applied, recursion aside.
pub(super) const COST_MAX: u64 = 10_000;
/// Longest way through schemas that apply one another.
const WAY_MAX: usize = 64;
/// Schemas that one evaluation of an input may apply: well below a second.
const METER_MAX: u32 = 2_000_000;
/// The keyword that counts; it says nothing about the value.
const METER: &str = "x-backstitch-meter";

/// Keywords whose value is a schema.
const ONE: [&str; 12] = [
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "additionalItems",
];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas that are applied.
const NAMED: [&str; 3] = ["dependentSchemas", "patternProperties", "properties"];
/// Keywords whose value is an object of schemas that others refer to.
const KEPT: [&str; 2] = ["$defs", "definitions"];
/// Keywords that apply a schema which stands elsewhere.
const REFERENCES: [&str; 2] = ["$ref", "$dynamicRef"];

thread_local! {
    /// Steps that the evaluation on this thread may still take.
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// What an evaluation is broken off with.
struct TooCostly;

/// What is wrong with a schema, and where: a JSON pointer into it.
pub(super) struct Costly {
    pub(super) at: String,
    pub(super) why: String,
}

/// Refuses a schema that costs too much, recursion aside.
pub(super) fn check_cost(schema: &Value) -> Result<(), Costly> {
    let mut costs = Costs {
        schema,
        anchors: HashMap::new(),
        known: HashMap::new(),
        way: 0,
    };
    costs.find_anchors(schema, "");
    costs.of("").map(drop)
}

/// Compiles a schema, with a meter in each of its parts.
pub(super) fn compile(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    let mut metered = schema.clone();
    add_meters(&mut metered);
    jsonschema::draft202012::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .with_keyword(METER, |_, _, _| Ok(Box::new(Meter)))
        .build(&metered)
}

/// Evaluates within a bound; `None` if that is not enough.
pub(super) fn within_bound<T>(evaluate: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(METER_MAX);
    match catch_unwind(AssertUnwindSafe(evaluate)) {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<TooCostly>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

/// Counts. There is no other way out of the middle of an evaluation than to unwind.
struct Meter;

impl Meter {
    fn count() {
        match LEFT.get().checked_sub(1) {
            Some(left) => LEFT.set(left),
            None => resume_unwind(Box::new(TooCostly)),
        }
    }
}

impl<'i> Keyword<'i> for Meter {
    fn validate(&self, _instance: &'i Value) -> Result<(), ValidationError<'i>> {
        Self::count();
        Ok(())
    }

    fn is_valid(&self, _instance: &'i Value) -> bool {
        Self::count();
        true
    }
}

fn add_meters(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    for (keyword, value) in fields.iter_mut() {
        match value {
            value if ONE.contains(&keyword.as_str()) => add_meters(value),
            Value::Array(list) if LIST.contains(&keyword.as_str()) => {
                list.iter_mut().for_each(add_meters);
            }
            Value::Object(named)
                if NAMED.contains(&keyword.as_str()) || KEPT.contains(&keyword.as_str()) =>
            {
                named.values_mut().for_each(add_meters);
            }
            _ => {}
        }
    }
    fields.insert(METER.to_owned(), Value::Bool(true));
}

/// Costs of a schema's parts, by their JSON pointers.
struct Costs<'s> {
    schema: &'s Value,
    anchors: HashMap<&'s str, String>,
    /// `None` while it is being reckoned: who meets it then has gone in a circle.
    known: HashMap<String, Option<u64>>,
    way: usize,
}

impl<'s> Costs<'s> {
    fn find_anchors(&mut self, schema: &'s Value, at: &str) {
        let Value::Object(fields) = schema else {
            return;
        };
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(name)) = fields.get(keyword) {
                self.anchors.insert(name, at.to_owned());
            }
        }
        for (place, part) in parts(fields, true) {
            self.find_anchors(part, &format!("{at}/{place}"));
        }
    }

    fn of(&mut self, at: &str) -> Result<u64, Costly> {
        match self.known.get(at) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => return Ok(1),
            None => {}
        }
        let Some(Value::Object(fields)) = self.schema.pointer(at) else {
            return Ok(1);
        };
        let too_costly = |why: String| Costly {
            at: at.to_owned(),
            why,
        };
        if self.way >= WAY_MAX {
            return Err(too_costly(format!(
                "schemas apply one another in a chain of more than {WAY_MAX}"
            )));
        }
        self.known.insert(at.to_owned(), None);
        self.way += 1;
        let mut cost = 1_u64;
        for (place, _) in parts(fields, false) {
            cost = cost.saturating_add(self.of(&format!("{at}/{place}"))?);
        }
        for keyword in REFERENCES {
            if let Some(Value::String(reference)) = fields.get(keyword)
                && let Some(target) = self.target_of(reference)
            {
                cost = cost.saturating_add(self.of(&target)?);
            }
        }
        self.way -= 1;
        if cost > COST_MAX {
            return Err(too_costly(format!(
                "it applies more than {COST_MAX} schemas, those that it applies several times counted each time (`anyOf`, `allOf`, `oneOf` and `$ref` multiply)"
            )));
        }
        self.known.insert(at.to_owned(), Some(cost));
        Ok(cost)
    }

    /// The pointer that a reference within the schema leads to.
    fn target_of(&self, reference: &str) -> Option<String> {
        let fragment = reference.strip_prefix('#')?;
        if fragment.is_empty() || fragment.starts_with('/') {
            // A pointer in a URI; names with a percent sign in them are not looked for.
            return Some(fragment.to_owned());
        }
        self.anchors.get(fragment).cloned()
    }
}

/// The schemas in a schema: those that it applies, or all; with their places.
fn parts(fields: &Map<String, Value>, kept_too: bool) -> Vec<(String, &Value)> {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    let mut parts = Vec::new();
    for (keyword, value) in fields {
        let name = keyword.as_str();
        match value {
            value if ONE.contains(&name) => parts.push((keyword.clone(), value)),
            Value::Array(list) if LIST.contains(&name) => {
                let list = list.iter().enumerate();
                parts.extend(list.map(|(index, part)| (format!("{keyword}/{index}"), part)));
            }
            Value::Object(named) if NAMED.contains(&name) || kept_too && KEPT.contains(&name) => {
                let named = named.iter();
                parts
                    .extend(named.map(|(key, part)| (format!("{keyword}/{}", escaped(key)), part)));
            }
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;
    use serde_json::json;

    fn definition(schema: &Value) -> Result<crate::definition::Definition, String> {
        let yaml = format!(
            "saga: s\nversion: 1\nkey: ${{ input.id }}\ninput: {schema}\nsteps:\n  - {{ step: a, reserve: a.b, confirm: a.c, compensate: a.d }}\n"
        );
        parse(&yaml, "s.yaml").map_err(|problems| problems.to_string())
    }

    /// Each of so many schemas applies the one before it twice.
    fn doubling(times: usize, keyword: &str, prefix: &str) -> Value {
        let mut defs = Map::from_iter([("d0".to_owned(), json!({ "$anchor": "d0" }))]);
        for level in 1..=times {
            let one = json!({ "$ref": format!("#{prefix}d{}", level - 1) });
            let name = format!("d{level}");
            defs.insert(
                name.clone(),
                json!({ "$anchor": name, keyword: [one, one] }),
            );
        }
        json!({ "$ref": format!("#{prefix}d{times}"), "$defs": defs })
    }

    #[test]
    fn a_schema_that_doubles_is_refused_where_it_stands() {
        for keyword in ["anyOf", "allOf", "oneOf"] {
            for prefix in ["/$defs/", ""] {
                assert!(definition(&doubling(8, keyword, prefix)).is_ok());
                let why = definition(&doubling(20, keyword, prefix)).unwrap_err();
                assert!(why.contains("multiply") && why.contains("4:"), "{why}");
            }
        }
        let why = definition(&doubling(100, "allOf", "")).unwrap_err();
        assert!(why.contains("chain"), "{why}");
    }

    #[test]
    fn recursion_that_multiplies_is_broken_off_and_recursion_that_does_not_is_fine() {
        let list = json!({ "properties": { "next": { "$ref": "#" } } });
        let doubled = json!({ "anyOf": [
            { "properties": { "next": { "$ref": "#" }, "a": { "type": "object" } } },
            { "properties": { "next": { "$ref": "#" }, "b": { "type": "object" } } },
        ] });
        let mut deep = json!({ "a": 1, "b": 1 });
        for _ in 0..60 {
            deep = json!({ "next": deep, "id": "k" });
        }
        assert!(definition(&list).unwrap().check_input(&deep).is_ok());
        let wrong = definition(&doubled)
            .unwrap()
            .check_input(&deep)
            .unwrap_err();
        assert!(wrong[0].contains("too costly"), "{wrong:?}");
        assert!(
            definition(&doubled)
                .unwrap()
                .check_input(&json!({ "id": "k" }))
                .is_ok()
        );
    }

    #[test]
    fn what_looks_like_a_schema_and_is_none_stays_as_it_is() {
        let schema = json!({ "properties": {
            "properties": { "const": { "not": {}, "anyOf": [] } },
            "enum": { "enum": [{ "items": {} }] },
        } });
        let definition = definition(&schema).unwrap();
        let input = json!({ "properties": { "not": {}, "anyOf": [] }, "enum": { "items": {} } });
        assert!(definition.check_input(&input).is_ok());
    }
}
