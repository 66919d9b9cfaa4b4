//! From YAML text to a checked definition: the top of the file, and the order of the checks.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::block::Spot;
use super::draft::{Draft, Place};
use super::fields::{Fields, wrong_type};
use super::names::check_name;
use super::problem::{Findings, Position, Rule, shortened};
use super::template::{Shape, Template};
use super::yaml::{self, Content, Yaml};
use super::{Definition, InputSchema, NodeId, NodeKind, Problems};

/// Fields of a definition.
const FIELDS: [&str; 8] = [
    "saga",
    "version",
    "description",
    "key",
    "timeout",
    "input",
    "steps",
    "output",
];
/// Largest version; what every store's integer column takes.
const VERSION_MAX: u32 = i32::MAX.unsigned_abs();
/// Shortest and longest `timeout` of a saga.
const SAGA_TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_hours(366 * 24));
/// Most problems of a JSON Schema that are reported.
const SCHEMA_PROBLEMS_MAX: usize = 10;
/// The dialect of `input`.
const SCHEMA_DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Stack for parsing: YAML and above all CEL recurse for each level of what they read, and the
/// bounds on the sources are met well within this.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Parses and checks a definition; `file` is named in the problems.
pub fn parse(source: &str, file: &str) -> Result<Definition, Problems> {
    parse_with_place(source, file).map(|(definition, _)| definition)
}

/// Parses and checks several `(file, source)` that belong together: besides the problems of each,
/// no two may have the same name and version.
pub fn parse_all<F, S>(files: &[(F, S)]) -> Result<Vec<Definition>, Vec<Problems>>
where
    F: AsRef<str>,
    S: AsRef<str>,
{
    let mut definitions = Vec::new();
    let mut refused = Vec::new();
    let mut first_file: BTreeMap<(String, u32), &str> = BTreeMap::new();
    for (file, source) in files {
        let (file, source) = (file.as_ref(), source.as_ref());
        let (definition, at) = match parse_with_place(source, file) {
            Ok(parsed) => parsed,
            Err(problems) => {
                refused.push(problems);
                continue;
            }
        };
        let identity = (definition.name.clone(), definition.version);
        if let Some(other) = first_file.get(&identity) {
            let message = format!(
                "`{}` version {} is already defined in {other}; give one of them another name or version",
                identity.0, identity.1
            );
            let mut findings = Findings::new(file, source);
            findings.add(at, Rule::DuplicateDefinition, message);
            refused.push(findings.finish());
        } else {
            first_file.insert(identity, file);
            definitions.push(definition);
        }
    }
    if refused.is_empty() {
        Ok(definitions)
    } else {
        Err(refused)
    }
}

/// Runs [`read`] on a large stack, and turns its failure into a problem.
fn parse_with_place(source: &str, file: &str) -> Result<(Definition, Position), Problems> {
    let failed = |why: &str| {
        let mut findings = Findings::new(file, source);
        findings.add(Position::START, Rule::Internal, why);
        Err(findings.finish())
    };
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("definition".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || read(source, file));
        match reader.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                failed("reading this file failed; this is a bug in Backstitch, report it")
            }
            Err(error) => failed(&format!(
                "no thread to read the file with: {error}; try again"
            )),
        }
    })
}

/// The whole way: text, tree, blocks, soundness. Also returns where the saga's name stands.
fn read(source: &str, file: &str) -> Result<(Definition, Position), Problems> {
    let mut findings = Findings::new(file, source);
    let Some(yaml) = yaml::read(source, &mut findings) else {
        return Err(findings.finish());
    };
    let Some(fields) = Fields::of(&yaml, "a definition", &FIELDS, &mut findings) else {
        return Err(findings.finish());
    };
    let mut draft = Draft::new(findings);
    let header = draft.header(&fields);
    draft.all_blocks(&fields);
    let output = fields
        .get("output")
        .map(|output| draft.template(output, Place::Output));
    draft.check_references();
    if !draft.findings.is_empty() {
        return Err(draft.findings.finish());
    }
    let definition = Definition {
        start: super::StartRules::default(),
        name: header.name,
        version: header.version,
        description: header.description,
        hash: Sha256::digest(source.as_bytes()).into(),
        source: source.to_owned(),
        key: header.key,
        input: header.input,
        timeout: draft.saga_timeout,
        nodes: draft.nodes,
        output,
        steps: draft.steps,
    };
    Ok((definition, header.at))
}

/// What stands above the blocks.
struct Header {
    at: Position,
    name: String,
    version: u32,
    description: Option<String>,
    key: Template,
    input: Option<InputSchema>,
}

impl Draft<'_> {
    fn header(&mut self, fields: &Fields<'_>) -> Header {
        let findings = &mut self.findings;
        let saga = fields.require("saga", "saga: place-order", findings);
        let name = fields.text("saga", findings).unwrap_or_default();
        if let Some(saga) = saga.filter(|saga| saga.text().is_some())
            && let Err(why) = check_name(name)
        {
            findings.add(saga.at, Rule::BadName, why);
        }
        fields.require("version", "version: 1", findings);
        let version = fields.whole("version", 1..=VERSION_MAX, findings);
        let description = fields.text("description", findings);
        self.saga_timeout = fields.duration("timeout", SAGA_TIMEOUT_RANGE, findings);
        let key = fields.require("key", "key: ${ input.order_id }", findings);
        Header {
            at: saga.map_or(fields.at, |saga| saga.at),
            name: name.to_owned(),
            version: version.unwrap_or_default(),
            description: description.map(str::to_owned),
            key: key.map_or_else(
                || Template(Shape::Constant(Value::Null)),
                |key| self.key(key),
            ),
            input: fields.get("input").and_then(|input| self.schema(input)),
        }
    }

    /// The key: one string, and not the same for all sagas.
    fn key(&mut self, yaml: &Yaml) -> Template {
        if yaml.text().is_none() {
            let expected = "text with an expression, as in `${ input.order_id }`";
            wrong_type(yaml, "key", expected, &mut self.findings);
            return Template(Shape::Constant(Value::Null));
        }
        let problems_before = self.findings.len();
        let key = self.template(yaml, Place::Key);
        if matches!(key.0, Shape::Constant(_)) && self.findings.len() == problems_before {
            let message = "the key is the same for every saga, so there could be only one; use the input, as in `${ input.order_id }`";
            self.findings.add(yaml.at, Rule::Contradiction, message);
        }
        key
    }

    /// The blocks, below a root sequence.
    fn all_blocks(&mut self, fields: &Fields<'_>) {
        let root = NodeKind::Sequence(Vec::new());
        let Some(id) = self.add_node(None, 0, fields.at, root) else {
            return;
        };
        let example = "steps: [ { step: payment, reserve: payments.reserve, … } ]";
        let Some(list) = fields.require("steps", example, &mut self.findings) else {
            return;
        };
        let spot = Spot {
            parent: id,
            position: 0,
            depth: 1,
            loops: 0,
        };
        let children = self.blocks(list, "steps", spot);
        self.nodes[usize::from(id.0)].kind = NodeKind::Sequence(children);
    }

    /// `input`, compiled. Patterns run in linear time, whatever the input; nothing is fetched.
    fn schema(&mut self, yaml: &Yaml) -> Option<InputSchema> {
        if !matches!(yaml.content, Content::Map(_)) {
            let expected = "a JSON Schema, as in `{ type: object, required: [order_id] }`";
            wrong_type(yaml, "input", expected, &mut self.findings);
            return None;
        }
        let schema = yaml.to_json();
        if let Some(dialect) = schema.get("$schema")
            && dialect.as_str().map(|text| text.trim_end_matches('#')) != Some(SCHEMA_DIALECT)
        {
            let message = format!("`$schema` can only be {SCHEMA_DIALECT}; leave it out");
            self.findings
                .add(yaml.locate("/$schema"), Rule::BadSchema, message);
            return None;
        }
        let mut is_schema = true;
        let meta = jsonschema::draft202012::meta::validator();
        for error in meta.iter_errors(&schema).take(SCHEMA_PROBLEMS_MAX) {
            is_schema = false;
            self.bad_schema(yaml, &error);
        }
        if !is_schema {
            return None;
        }
        let compiled = jsonschema::draft202012::options()
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&schema);
        match compiled {
            Ok(validator) => Some(InputSchema { schema, validator }),
            Err(error) => {
                self.bad_schema(yaml, &error);
                None
            }
        }
    }

    fn bad_schema(&mut self, yaml: &Yaml, error: &jsonschema::ValidationError<'_>) {
        let at = yaml.locate(&error.instance_path().to_string());
        let why = shortened(&error.to_string(), 200);
        self.findings
            .add(at, Rule::BadSchema, format!("not a JSON Schema: {why}"));
    }
}

/// The root is the first node.
const _: () = assert!(Definition::ROOT.0 == NodeId(0).0);
