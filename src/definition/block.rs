//! Blocks of the tree: `parallel`, and the modifiers `when` and `for_each` of any block.
//!
//! A new kind of block is a line in [`KINDS`] and a function beside [`Draft::parallel`].

use super::draft::{Draft, Place};
use super::expression::Expression;
use super::fields::{Fields, wrong_type};
use super::problem::{Position, Rule, did_you_mean};
use super::yaml::{Content, Entry, Yaml};
use super::{DEPTH_MAX, NODES_MAX, NodeId, NodeKind};
use crate::id::STEP_INDICES_MAX;

/// The kinds of blocks: a block is a map that has one of these fields.
const KINDS: [&str; 2] = ["step", "parallel"];

/// Fields of a `parallel`.
const PARALLEL_FIELDS: [&str; 3] = ["parallel", "when", "for_each"];

/// Where a block stands in the tree.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// The block around it.
    pub parent: NodeId,
    /// Its place among the parent's children.
    pub position: usize,
    /// Blocks around it.
    pub depth: usize,
    /// `for_each` blocks around it.
    pub loops: usize,
}

impl Spot {
    fn inside(self, parent: NodeId, position: usize) -> Self {
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
    pub fn blocks(&mut self, yaml: &Yaml, name: &str, spot: Spot) -> Vec<NodeId> {
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
            children.extend(self.block(item, spot));
        }
        children
    }

    /// One block, with its `for_each` around it; `None` if it is none.
    fn block(&mut self, yaml: &Yaml, spot: Spot) -> Option<NodeId> {
        let kind = self.kind(yaml)?;
        if spot.depth > DEPTH_MAX {
            self.findings.add(
                yaml.at,
                Rule::TooLarge,
                format!("blocks are nested deeper than {DEPTH_MAX}"),
            );
            return None;
        }
        let for_each = match &yaml.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == "for_each"),
            _ => None,
        };
        let added = match for_each {
            Some(entry) => self.for_each(yaml, kind, entry, spot),
            None => self.bare(yaml, kind, spot),
        };
        if added.is_none() && self.nodes.len() >= NODES_MAX && !self.is_full {
            self.is_full = true;
            self.findings.add(
                yaml.at,
                Rule::TooLarge,
                format!("there are more than {NODES_MAX} blocks; the rest was not read"),
            );
        }
        added
    }

    /// Which kind of block it is.
    fn kind(&mut self, yaml: &Yaml) -> Option<&'static str> {
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
            .into_iter()
            .filter(|kind| entries.iter().any(|entry| entry.key == *kind));
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Some(kind),
            (Some(one), Some(other)) => {
                let message = format!("a block is a `{one}` or a `{other}`, not both");
                self.findings.add(yaml.at, Rule::Contradiction, message);
                None
            }
            (None, _) => {
                let hint: String = entries
                    .iter()
                    .map(|entry| did_you_mean(&entry.key, KINDS))
                    .find(|hint| !hint.is_empty())
                    .unwrap_or_default();
                let message = format!("a block has one of the fields {}{hint}", KINDS.join(", "));
                self.findings.add(yaml.at, Rule::MissingField, message);
                None
            }
        }
    }

    fn for_each(
        &mut self,
        yaml: &Yaml,
        kind: &'static str,
        entry: &Entry,
        spot: Spot,
    ) -> Option<NodeId> {
        if spot.loops >= STEP_INDICES_MAX {
            let message = format!("for_each blocks are nested deeper than {STEP_INDICES_MAX}");
            self.findings.add(entry.at, Rule::TooLarge, message);
            return None;
        }
        // The body's number is not known yet; numbers are given out in order.
        let placeholder = NodeKind::Sequence(Vec::new());
        let id = self.add_node(Some(spot.parent), spot.position, yaml.at, placeholder)?;
        let items = self.expression(&entry.value, "for_each", Place::ForEach(id));
        let inside = Spot {
            loops: spot.loops + 1,
            ..spot.inside(id, 0)
        };
        let body = self.bare(yaml, kind, inside)?;
        self.nodes[usize::from(id.0)].kind = NodeKind::ForEach {
            items: items.unwrap_or_else(Expression::placeholder),
            body,
            sequential: false,
            until: None,
            at_most: super::FOR_EACH_ITEMS_MAX,
        };
        Some(id)
    }

    /// A block without its `for_each`.
    fn bare(&mut self, yaml: &Yaml, kind: &'static str, spot: Spot) -> Option<NodeId> {
        match kind {
            "parallel" => self.parallel(yaml, spot),
            _ => self.step(yaml, spot),
        }
    }

    fn parallel(&mut self, yaml: &Yaml, spot: Spot) -> Option<NodeId> {
        let fields = Fields::of(
            yaml,
            "a parallel block",
            &PARALLEL_FIELDS,
            &mut self.findings,
        )?;
        let id = self.add(&fields, spot, NodeKind::Parallel(Vec::new()))?;
        let list = fields.get("parallel")?;
        let children = self.blocks(list, "parallel", spot.inside(id, 0));
        self.nodes[usize::from(id.0)].kind = NodeKind::Parallel(children);
        Some(id)
    }

    /// Adds a block and reads its `when`.
    pub fn add(&mut self, fields: &Fields<'_>, spot: Spot, kind: NodeKind) -> Option<NodeId> {
        let at: Position = fields.at;
        let id = self.add_node(Some(spot.parent), spot.position, at, kind)?;
        if let Some(when) = fields.get("when") {
            let when = self.expression(when, "when", Place::When(id));
            self.nodes[usize::from(id.0)].when = when;
        }
        Some(id)
    }
}
