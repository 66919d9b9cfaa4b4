//! Values made up from what a definition says about them: its JSON Schema, and the way its
//! expressions use what has no schema (replies, signals, inputs that nobody described).
//!
//! Good enough to see a definition run. Deliberately absent: patterns and everything else of JSON
//! Schema that would take a solver; what comes out is checked against the schema, and if it does
//! not fit, a person must give the input.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::scheduler::EPOCH;
use super::guess::{ITEMS, NUMBERS, named};
use super::schema::Maker;
use super::usage::{self, Hint};
use crate::definition::{Definition, parse_delay};

/// An input that fits the definition. What the schema does not require is missing from some.
///
/// # Errors
/// In words, why none could be made up.
pub fn input(definition: &Definition, random: &mut fastrand::Rng) -> Result<Value, String> {
    // The key may need what the schema does not.
    attempt(definition, true, random).or_else(|_| attempt(definition, false, random))
}

fn attempt(
    definition: &Definition,
    sparse: bool,
    random: &mut fastrand::Rng,
) -> Result<Value, String> {
    let mut made = match &definition.input {
        Some(schema) => {
            let root = &schema.schema;
            Maker {
                root,
                sparse,
                random,
            }
            .make("", root, 0)
        }
        None => json!({}),
    };
    let schema = definition.input.as_ref().map(|input| &input.schema);
    let described = schema.and_then(|schema| schema.get("properties"));
    let left_out = |name: &str| described.is_some_and(|all| all.get(name).is_some());
    fill_in_but(left_out, &mut made, "input", definition, random);
    fill_objects(&mut made, described, definition, random);
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

/// What expressions want of the objects in an input of which the schema says no more than that they are
/// objects.
fn fill_objects(
    made: &mut Value,
    described: Option<&Value>,
    definition: &Definition,
    random: &mut fastrand::Rng,
) {
    let fields = made.as_object_mut().into_iter().flatten();
    for (name, value) in fields.filter(|(_, value)| value.is_object()) {
        let schema = described.and_then(|all| all.get(name.as_str()));
        if schema.is_none_or(|schema| schema.get("properties").is_none()) {
            fill_in(value, &format!("input.{name}"), definition, random);
        }
    }
}

/// What `root` (such as `steps.payment` or `signal`) must have for the expressions that use it;
/// added to `made` where it lacks it.
pub(super) fn fill_in(
    made: &mut Value,
    root: &str,
    definition: &Definition,
    random: &mut fastrand::Rng,
) {
    fill_in_but(|_| false, made, root, definition, random);
}

fn fill_in_but(
    left_out: impl Fn(&str) -> bool,
    made: &mut Value,
    root: &str,
    definition: &Definition,
    random: &mut fastrand::Rng,
) {
    let Value::Object(fields) = made else {
        return;
    };
    for usage in usages(root, &definition.source) {
        if !fields.contains_key(&usage.name) && !left_out(&usage.name) {
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
        let schema =
            "input: { type: object, required: [nap], properties: { nap: { type: string } } }";
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
