//! Blocks of the tree: which kind one is, the groups, and the modifiers `when` and `pivot`.
//!
//! A new kind of block is an entry in [`KINDS`] and an arm in [`Draft::bare`].

use super::bounds::{BLOCKS_MAX, DEPTH_MAX};
use super::draft::{Draft, Place};
use super::fields::{Fields, wrong_type};
use super::grammar::{KINDS, Kind};
use super::names::check_name;
use super::problem::{Position, Rule, did_you_mean};
use super::tree::{BlockId, BlockKind, Definition};
use super::yaml::{Content, Yaml};

/// Where a block stands in the tree.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// The block around it.
    pub parent: BlockId,
    /// Its place among the parent's children.
    pub position: usize,
    /// Blocks around it.
    pub depth: usize,
    /// `for_each` blocks around it.
    pub loops: usize,
}

impl Spot {
    pub fn inside(self, parent: BlockId, position: usize) -> Self {
        Self {
            parent,
            position,
            depth: self.depth + 1,
            ..self
        }
    }
}

impl Draft<'_> {
    /// The blocks of a list, as children of `spot.parent`.
    pub fn blocks(&mut self, yaml: &Yaml, name: &str, spot: Spot) -> Vec<BlockId> {
        let Content::List(items) = &yaml.content else {
            wrong_type(yaml, name, "a list of blocks", &mut self.findings);
            return Vec::new();
        };
        if items.is_empty() {
            self.findings.add(
                yaml.at,
                Rule::MissingField,
                format!("`{name}` is empty; give it at least one block"),
            );
        }
        let mut children = Vec::new();
        for item in items {
            let spot = Spot {
                position: children.len(),
                ..spot
            };
            children.extend(self.read_block(item, spot));
        }
        children
    }

    /// One block, with its loop around it; `None` if it is none.
    fn read_block(&mut self, yaml: &Yaml, spot: Spot) -> Option<BlockId> {
        let kind = self.kind(yaml)?;
        if spot.depth > DEPTH_MAX {
            self.findings.add(
                yaml.at,
                Rule::TooLarge,
                format!("blocks are nested deeper than {DEPTH_MAX}; put inner ones into a saga of their own"),
            );
            return None;
        }
        let fields = Fields::of(yaml, kind.what, &kind.fields(), &mut self.findings)?;
        let added = self.repeated(&fields, kind, spot);
        if added.is_none() && self.blocks.len() >= BLOCKS_MAX && !self.is_full {
            self.is_full = true;
            self.findings.add(
                yaml.at,
                Rule::TooLarge,
                format!("there are more than {BLOCKS_MAX} blocks, and the rest was not read; split the saga"),
            );
        }
        self.pivot(&fields, added, spot);
        added
    }

    /// Which kind of block it is.
    fn kind(&mut self, yaml: &Yaml) -> Option<&'static Kind> {
        let Content::Map(entries) = &yaml.content else {
            wrong_type(
                yaml,
                "a block",
                "a map such as `step: …`",
                &mut self.findings,
            );
            return None;
        };
        let mut kinds = KINDS
            .iter()
            .filter(|kind| entries.iter().any(|entry| entry.key == kind.field));
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Some(kind),
            (Some(one), Some(other)) => {
                let (one, other) = (one.field, other.field);
                let message = format!("a block is a `{one}` or a `{other}`, not both");
                self.findings.add(yaml.at, Rule::Contradiction, message);
                None
            }
            (None, _) => {
                let names = KINDS.iter().map(|kind| kind.field);
                let hint: String = entries
                    .iter()
                    .map(|entry| did_you_mean(&entry.key, names.clone()))
                    .find(|hint| !hint.is_empty())
                    .unwrap_or_default();
                let names: Vec<&str> = names.collect();
                let message = format!("a block has one of the fields {}{hint}", names.join(", "));
                self.findings.add(yaml.at, Rule::MissingField, message);
                None
            }
        }
    }

    /// A block without a loop around it.
    pub fn bare(&mut self, fields: &Fields<'_>, kind: &Kind, spot: Spot) -> Option<BlockId> {
        match kind.field {
            "parallel" => self.group(fields, "parallel", spot, BlockKind::Parallel),
            "steps" => self.group(fields, "steps", spot, BlockKind::Sequence),
            "wait" => self.wait(fields, spot),
            "sleep" => self.sleep(fields, spot),
            "saga" => self.sub_saga(fields, spot),
            _ => self.step(fields, spot),
        }
    }

    fn group(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        spot: Spot,
        kind: fn(Vec<BlockId>) -> BlockKind,
    ) -> Option<BlockId> {
        let id = self.add(fields, spot, kind(Vec::new()))?;
        let list = fields.get(name)?;
        let children = self.blocks(list, name, spot.inside(id, 0));
        self.blocks[usize::from(id.0)].kind = kind(children);
        Some(id)
    }

    /// Adds a block and reads its `when`.
    pub fn add(&mut self, fields: &Fields<'_>, spot: Spot, kind: BlockKind) -> Option<BlockId> {
        let id = self.add_node(Some(spot.parent), spot.position, fields.at, kind)?;
        self.mark(id, fields);
        if let Some(when) = fields.get("when") {
            let when = self.expression(when, "when", Place::When(id));
            self.blocks[usize::from(id.0)].when = when;
        }
        Some(id)
    }

    /// The name of a block that others may refer to, which stands in the field of its kind.
    pub fn name(&mut self, fields: &Fields<'_>, kind: &str, id: BlockId) -> String {
        let Some(name) = fields.text(kind, &mut self.findings) else {
            return String::new();
        };
        let at = fields.get(kind).map_or(fields.at, |yaml| yaml.at);
        if let Err(why) = check_name(name) {
            self.findings.add(at, Rule::BadName, why);
        } else if let Some(other) = self.steps.get(name) {
            let line = self.block(*other).line;
            self.findings.add(
                at,
                Rule::DuplicateStep,
                format!("the name `{name}` is taken in line {line}; choose another name"),
            );
        } else {
            self.steps.insert(name.to_owned(), id);
        }
        name.to_owned()
    }

    /// `pivot: true`: on one block of the root sequence.
    fn pivot(&mut self, fields: &Fields<'_>, added: Option<BlockId>, spot: Spot) {
        let at = fields.entry("pivot").map_or(fields.at, |entry| entry.at);
        if fields.flag("pivot", &mut self.findings) != Some(true) {
            return;
        }
        let Some(id) = added else { return };
        if let Some(why) = self.why_no_pivot(id, spot) {
            self.findings.add(at, Rule::BadPivot, why);
            return;
        }
        self.pivot = Some(id);
        self.blocks[usize::from(id.0)].pivot = true;
    }

    fn why_no_pivot(&self, id: BlockId, spot: Spot) -> Option<String> {
        if spot.parent != Definition::ROOT {
            let why = "the point of no return is one for the whole saga, so it can't stand inside another block; put `pivot: true` on the block of the root sequence that this one is in";
            return Some(why.to_owned());
        }
        if let Some(other) = self.pivot {
            let line = self.block(other).line;
            return Some(format!(
                "the block in line {line} is the pivot already; keep one of them"
            ));
        }
        if self.is_confirm_only(id) {
            let why = "a step with only a `confirm` runs behind the pivot, so it can't be it; put `pivot: true` on the block before it";
            return Some(why.to_owned());
        }
        None
    }

    /// Whether it is a step that only has a `confirm`, which runs behind the pivot.
    pub fn is_confirm_only(&self, id: BlockId) -> bool {
        matches!(&self.block(id).kind, BlockKind::Step(step) if step.forward.is_none() && step.confirm.is_some())
    }

    /// Notes that a block can't stand behind the pivot, and why.
    pub fn refuse_behind_pivot(&mut self, at: Position, why: &str, fix: &str) {
        let line = self.pivot.map_or(0, |id| self.block(id).line);
        let message =
            format!("{why}, and behind the pivot (line {line}) there is no way back; {fix}");
        self.findings.add(at, Rule::AfterPivot, message);
    }
}
