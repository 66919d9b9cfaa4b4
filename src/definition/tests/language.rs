//! The language's JSON Schema and its reference say the same as the parser.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::grammar;
use super::super::problem::Findings;
use super::super::yaml;
use super::*;

const REFERENCE: &str = include_str!("../../../docs/saga-language.md");

fn schema() -> Value {
    serde_json::from_str(LANGUAGE_SCHEMA).unwrap()
}

fn as_json(source: &str) -> Value {
    let mut findings = Findings::new("x", source);
    let yaml = yaml::read(source, &mut findings).unwrap();
    assert!(findings.is_empty());
    yaml.to_json()
}

/// The definitions that are shipped.
fn shipped() -> Vec<(String, String)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/sagas");
    let files = std::fs::read_dir(directory).unwrap();
    let files: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .map(|path| {
            let source = std::fs::read_to_string(&path).unwrap();
            (path.display().to_string(), source)
        })
        .collect();
    assert!(!files.is_empty());
    files
}

/// The examples of the reference: those that begin with `saga:` are whole files, the others
/// pieces of one, which are put where they belong.
fn examples() -> Vec<(String, String)> {
    let mut line = 1;
    let mut examples = Vec::new();
    for (index, part) in REFERENCE.split("```").enumerate() {
        if let (1, Some(example)) = (index % 2, part.strip_prefix("yaml\n")) {
            examples.push((format!("docs/saga-language.md:{line}"), completed(example)));
        }
        line += part.matches('\n').count();
    }
    assert!(examples.len() > 10, "{}", examples.len());
    examples
}

fn completed(example: &str) -> String {
    let top = "saga: example\nversion: 1\nkey: ${ input.id }\ntimeout: 30d\n";
    let steps = "steps:\n  - { step: only, action: books.look, read_only: true }\n";
    let is_list = example.starts_with("- ");
    if example.contains("saga: ") && example.contains("version: ") {
        example.to_owned()
    } else if is_list {
        format!("{top}steps:\n{example}")
    } else {
        let given: BTreeSet<&str> = example
            .lines()
            .filter(|line| !line.starts_with([' ', '#']))
            .filter_map(|line| line.split_once(':').map(|(name, _)| name))
            .collect();
        let missing = |line: &&str| {
            line.split_once(':')
                .is_some_and(|(name, _)| !given.contains(name))
        };
        let top: Vec<&str> = top.lines().filter(missing).collect();
        let top = top.join("\n");
        let steps = if given.contains("steps") { "" } else { steps };
        format!("{top}\n{example}\n{steps}")
    }
}

#[test]
fn shipped_definitions_and_examples_of_the_reference_are_sound_and_keep_the_schema() {
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    for (place, source) in shipped().into_iter().chain(examples()) {
        if let Err(problems) = parse(&source, &place) {
            panic!("{problems}\n{source}");
        }
        let json = as_json(&source);
        let errors: Vec<String> = validator
            .iter_errors(&json)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, [""; 0], "{place}\n{source}");
    }
}

#[test]
fn the_schema_refuses_what_an_editor_should_underline() {
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    let refused = [
        "{ step: a }",
        "{ step: A, confirm: p.f }",
        "{ step: a, confirm: p }",
        "{ step: a, confirm: p.f, timeuot: 5s }",
        "{ step: a, confirm: p.f, timeout: 5 }",
        "{ step: a, reserve: p.r, action: p.a }",
        "{ step: a, confirm: p.f, when: true }",
        "{ step: a, confirm: p.f, for_each: 0 }",
        "{ step: a, confirm: p.f, on_reject: ignore }",
        "{ parallel: [] }",
        "{ step: a, confirm: p.f, parallel: [] }",
        "{ wait: a, timeout: never }",
        "{ wait: a, on: { exchange: x, routing_key: y } }",
        "{ sleep: a }",
        "{ sleep: a, for: 3d, until: \"${ input.at }\" }",
        "{ saga: a }",
        "text",
    ];
    for block in refused {
        let source = with_steps(&format!("  - {block}"));
        assert!(!validator.is_valid(&as_json(&source)), "{block}");
        assert!(!rules(&source).is_empty(), "{block}");
    }
}

#[test]
fn every_field_the_parser_knows_is_in_the_schema_and_in_the_reference() {
    let schema = schema();
    let fields_at = |pointer: &str| -> BTreeSet<String> {
        let fields = schema.pointer(pointer).and_then(Value::as_object);
        let fields = fields.unwrap_or_else(|| panic!("no {pointer}"));
        fields.keys().cloned().collect()
    };
    let mut known = vec![
        ("/properties".to_owned(), grammar::DEFINITION.to_vec()),
        (
            "/$defs/defaults/properties".to_owned(),
            grammar::DEFAULTS.to_vec(),
        ),
        (
            "/$defs/start/properties".to_owned(),
            grammar::START.to_vec(),
        ),
        (
            "/$defs/event/properties".to_owned(),
            grammar::EVENT.to_vec(),
        ),
        (
            "/$defs/retry/properties".to_owned(),
            grammar::RETRY.to_vec(),
        ),
        ("/$defs/to/properties".to_owned(), grammar::TO.to_vec()),
        (
            "/$defs/label/properties".to_owned(),
            grammar::LABEL.to_vec(),
        ),
        (
            "/$defs/reply/properties".to_owned(),
            grammar::REPLY.to_vec(),
        ),
        (
            "/$defs/defaults/properties/reply/properties".to_owned(),
            grammar::DEFAULT_REPLY.to_vec(),
        ),
    ];
    for kind in &grammar::KINDS {
        known.push((format!("/$defs/{}/properties", kind.field), kind.fields()));
    }
    for (pointer, fields) in known {
        for field in &fields {
            let quoted = [format!("`{field}`"), format!("`{field}:")];
            let is_explained = quoted.iter().any(|quoted| REFERENCE.contains(quoted));
            assert!(
                is_explained,
                "docs/saga-language.md does not explain `{field}`"
            );
        }
        let fields: BTreeSet<String> = fields.into_iter().map(str::to_owned).collect();
        assert_eq!(fields_at(&pointer), fields, "{pointer}");
    }
    let kinds = schema["$defs"]["block"]["oneOf"].as_array().unwrap().len();
    assert_eq!(kinds, grammar::KINDS.len());
}

#[test]
fn every_rule_is_explained_in_the_reference() {
    for rule in Rule::ALL {
        let heading = format!("| `{rule}` |");
        assert!(
            REFERENCE.contains(&heading),
            "docs/saga-language.md lacks {heading}"
        );
    }
}
