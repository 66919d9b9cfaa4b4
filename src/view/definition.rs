//! A definition as people look at it: nested blocks, as a diagram draws them.
//!
//! Blocks are named as the language names them; what is a modifier there (`for_each`, `pivot`) is a node of
//! its own here. A block that has a name has it as its path, which is what a saga's steps and events say
//! before the `[` of their indices.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::spoken::spoken;
use crate::definition::{
    Block, BlockId, BlockKind, Call, Definition, Delay, Forward, OnReject, OnTimeout, Step, Wait,
};
use crate::id::Phase;

/// A definition, without its source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DefinitionView {
    /// What computes the business key.
    pub key: String,
    /// What its sagas are searched by.
    pub labels: Vec<LabelView>,
    /// The JSON Schema of its input.
    pub input_schema: Option<Value>,
    /// The root sequence.
    pub tree: NodeView,
}

/// What a definition's sagas are searched by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelView {
    /// Its name.
    pub name: String,
    /// What computes it.
    pub value: String,
    /// Whether it is a point in time.
    pub is_time: bool,
}

/// A block, or what is drawn as one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeView {
    /// `sequence`, `parallel`, `for_each`, `step`, `wait`, `sleep`, `saga`, or `pivot` for the point of no
    /// return.
    pub kind: &'static str,
    /// The block's number, as events of counting blocks give it; none for the pivot.
    pub id: Option<u16>,
    /// Its name, if it has one.
    pub path: Option<String>,
    /// In a few words.
    pub label: String,
    /// On what condition it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The commands of a step, in the order in which they may be sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandView>,
    /// The definition that a `saga` runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The signal that a `wait` waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Line in the source, from 1; none for a pivot that no line says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What is in it.
    pub children: Vec<NodeView>,
}

/// A command of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandView {
    /// Which.
    pub phase: Phase,
    /// Its name.
    pub command: String,
    /// The queue, if it goes to one by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The exchange, if it goes to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// With which routing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
}

impl DefinitionView {
    /// As people see it.
    pub fn new(definition: &Definition) -> Self {
        let labels = definition.labels.iter().map(|label| LabelView {
            name: label.name.clone(),
            value: label.value.written(),
            is_time: label.is_time,
        });
        Self {
            key: definition.key.written(),
            labels: labels.collect(),
            input_schema: definition.input.as_ref().map(|input| input.schema.clone()),
            tree: tree(definition),
        }
    }
}

fn tree(definition: &Definition) -> NodeView {
    let mut root = node(definition, definition.block(Definition::ROOT));
    let BlockKind::Sequence(children) = &definition.block(Definition::ROOT).kind else {
        return root;
    };
    let blocks = || children.iter().map(|id| definition.block(*id));
    let said = blocks().position(|block| block.pivot);
    // Else at the end of the forward pass: steps that only confirm come after it.
    let at = said.or_else(|| blocks().rposition(|block| !only_confirms(block)));
    let pivot = NodeView {
        id: None,
        line: said.map(|at| definition.block(children[at]).line),
        ..named("pivot", None, "the point of no return")
    };
    root.children.insert(at.map_or(0, |at| at + 1), pivot);
    root
}

fn only_confirms(block: &Block) -> bool {
    matches!(&block.kind, BlockKind::Step(step) if step.forward.is_none())
}

// Recursion is bounded by the definition's DEPTH_MAX.
fn node(definition: &Definition, block: &Block) -> NodeView {
    let inside = |children: &[BlockId]| -> Vec<NodeView> {
        let children = children.iter();
        children
            .map(|id| node(definition, definition.block(*id)))
            .collect()
    };
    let bare = match &block.kind {
        BlockKind::Sequence(children) => NodeView {
            children: inside(children),
            ..named("sequence", None, "one after the other")
        },
        BlockKind::Parallel(children) => NodeView {
            children: inside(children),
            ..named("parallel", None, "all at once")
        },
        BlockKind::ForEach {
            items,
            body,
            sequential,
            until,
            ..
        } => {
            let order = if *sequential {
                ", one after the other"
            } else {
                ""
            };
            let until = until.as_ref();
            let until = until.map_or_else(String::new, |it| format!(", until {}", it.source));
            NodeView {
                children: inside(&[*body]),
                ..named(
                    "for_each",
                    None,
                    format!("for each of {}{order}{until}", items.source),
                )
            }
        }
        BlockKind::Step(step) => NodeView {
            commands: commands(step),
            ..named("step", Some(&step.name), step_label(step))
        },
        BlockKind::Wait(wait) => NodeView {
            signal: Some(wait.signal.clone()),
            ..named("wait", Some(&wait.name), wait_label(wait))
        },
        BlockKind::Sleep(sleep) => named("sleep", Some(&sleep.name), delay(&sleep.delay)),
        BlockKind::Saga(block) => NodeView {
            saga: Some(block.saga.clone()),
            ..named(
                "saga",
                Some(&block.name),
                format!("runs {}, within {}", block.saga, spoken(block.timeout)),
            )
        },
    };
    NodeView {
        id: Some(block.id.0),
        when: block.when.as_ref().map(|when| when.source.clone()),
        line: Some(block.line),
        ..bare
    }
}

fn named(kind: &'static str, path: Option<&str>, label: impl Into<String>) -> NodeView {
    NodeView {
        kind,
        id: None,
        path: path.map(str::to_owned),
        label: label.into(),
        when: None,
        commands: Vec::new(),
        saga: None,
        signal: None,
        line: None,
        children: Vec::new(),
    }
}

fn step_label(step: &Step) -> String {
    let first = step.forward.as_ref().map(Forward::call);
    let first = first.or(step.confirm.as_ref());
    let command = first.map_or("", |call| &call.command);
    match step.on_reject {
        OnReject::RollBack => command.to_owned(),
        OnReject::Continue => format!("{command}; goes on if it is rejected"),
    }
}

fn wait_label(wait: &Wait) -> String {
    let matching = wait.matching.as_ref();
    let matching = matching.map_or_else(String::new, |it| format!(" with {}", it.source));
    let Some(timeout) = &wait.timeout else {
        return format!("signal {}{matching}", wait.signal);
    };
    let then = match wait.on_timeout {
        OnTimeout::Continue => "goes on",
        OnTimeout::Fail => "rolls back",
    };
    format!(
        "signal {}{matching}, {then} after {}",
        wait.signal,
        delay(timeout)
    )
}

fn delay(delay: &Delay) -> String {
    match delay {
        Delay::Fixed(Duration::ZERO) => "no time".to_owned(),
        Delay::Fixed(fixed) => spoken(*fixed),
        Delay::Computed(expression) => expression.source.clone(),
    }
}

fn commands(step: &Step) -> Vec<CommandView> {
    let forward = step.forward.as_ref();
    let forward = forward.map(|forward| (forward.phase(), forward.call()));
    let confirm = step.confirm.as_ref().map(|call| (Phase::Confirm, call));
    let compensate = step.compensate.as_ref();
    let compensate = compensate.map(|call| (Phase::Compensate, call));
    let all = [forward, confirm, compensate].into_iter().flatten();
    all.map(|(phase, call)| command(phase, call)).collect()
}

fn command(phase: Phase, call: &Call) -> CommandView {
    let (exchange, key) = (&call.to.exchange, &call.to.routing_key);
    let is_queue = exchange.is_empty();
    CommandView {
        phase,
        command: call.command.clone(),
        queue: is_queue.then(|| key.clone()),
        exchange: (!is_queue).then(|| exchange.clone()),
        routing_key: (!is_queue).then(|| key.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;

    fn outline(node: &NodeView, depth: usize, lines: &mut Vec<String>) {
        let path = node.path.as_deref().unwrap_or("-");
        lines.push(format!(
            "{}{} {path}: {}",
            "  ".repeat(depth),
            node.kind,
            node.label
        ));
        for child in &node.children {
            outline(child, depth + 1, lines);
        }
    }

    fn drawn(source: &str) -> (DefinitionView, Vec<String>) {
        let definition = parse(source, "drawn.yaml").unwrap_or_else(|why| panic!("{why}"));
        let view = DefinitionView::new(&definition);
        let mut lines = Vec::new();
        outline(&view.tree, 0, &mut lines);
        (view, lines)
    }

    #[test]
    fn every_block_is_drawn_where_it_stands() {
        let (view, lines) = drawn(
            "
saga: drawn
version: 1
key: 'k-${ input.id }'
labels: { customer: '${ input.customer }' }
steps:
  - parallel:
      - { step: stock, for_each: '${ input.items }', reserve: inventory.reserve, confirm: inventory.confirm, compensate: inventory.release, when: '${ item > 1 }' }
      - { step: pay, to: { exchange: money, routing_key: in }, action: payments.take, compensate: payments.give, on_reject: continue }
  - { saga: ship, run: shipping, timeout: 1h }
  - { wait: approval, signal: approved, timeout: 3d, on_timeout: fail, pivot: true }
  - { sleep: calm, until: '${ input.until }' }
  - { step: mail, confirm: mailer.send }
",
        );
        assert_eq!(
            lines,
            [
                "sequence -: one after the other",
                "  parallel -: all at once",
                "    for_each -: for each of input.items",
                "      step stock: inventory.reserve",
                "    step pay: payments.take; goes on if it is rejected",
                "  saga ship: runs shipping, within 1h",
                "  wait approval: signal approved, rolls back after 3d",
                "  pivot -: the point of no return",
                "  sleep calm: input.until",
                "  step mail: mailer.send",
            ]
        );
        assert_eq!(view.key, "k-${ input.id }");
        assert_eq!(view.labels[0].value, "input.customer");
        let parallel = &view.tree.children[0];
        let stock = &parallel.children[0].children[0];
        assert_eq!(stock.when.as_deref(), Some("item > 1"));
        let phases = [Phase::Reserve, Phase::Confirm, Phase::Compensate];
        let sent: Vec<_> = stock.commands.iter().map(|it| it.phase).collect();
        assert_eq!(sent, phases);
        assert_eq!(stock.commands[0].queue.as_deref(), Some("inventory"));
        let pay = &parallel.children[1].commands[0];
        assert_eq!(
            (pay.exchange.as_deref(), pay.queue.as_deref()),
            (Some("money"), None)
        );
    }

    #[test]
    fn a_pivot_that_nobody_names_stands_before_what_is_only_confirmed() {
        let (_, lines) = drawn(
            "
saga: drawn
version: 1
key: '${ input.id }'
steps:
  - { step: order, reserve: orders.open, confirm: orders.confirm, compensate: orders.cancel }
  - { step: mail, confirm: mailer.send }
",
        );
        let kinds: Vec<_> = lines[1..].iter().map(|line| line.trim()).collect();
        assert_eq!(
            kinds,
            [
                "step order: orders.open",
                "pivot -: the point of no return",
                "step mail: mailer.send"
            ]
        );
    }
}
