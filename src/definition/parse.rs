//! From YAML text to a checked definition: the top of the file, and the order of the checks.

use std::collections::BTreeMap;
use std::thread;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::block::Spot;
use super::draft::{Draft, Place};
use super::fields::{Fields, wrong_type};
use super::grammar::DEFINITION;
use super::kinds::InputSchema;
use super::names::check_name;
use super::problem::Problems;
use super::problem::{Findings, Position, Rule, shortened};
use super::schema::{self, Costly, check_cost};
use super::soundness::sub_sagas::{self, Caller};
use super::template::{Shape, Template};
use super::tree::{BlockId, BlockKind, Definition};
use super::waits::WAIT_RANGE;
use super::yaml::{self, Content, Yaml};

/// Largest version; what every store's integer column takes.
const VERSION_MAX: u32 = i32::MAX.unsigned_abs();
/// Most problems of a JSON Schema that are reported.
const SCHEMA_PROBLEMS_MAX: usize = 10;
/// The dialect of `input`.
const SCHEMA_DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Stack for parsing: YAML and above all CEL recurse for each level of what they read, and the
/// bounds on the sources are met well within this.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Parses and checks a definition; `file` is named in the problems.
pub fn parse(source: &str, file: &str) -> Result<Definition, Problems> {
    parse_file(source, file, Strictness::Sound).sound()
}

/// Parses a definition that was accepted before and that running sagas keep. It must still be one
/// that can be read; what has been found unsound about it since is theirs to live with.
pub fn parse_stored(source: &str, file: &str) -> Result<Definition, Problems> {
    parse_file(source, file, Strictness::Readable).sound()
}

/// How much is asked of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// All there is.
    Sound,
    /// That it can be read without losing anything.
    Readable,
}

/// Parses and checks several `(file, source)` that belong together: besides the problems of each,
/// no two may have the same name and version, and the sagas that blocks run must be among them.
pub fn parse_all<F, S>(files: &[(F, S)]) -> Result<Vec<Definition>, Vec<Problems>>
where
    F: AsRef<str>,
    S: AsRef<str>,
{
    let parsed: Vec<Parsed> = files
        .iter()
        .map(|(file, source)| parse_file(source.as_ref(), file.as_ref(), Strictness::Sound))
        .collect();
    let callers: Vec<Caller<'_>> = parsed.iter().filter_map(Parsed::as_caller).collect();
    // A file that can't be understood may be the one that defines what others run.
    let all_were_read = callers.len() == files.len();
    let mut first_file: BTreeMap<(&str, u32), &str> = BTreeMap::new();
    let mut refused = Vec::new();
    for ((file, source), parsed) in files.iter().zip(&parsed) {
        let file = file.as_ref();
        let (Some(one), Some(caller)) = (&parsed.readable, parsed.as_caller()) else {
            refused.push(parsed.problems.clone());
            continue;
        };
        let mut findings = Findings::after(file, source.as_ref(), parsed.problems.clone());
        let (name, version) = (one.definition.name.as_str(), one.definition.version);
        if let Some(other) = first_file.get(&(name, version)) {
            let message = format!(
                "`{name}` version {version} is already defined in {other}; give one of them another name or version"
            );
            findings.add(one.at, Rule::DuplicateDefinition, message);
        } else {
            first_file.insert((name, version), file);
        }
        if all_were_read {
            sub_sagas::check(&caller, &callers, &mut findings);
        }
        if !findings.is_empty() {
            refused.push(findings.finish());
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    drop(callers);
    let definitions = parsed.into_iter().filter_map(|parsed| parsed.readable);
    Ok(definitions.map(|readable| readable.definition).collect())
}

/// What became of a file.
struct Parsed {
    /// All that is wrong with it.
    problems: Problems,
    /// The definition, unless what is wrong leaves it open what was meant.
    readable: Option<Readable>,
}

impl Parsed {
    fn refused(problems: Problems) -> Self {
        Self {
            problems,
            readable: None,
        }
    }

    /// The definition, if nothing at all is wrong.
    fn sound(self) -> Result<Definition, Problems> {
        match self.readable {
            Some(readable) if self.problems.0.is_empty() => Ok(readable.definition),
            _ => Err(self.problems),
        }
    }

    fn as_caller(&self) -> Option<Caller<'_>> {
        self.readable.as_ref().map(|readable| Caller {
            definition: &readable.definition,
            runs: &readable.runs,
        })
    }
}

/// A definition, and what other files make of it.
struct Readable {
    definition: Definition,
    /// Where the saga's name stands.
    at: Position,
    /// The sagas its blocks run, and where they are named.
    runs: Vec<(String, Position)>,
}

/// Runs [`read`] on a large stack, and turns its failure into a problem.
fn parse_file(source: &str, file: &str, strictness: Strictness) -> Parsed {
    let failed = |why: &str| {
        let mut findings = Findings::new(file, source);
        findings.add(Position::START, Rule::Internal, why);
        Parsed::refused(findings.finish())
    };
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("definition".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || read(source, file, strictness));
        match reader.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(_)) => {
                failed("reading this file failed; this is a bug in Backstitch, report it")
            }
            Err(error) => failed(&format!(
                "no thread to read the file with: {error}; try again"
            )),
        }
    })
}

/// The whole way: text, tree, blocks, soundness.
fn read(source: &str, file: &str, strictness: Strictness) -> Parsed {
    let mut findings = Findings::new(file, source);
    let Some(yaml) = yaml::read(source, &mut findings) else {
        return Parsed::refused(findings.finish());
    };
    let Some(fields) = Fields::of(&yaml, "a definition", DEFINITION, &mut findings) else {
        return Parsed::refused(findings.finish());
    };
    let mut draft = Draft::new(findings);
    let header = draft.header(&fields);
    let start = draft.start(&fields, &header.key);
    let labels = draft.labels(&fields);
    draft.all_blocks(&fields);
    let output = fields
        .get("output")
        .map(|output| draft.template(output, Place::Output));
    match strictness {
        Strictness::Sound => draft.check_soundness(),
        Strictness::Readable => draft.findings.forgive(),
    }
    let readable = !draft.findings.obscure();
    let problems = draft.findings.finish();
    if !readable {
        return Parsed::refused(problems);
    }
    let definition = Definition {
        name: draft.saga_name,
        version: header.version,
        description: header.description,
        hash: hash_of(source),
        source: source.to_owned(),
        key: header.key,
        correlate: header.correlate,
        start,
        labels,
        input: header.input,
        timeout: draft.saga_timeout,
        blocks: draft.blocks,
        output,
        steps: draft.steps,
    };
    Parsed {
        problems,
        readable: Some(Readable {
            definition,
            at: header.at,
            runs: draft.runs,
        }),
    }
}

/// What stands above the blocks.
struct Header {
    at: Position,
    version: u32,
    description: Option<String>,
    key: Template,
    correlate: Option<Template>,
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
        self.saga_timeout = fields.duration("timeout", WAIT_RANGE, findings);
        self.saga_ends = fields.get("timeout").is_some();
        self.saga_name = name.to_owned();
        let key = fields.require("key", "key: ${ input.order_id }", findings);
        self.read_defaults(fields);
        Header {
            at: saga.map_or(fields.at, |saga| saga.at),
            version: version.unwrap_or_default(),
            description: description.map(str::to_owned),
            key: key.map_or_else(
                || Template(Shape::Constant(Value::Null)),
                |key| self.key(key),
            ),
            correlate: fields
                .get("correlate")
                .and_then(|correlate| self.correlate(correlate)),
            input: fields
                .get("input")
                .and_then(|input| self.schema("input", input)),
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

    /// What belongs together: one string. Unlike the key it may be the same for all sagas.
    fn correlate(&mut self, yaml: &Yaml) -> Option<Template> {
        if yaml.text().is_none() {
            let expected = "text, as in `${ input.work_item }`";
            wrong_type(yaml, "correlate", expected, &mut self.findings);
            return None;
        }
        Some(self.template(yaml, Place::Key))
    }

    /// The blocks, below a root sequence.
    fn all_blocks(&mut self, fields: &Fields<'_>) {
        let root = BlockKind::Sequence(Vec::new());
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
        self.blocks[usize::from(id.0)].kind = BlockKind::Sequence(children);
    }

    /// A schema, compiled. Patterns run in linear time, whatever the input; nothing is fetched, and no
    /// evaluation goes on for ever.
    pub fn schema(&mut self, name: &str, yaml: &Yaml) -> Option<InputSchema> {
        if !matches!(yaml.content, Content::Map(_)) {
            let expected = "a JSON Schema, as in `{ type: object, required: [order_id] }`";
            wrong_type(yaml, name, expected, &mut self.findings);
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
        if let Err(Costly { at, why }) = check_cost(&schema) {
            let message = format!("this schema costs too much to apply: {why}");
            self.findings.add(yaml.locate(&at), Rule::TooLarge, message);
            return None;
        }
        match schema::compile(&schema) {
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
const _: () = assert!(Definition::ROOT.0 == BlockId(0).0);

/// What tells a definition's source from any other.
pub fn hash_of(source: &str) -> [u8; 32] {
    Sha256::digest(source.as_bytes()).into()
}
