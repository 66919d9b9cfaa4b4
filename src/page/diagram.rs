//! A definition as a picture: its blocks from the top to the bottom, what runs at once side by side, and on
//! each where the saga stands.
//!
//! Drawn here, from the tree that the API gives, as SVG with classes and attributes alone: the policy of the page
//! allows no style inside, and the stylesheet gives the colours of light and dark.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use askama::filters::HtmlSafe;
use serde::Deserialize;

use super::text::Text;

const STEP_WIDTH: u32 = 208;
const STEP_HEIGHT: u32 = 62;
/// Room between blocks that follow each other: an arrow.
const DOWN: u32 = 24;
/// Room between blocks beside each other, and around those inside another one.
const BESIDE: u32 = 16;
/// Height of the words above what is inside a block.
const TITLE: u32 = 22;
const PIVOT_HEIGHT: u32 = 18;
/// Most characters in a line of a box.
const LINE_CHARS: usize = 27;
/// Width of a character of a frame's words, at most.
const CHAR_WIDTH: u32 = 7;
/// Deepest tree that is drawn; definitions are not as deep.
const DEPTH_MAX: usize = 64;

/// A block, as the API gives it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Node {
    kind: String,
    #[serde(default)]
    path: Text,
    #[serde(default)]
    label: Text,
    #[serde(default)]
    when: Text,
    #[serde(default)]
    saga: Option<Text>,
    #[serde(default)]
    children: Vec<Node>,
}

/// How many instances of a step are at each stage, by its path without indices.
pub(super) type Stages = BTreeMap<Text, BTreeMap<Text, u64>>;

/// Where a saga is stuck, and how: `suspended` or `failing`.
pub(super) struct Trouble {
    pub(super) path: Text,
    pub(super) class: &'static str,
}

/// Stages and their colours; what is worth looking at most comes first.
const WORST_FIRST: [(&str, &str); 13] = [
    ("undelivered", "failed"),
    ("unknown", "failed"),
    ("rejected", "failed"),
    ("compensating", "undoing"),
    ("reserving", "doing"),
    ("confirming", "doing"),
    ("waiting", "doing"),
    ("compensated", "undone"),
    ("reserved", "done"),
    ("confirmed", "done"),
    ("done", "done"),
    ("to_come", "to-come"),
    ("not_run", "to-come"),
];

/// The colour of a stage.
pub(super) fn class_of_stage(stage: &str) -> &'static str {
    let known = WORST_FIRST.iter().find(|(known, _)| *known == stage);
    known.map_or("to-come", |(_, class)| *class)
}

/// A picture.
pub(super) struct Diagram {
    svg: String,
}

impl HtmlSafe for Diagram {}

impl fmt::Display for Diagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.svg)
    }
}

impl Diagram {
    /// Draws a tree; `link` is the address of a step's instances, if there are any to show.
    pub(super) fn of(
        tree: &Node,
        stages: &Stages,
        trouble: Option<&Trouble>,
        link: &dyn Fn(&Text) -> Option<String>,
    ) -> Self {
        let mut drawing = Drawing {
            stages,
            trouble,
            link,
            svg: String::new(),
        };
        let (width, height) = size(tree, 0);
        drawing.node(tree, BESIDE, BESIDE, 0);
        let (width, height) = (width + 2 * BESIDE, height + 2 * BESIDE);
        let body = drawing.svg;
        Self {
            svg: format!(
                "<svg class=\"diagram\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"group\" aria-label=\"Diagram of the definition\">{body}</svg>"
            ),
        }
    }
}

/// Width and height of a block with all that is in it.
fn size(node: &Node, depth: usize) -> (u32, u32) {
    if depth > DEPTH_MAX {
        return (0, 0);
    }
    let sizes = || node.children.iter().map(|child| size(child, depth + 1));
    let gaps = |room: u32| room * u32::try_from(node.children.len().saturating_sub(1)).unwrap_or(0);
    match node.kind.as_str() {
        "sequence" if depth == 0 => {
            let width = sizes().map(|(width, _)| width).max().unwrap_or(0);
            let height: u32 = sizes().map(|(_, height)| height).sum();
            (width, height + gaps(DOWN))
        }
        "sequence" | "for_each" => {
            let width = sizes().map(|(width, _)| width).max().unwrap_or(0);
            let height: u32 = sizes().map(|(_, height)| height).sum();
            let width = (width + 2 * BESIDE).max(words_width(node));
            (width, height + gaps(DOWN) + TITLE + BESIDE)
        }
        "parallel" => {
            let width: u32 = sizes().map(|(width, _)| width).sum();
            let height = sizes().map(|(_, height)| height).max().unwrap_or(0);
            let width = (width + gaps(BESIDE) + 2 * BESIDE).max(words_width(node));
            (width, height + TITLE + BESIDE)
        }
        "pivot" => (STEP_WIDTH, PIVOT_HEIGHT),
        _ => (STEP_WIDTH, STEP_HEIGHT),
    }
}

/// What is said above what is inside a block.
fn words(node: &Node) -> Text {
    if node.when.is_empty() {
        return node.label.cut(2 * LINE_CHARS);
    }
    Text::from(format!("{}, when {}", node.label, node.when)).cut(2 * LINE_CHARS)
}

fn words_width(node: &Node) -> u32 {
    let chars = words(node).as_str().chars().count();
    u32::try_from(chars).unwrap_or(0) * CHAR_WIDTH + 2 * BESIDE
}

struct Drawing<'a> {
    stages: &'a Stages,
    trouble: Option<&'a Trouble>,
    link: &'a dyn Fn(&Text) -> Option<String>,
    svg: String,
}

impl Drawing<'_> {
    // Recursion is bounded by DEPTH_MAX.
    fn node(&mut self, node: &Node, x: u32, y: u32, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        let (width, height) = size(node, depth);
        match node.kind.as_str() {
            "sequence" if depth == 0 => self.column(node, x, y, width, depth),
            "sequence" | "for_each" => {
                self.frame(node, x, y, width, height);
                self.column(node, x, y + TITLE, width, depth);
            }
            "parallel" => {
                self.frame(node, x, y, width, height);
                self.row(node, x, y + TITLE, width, depth);
            }
            "pivot" => self.pivot(x, y),
            _ => self.step(node, x, y),
        }
    }

    fn column(&mut self, node: &Node, x: u32, mut y: u32, width: u32, depth: usize) {
        let middle = x + width / 2;
        for (position, child) in node.children.iter().enumerate() {
            let (wide, high) = size(child, depth + 1);
            if position > 0 {
                let (from, to) = (y - DOWN, y);
                self.arrow(middle, from, to);
            }
            self.node(child, x + (width - wide) / 2, y, depth + 1);
            y += high + DOWN;
        }
    }

    fn row(&mut self, node: &Node, x: u32, y: u32, width: u32, depth: usize) {
        let sizes: Vec<_> = node
            .children
            .iter()
            .map(|child| size(child, depth + 1))
            .collect();
        let gaps = BESIDE * u32::try_from(sizes.len().saturating_sub(1)).unwrap_or(0);
        let wide: u32 = sizes.iter().map(|(wide, _)| wide).sum();
        let mut x = x + (width - wide - gaps) / 2;
        for (child, (wide, _)) in node.children.iter().zip(&sizes) {
            self.node(child, x, y, depth + 1);
            x += wide + BESIDE;
        }
    }

    fn arrow(&mut self, x: u32, from: u32, to: u32) {
        let (shaft, left, right) = (to - 5, x - 4, x + 4);
        self.put(format_args!(
            "<path class=\"arrow\" d=\"M{x} {from}V{shaft}M{left} {shaft}L{x} {to}L{right} {shaft}\"/>"
        ));
    }

    fn frame(&mut self, node: &Node, x: u32, y: u32, width: u32, height: u32) {
        let kind = match node.kind.as_str() {
            "parallel" => "parallel",
            "for_each" => "each",
            _ => "sequence",
        };
        self.put(format_args!(
            "<rect class=\"frame {kind}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>"
        ));
        self.words("title", x + 8, y + 15, &words(node));
    }

    fn pivot(&mut self, x: u32, y: u32) {
        let (middle, to, line) = (x + STEP_WIDTH / 2, x + STEP_WIDTH, y + PIVOT_HEIGHT / 2);
        self.put(format_args!(
            "<g class=\"pivot\"><path d=\"M{x} {line}H{to}\"/><text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">pivot: no way back</text></g>",
            line + 4
        ));
    }

    fn step(&mut self, node: &Node, x: u32, y: u32) {
        let stages = self.stages.get(&node.path);
        let trouble = self.trouble.filter(|trouble| trouble.path == node.path);
        let class = trouble.map(|trouble| trouble.class);
        let class = class.unwrap_or_else(|| stages.map_or("plain", class_of));
        let link = (self.link)(&node.path);
        if let Some(link) = &link {
            self.put(format_args!("<a href=\"{}\">", escaped(link)));
        }
        self.put(format_args!("<g class=\"step {class}\">"));
        let said = format!("{} ({}): {}", node.path, node.kind, node.label);
        self.put(format_args!("<title>{}</title>", escaped(&said)));
        self.put(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{STEP_WIDTH}\" height=\"{STEP_HEIGHT}\" rx=\"6\"/>"
        ));
        let sign = match node.kind.as_str() {
            "wait" => "◷ ",
            "sleep" => "⏾ ",
            "saga" => "⧉ ",
            _ => "",
        };
        let name = Text::from(format!("{sign}{}", node.path)).cut(LINE_CHARS);
        self.words("name", x + 10, y + 19, &name);
        let label = node.saga.as_ref().unwrap_or(&node.label).cut(LINE_CHARS);
        self.words("command", x + 10, y + 36, &label);
        let state = stages.map_or_else(String::new, spoken);
        let state = if state.is_empty() && !node.when.is_empty() {
            format!("when {}", node.when)
        } else {
            state
        };
        self.words("state", x + 10, y + 53, &Text::from(state).cut(LINE_CHARS));
        self.put(format_args!("</g>"));
        if link.is_some() {
            self.put(format_args!("</a>"));
        }
    }

    fn words(&mut self, class: &str, x: u32, y: u32, text: &Text) {
        let text = escaped(text.as_str());
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>"
        ));
    }

    fn put(&mut self, what: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.svg.write_fmt(what);
    }
}

/// The colour of a step: of the stage that is worth looking at most.
fn class_of(stages: &BTreeMap<Text, u64>) -> &'static str {
    let has = |stage: &str| stages.keys().any(|known| known.as_str() == stage);
    let worst = WORST_FIRST.iter().find(|(stage, _)| has(stage));
    worst.map_or("to-come", |(_, class)| *class)
}

/// The stages in words: of one instance its stage, of more how many of each.
fn spoken(stages: &BTreeMap<Text, u64>) -> String {
    let mut all: Vec<_> = stages.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let many = all.iter().map(|(_, count)| **count).sum::<u64>() > 1;
    let words = all.iter().map(|(stage, count)| {
        let stage = stage.as_str().replace('_', " ");
        if many {
            format!("{count} {stage}")
        } else {
            stage
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(tree: serde_json::Value) -> String {
        let tree: Node = serde_json::from_value(tree).unwrap();
        let mut stages = Stages::new();
        let of_stock = BTreeMap::from([("reserving".into(), 2), ("reserved".into(), 9_998)]);
        stages.insert("stock".into(), of_stock);
        let trouble = Trouble {
            path: "approval".into(),
            class: "suspended",
        };
        let link = |path: &Text| Some(format!("?path={path}&x=1"));
        Diagram::of(&tree, &stages, Some(&trouble), &link).to_string()
    }

    #[test]
    fn each_block_is_drawn_once_with_the_state_of_all_its_instances() {
        let svg = drawn(json!({ "kind": "sequence", "children": [
            { "kind": "for_each", "label": "for each of input.items", "children": [
                { "kind": "step", "path": "stock", "label": "inventory.reserve" } ] },
            { "kind": "pivot" },
            { "kind": "parallel", "label": "all at once", "children": [
                { "kind": "saga", "path": "ship", "saga": "shipping", "label": "runs shipping" },
                { "kind": "wait", "path": "approval", "label": "signal approved", "when": "input.big" } ] },
        ] }));
        assert_eq!(svg.matches("<g class=\"step").count(), 3);
        assert!(svg.contains("<g class=\"step suspended\">"), "{svg}");
        assert!(svg.contains("<g class=\"step doing\">"), "{svg}");
        assert!(svg.contains("9998 reserved, 2 reserving"), "{svg}");
        assert!(svg.contains("href=\"?path=stock&amp;x=1\""), "{svg}");
        assert!(svg.contains("pivot: no way back"), "{svg}");
        assert!(svg.contains("when input.big"), "{svg}");
    }

    #[test]
    fn what_a_definition_says_is_text() {
        let svg = drawn(json!({ "kind": "sequence", "children": [
            { "kind": "step", "path": "a", "label": "</text><script>alert(1)</script>" } ] }));
        assert!(!svg.contains("<script"), "{svg}");
        assert!(svg.contains("&lt;script&gt;"), "{svg}");
    }
}
