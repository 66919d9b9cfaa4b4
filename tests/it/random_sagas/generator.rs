//! Random definitions over the whole language, most of them right, the rest deliberately wrong.

use std::fmt::Write;

use backstitch::id::STEP_INDICES_MAX;
use serde_json::{Map, Value, json};

/// Most blocks of one list.
const BLOCKS_MAX: usize = 4;
/// Blocks within blocks.
const DEPTH_MAX: usize = 3;
/// How likely a definition gets a mistake.
const MISTAKE: f64 = 0.3;

/// What the definitions may use.
#[derive(Debug, Clone, Copy)]
pub struct Language {
    pub waits: bool,
    pub sub_sagas: bool,
}

/// Definitions that belong together, the one to start first.
pub fn definitions(seed: u64, language: Language) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let has_child = language.sub_sagas && random.f64() < 0.2;
    let mut files = Vec::new();
    let child = has_child.then(|| "child".to_owned());
    files.push(one("parent", child, language, &mut random));
    if has_child {
        files.push(one("child", None, language, &mut random));
    }
    files.iter().map(yaml).collect()
}

fn one(name: &str, child: Option<String>, language: Language, random: &mut fastrand::Rng) -> Value {
    let mut author = Author {
        random,
        language,
        child,
        count: 0,
        known: Vec::new(),
        place: Place::default(),
    };
    let mut definition = author.definition(name);
    if author.chance(MISTAKE) {
        author.spoil(&mut definition);
    }
    definition
}

/// A block that expressions may refer to.
#[derive(Clone)]
struct Known {
    name: String,
    loops: Vec<usize>,
    may_be_missing: bool,
}

/// Where a block stands.
#[derive(Clone, Default)]
struct Place {
    loops: Vec<usize>,
    depth: usize,
    may_be_skipped: bool,
    behind_pivot: bool,
}

struct Author<'r> {
    random: &'r mut fastrand::Rng,
    language: Language,
    child: Option<String>,
    count: usize,
    known: Vec<Known>,
    place: Place,
}

impl Author<'_> {
    fn chance(&mut self, probability: f64) -> bool {
        self.random.f64() < probability
    }

    fn pick<'c>(&mut self, choices: &[&'c str]) -> &'c str {
        choices[self.random.usize(..choices.len())]
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}{}", self.count)
    }

    fn definition(&mut self, name: &str) -> Value {
        let mut steps = Vec::new();
        let count = self.random.usize(1..=BLOCKS_MAX);
        let pivot = self.chance(0.25).then(|| self.random.usize(..count));
        for number in 0..count {
            let mut block = self.block();
            if pivot == Some(number) {
                block["pivot"] = json!(true);
                self.place.behind_pivot = true;
            }
            steps.push(block);
        }
        let mut definition = json!({
            "saga": name,
            "version": 1,
            "key": "${ input.id }",
            "input": {
                "type": "object",
                "required": ["id", "n", "flag", "list"],
                "properties": {
                    "id": { "type": "string", "minLength": 1 },
                    "n": { "type": "integer", "minimum": 0, "maximum": 3 },
                    "flag": { "type": "boolean" },
                    "list": { "type": "array", "maxItems": 2, "items": { "type": "object", "properties": { "x": { "type": "integer" } } } },
                },
            },
            "steps": steps,
        });
        if self.chance(0.3) {
            definition["timeout"] = json!(self.pick(&["1m", "2h", "400d"]));
        }
        if self.chance(0.3) {
            definition["defaults"] = json!({
                "timeout": self.pick(&["1s", "20s"]),
                "retry": { "attempts": self.random.u32(1..4), "first": "100ms", "max": "10s" },
                "suspend_after": self.random.u32(3..20),
            });
        }
        if self.chance(0.5) {
            let value = self.value();
            definition["output"] = json!({ "it": value });
        }
        definition
    }

    fn block(&mut self) -> Value {
        let place = self.place.clone();
        let is_skippable = self.chance(0.25);
        let when = is_skippable.then(|| self.condition());
        let repeated = place.loops.len() + 1 < STEP_INDICES_MAX && self.chance(0.25);
        self.place.depth += 1;
        self.place.may_be_skipped |= is_skippable;
        if repeated {
            self.count += 1;
            self.place.loops.push(self.count);
        }
        let items = repeated.then(|| self.items(&place));
        let before = self.known.len();
        let mut block = self.kind();
        if let Some(items) = items {
            self.repeat(&mut block, items, before);
        }
        if let Some(when) = when {
            block["when"] = json!(when);
        }
        let behind_pivot = self.place.behind_pivot;
        self.place = Place {
            behind_pivot,
            ..place
        };
        block
    }

    fn kind(&mut self) -> Value {
        let depth = self.place.depth;
        let behind = self.place.behind_pivot;
        match self.random.u8(..20) {
            0..3 if depth < DEPTH_MAX => self.parallel(),
            3..5 if depth < DEPTH_MAX => self.sequence(),
            5 | 6 if self.language.waits => self.wait(),
            7 => self.rest(),
            8 | 9 if self.child.is_some() && !behind => self.sub_saga(),
            _ => self.step(),
        }
    }

    fn parallel(&mut self) -> Value {
        let before = self.known.clone();
        let mut after = before.clone();
        let mut branches = Vec::new();
        for _ in 0..self.random.usize(1..=BLOCKS_MAX) {
            // Branches don't see one another.
            self.known.clone_from(&before);
            branches.push(self.block());
            after.extend(self.known.drain(before.len()..));
        }
        self.known = after;
        json!({ "parallel": branches })
    }

    fn sequence(&mut self) -> Value {
        let count = self.random.usize(1..=BLOCKS_MAX);
        let blocks: Vec<Value> = (0..count).map(|_| self.block()).collect();
        json!({ "steps": blocks })
    }

    fn wait(&mut self) -> Value {
        let name = self.fresh("wait");
        let goes_on = self.place.behind_pivot || self.chance(0.5);
        let mut wait = json!({ "wait": name, "timeout": self.pick(&["30s", "1h", "90d"]) });
        if goes_on {
            wait["on_timeout"] = json!("continue");
        } else if self.chance(0.1) {
            wait["timeout"] = json!("none");
        }
        if self.chance(0.3) {
            wait["match"] = json!("${ signal.count > 20 }");
        }
        self.learn(name, goes_on);
        wait
    }

    fn rest(&mut self) -> Value {
        let name = self.fresh("sleep");
        match self.random.u8(..4) {
            0 => json!({ "sleep": name, "for": "${ input.n * 60 }" }),
            1 => json!({ "sleep": name, "until": "${ '2026-02-01T00:00:00Z' }" }),
            _ => json!({ "sleep": name, "for": self.pick(&["1s", "5m", "300d"]) }),
        }
    }

    fn sub_saga(&mut self) -> Value {
        let name = self.fresh("sub");
        let loops = self.place.loops.len();
        let id = if loops == 0 { "" } else { "-${ item }" };
        let block = json!({
            "saga": name,
            "run": self.child,
            "with": { "id": format!("${{ input.id }}-{name}{id}"), "n": 1, "flag": true, "list": [] },
            "timeout": self.pick(&["10m", "1h"]),
        });
        self.learn(name, false);
        block
    }

    fn step(&mut self) -> Value {
        let name = self.fresh("step");
        let who = self.pick(&["shop", "bank", "mail"]);
        let command = |what: &str| json!(format!("{who}.{what}"));
        let mut step = json!({ "step": name });
        if self.chance(0.7) {
            let value = self.value();
            step["with"] = json!({ "value": value, "count": self.random.u32(..100) });
        }
        let mut may_be_missing = false;
        match self.random.u8(..10) {
            0..2 => step["confirm"] = command("finish"),
            2..5 if self.place.behind_pivot => step["action"] = command("act"),
            _ if self.place.behind_pivot => step["confirm"] = command("finish"),
            2..5 => {
                step["action"] = command("act");
                if self.chance(0.7) {
                    step["compensate"] = command("undo");
                } else {
                    step["read_only"] = json!(true);
                }
                may_be_missing = self.chance(0.3);
            }
            _ => {
                step["reserve"] = command("reserve");
                step["compensate"] = command("release");
                if self.chance(0.8) {
                    step["confirm"] = command("confirm");
                }
                may_be_missing = self.chance(0.2);
            }
        }
        if may_be_missing {
            step["on_reject"] = json!("continue");
        }
        if self.chance(0.3) {
            step["timeout"] = json!(self.pick(&["100ms", "2s", "45s"]));
        }
        if self.chance(0.3) && !self.place.behind_pivot {
            step["retry"] = json!({ "attempts": self.random.u32(1..4), "first": "50ms" });
        }
        if self.chance(0.1) {
            step["to"] = json!({ "exchange": "routed", "routing_key": format!("{who}.in") });
        }
        let is_final = step.get("reserve").is_none() && step.get("action").is_none();
        if !is_final || self.place.behind_pivot {
            self.learn(name, may_be_missing);
        }
        step
    }

    fn learn(&mut self, name: String, may_be_missing: bool) {
        self.known.push(Known {
            name,
            loops: self.place.loops.clone(),
            may_be_missing: may_be_missing || self.place.may_be_skipped,
        });
    }

    /// The list of a loop at `around`.
    fn items(&mut self, around: &Place) -> Value {
        let inner = std::mem::replace(&mut self.place, around.clone());
        let list = match self.random.u8(..4) {
            0 => json!("${ input.list }"),
            1 => json!("${ input.n }"),
            2 => json!("${ [1, 2].filter(i, i > 1 || input.flag) }"),
            _ => json!(self.random.u32(1..4)),
        };
        self.place = inner;
        list
    }

    fn repeat(&mut self, block: &mut Value, items: Value, before: usize) {
        let is_sleep = block.get("sleep").is_some();
        let inside = self.known[before..].first().cloned();
        match inside.filter(|_| !is_sleep && self.random.bool()) {
            Some(known) if known.loops == self.place.loops => {
                let asked = if known.may_be_missing {
                    format!("${{ has(steps.{0}) && steps.{0}.count > 50 }}", known.name)
                } else {
                    format!("${{ steps.{}.count > 50 }}", known.name)
                };
                block["until"] = json!(asked);
                if self.random.bool() {
                    block["for_each"] = items;
                    block["sequential"] = json!(true);
                } else {
                    block["at_most"] = json!(3);
                }
                return;
            }
            _ => {}
        }
        block["for_each"] = items;
        if self.chance(0.4) {
            block["sequential"] = json!(true);
        }
        if self.chance(0.2) {
            block["at_most"] = json!(self.random.u32(1..5));
        }
    }

    fn condition(&mut self) -> String {
        let inner = match self.random.u8(..4) {
            0 => "input.flag".to_owned(),
            1 => "input.n > 1".to_owned(),
            2 => "size(input.list) < 2".to_owned(),
            _ => match self.reply() {
                Some(reply) => format!("{reply} > 30"),
                None => "!input.flag".to_owned(),
            },
        };
        format!("${{ {inner} }}")
    }

    fn value(&mut self) -> Value {
        match self.random.u8(..6) {
            0 => json!("${ input.list }"),
            1 => json!("n is ${ input.n }, ${ saga.key }"),
            2 if !self.place.loops.is_empty() => json!("${ item }"),
            3 => json!({ "a": [1, "${ input.flag }"] }),
            _ => match self.reply() {
                Some(reply) => json!(format!("${{ {reply} * 2 }}")),
                None => json!("$${ text"),
            },
        }
    }

    /// A number that is computed from an earlier reply.
    fn reply(&mut self) -> Option<String> {
        let known = self.random.choice(&self.known)?.clone();
        let name = &known.name;
        let is_mine = self.place.loops.starts_with(&known.loops);
        Some(match (is_mine, known.may_be_missing) {
            (true, false) => format!("steps.{name}.count"),
            (true, true) => format!("(has(steps.{name}) ? steps.{name}.count : 7)"),
            (false, false) => format!("size(steps.{name})"),
            (false, true) => format!("(has(steps.{name}) ? size(steps.{name}) : 0)"),
        })
    }

    /// Makes a mistake somewhere.
    fn spoil(&mut self, definition: &mut Value) {
        let mut blocks = Vec::new();
        paths(&definition["steps"], "/steps", &mut blocks);
        let at = blocks[self.random.usize(..blocks.len())].clone();
        let kind = self.random.u8(..14);
        let Some(block) = definition.pointer_mut(&at).and_then(Value::as_object_mut) else {
            return;
        };
        match kind {
            0 => {
                block.remove("compensate");
                block.remove("read_only");
            }
            1 => set(block, "compensat", json!("shop.undo")),
            2 => set(block, "timeout", json!("soon")),
            3 => set(block, "when", json!("${ steps.nobody.count > 1 }")),
            4 => set(block, "when", json!("${ 1 + }")),
            5 => set(block, "until", json!("${ true }")),
            6 => set(block, "pivot", json!("yes, please")),
            7 => set(block, "for_each", json!({ "a": 1 })),
            8 => set(block, "step", json!("Not A Name")),
            9 => set(definition_of(definition), "key", json!("${ item }")),
            10 => set(definition_of(definition), "steps", json!([])),
            11 => set(definition_of(definition), "version", json!(-1)),
            12 => set(
                definition_of(definition),
                "input",
                json!({ "type": "objekt" }),
            ),
            _ => {
                let twin = definition.pointer(&at).cloned().unwrap_or_default();
                if let Some(Value::Array(steps)) = definition.get_mut("steps") {
                    steps.push(twin);
                }
            }
        }
    }
}

fn set(fields: &mut Map<String, Value>, name: &str, value: Value) {
    fields.insert(name.to_owned(), value);
}

fn definition_of(definition: &mut Value) -> &mut Map<String, Value> {
    definition.as_object_mut().expect("a definition is a map")
}

/// JSON pointers to all blocks.
fn paths(list: &Value, at: &str, found: &mut Vec<String>) {
    for (number, block) in list.as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}/{number}");
        for group in ["parallel", "steps"] {
            if let Some(inner) = block.get(group) {
                paths(inner, &format!("{at}/{group}"), found);
            }
        }
        found.push(at);
    }
}

/// As a person would write it: blocks with indentation, small things on one line.
fn yaml(definition: &Value) -> String {
    let mut text = String::new();
    block_style(definition, 0, &mut text);
    text
}

fn block_style(value: &Value, indent: usize, text: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_block =
                    matches!(value, Value::Array(items) if items.iter().any(Value::is_object));
                if is_block && ["steps", "parallel"].contains(&name.as_str()) {
                    writeln!(text, "{pad}{name}:").unwrap();
                    block_style(value, indent + 2, text);
                } else {
                    writeln!(text, "{pad}{name}: {value}").unwrap();
                }
            }
        }
        Value::Array(blocks) => {
            for block in blocks {
                let mut inner = String::new();
                block_style(block, indent + 2, &mut inner);
                let inner = inner.trim_start();
                write!(text, "{pad}- {inner}").unwrap();
            }
        }
        other => writeln!(text, "{pad}{other}").unwrap(),
    }
}
