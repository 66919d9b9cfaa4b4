//! The tree while it is being built: blocks, names and where each expression stands.
//!
//! The walk over the file adds to a draft and goes on after every problem, putting something
//! harmless where a part could not be read, so that one slip does not hide the others. A draft with
//! problems never becomes a definition.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bounds::{BLOCKS_MAX, STEP_TIMEOUT_DEFAULT, SUSPEND_AFTER_DEFAULT};
use super::expression::Expression;
use super::expression::references::References;
use super::fields::Fields;
use super::kinds::Retry;
use super::problem::{Findings, Position, Rule};
use super::template::{Piece, Shape, Template, Token, tokens};
use super::tree::{Block, BlockId, BlockKind};
use super::yaml::{Content, Yaml};

/// Longest expressions that have to be compiled, all of a file together: compiling costs about a
/// microsecond a byte, and a file is to be judged within a second.
const EXPRESSIONS_BYTES_MAX: usize = 128 * 1024;

/// A definition in the making.
pub(super) struct Draft<'a> {
    pub findings: Findings<'a>,
    pub blocks: Vec<Block>,
    pub steps: BTreeMap<String, BlockId>,
    pub uses: Vec<Use>,
    /// Where each node stands in the file.
    pub marks: Vec<Marks>,
    /// The sagas that `saga` blocks run, and where they are named.
    pub runs: Vec<(String, Position)>,
    /// The block that is the pivot, once it has been read: what follows it in the file stands
    /// behind the point of no return.
    pub pivot: Option<BlockId>,
    /// The `timeout` of the whole, if it has one.
    pub saga_timeout: Option<Duration>,
    /// Whether it has one, be it unreadable.
    pub saga_ends: bool,
    /// The definition's name.
    pub saga_name: String,
    /// What steps do that do not say it themselves.
    pub defaults: Defaults,
    /// Bytes of the expressions that were compiled.
    expression_bytes: usize,
    /// Whether it was noted that there are too many blocks.
    pub is_full: bool,
}

/// Where a block and its fields stand.
pub(super) struct Marks {
    pub at: Position,
    /// The fields' values.
    fields: BTreeMap<String, Position>,
}

/// An expression and where it stands.
pub(super) struct Use {
    pub place: Place,
    pub at: Position,
    pub references: References,
}

/// Where an expression stands, which decides what it may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The saga's key.
    Key,
    /// What the saga is searched by.
    Label,
    /// A step's payload.
    With(BlockId),
    /// Whether a block runs.
    When(BlockId),
    /// The list of a `for_each`.
    ForEach(BlockId),
    /// Whether a loop ends, asked after each item.
    Until(BlockId),
    /// Whether a signal is the one that a block waits for.
    Match(BlockId),
    /// What a domain event means, for a start or a wait.
    Event,
    /// The input of a saga that the clock starts.
    Tick,
    /// The saga's output.
    Output,
}

/// What steps do that do not say it themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub timeout: Duration,
    pub retry: Retry,
    pub suspend_after: u32,
    /// Whether answers must say their outcome.
    pub outcome_required: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            timeout: STEP_TIMEOUT_DEFAULT,
            retry: Retry::default(),
            suspend_after: SUSPEND_AFTER_DEFAULT,
            outcome_required: false,
        }
    }
}

impl Place {
    /// The block whose expression it is.
    pub fn block(self) -> Option<BlockId> {
        match self {
            Self::With(id)
            | Self::When(id)
            | Self::ForEach(id)
            | Self::Until(id)
            | Self::Match(id) => Some(id),
            Self::Key | Self::Label | Self::Output | Self::Event | Self::Tick => None,
        }
    }

    /// The name that only has a meaning here: `signal`, `event` or `tick`.
    pub fn given(self) -> Option<&'static str> {
        match self {
            Self::Match(_) => Some("signal"),
            Self::Event => Some("event"),
            Self::Tick => Some("tick"),
            _ => None,
        }
    }
}

impl<'a> Draft<'a> {
    pub fn new(findings: Findings<'a>) -> Self {
        Self {
            findings,
            blocks: Vec::new(),
            steps: BTreeMap::new(),
            uses: Vec::new(),
            marks: Vec::new(),
            runs: Vec::new(),
            pivot: None,
            saga_timeout: None,
            saga_ends: false,
            saga_name: String::new(),
            defaults: Defaults::default(),
            expression_bytes: 0,
            is_full: false,
        }
    }

    /// Adds a block; `None` if there are too many.
    pub fn add_node(
        &mut self,
        parent: Option<BlockId>,
        position: usize,
        at: Position,
        kind: BlockKind,
    ) -> Option<BlockId> {
        let id = u16::try_from(self.blocks.len())
            .ok()
            .filter(|id| usize::from(*id) < BLOCKS_MAX)
            .map(BlockId)?;
        self.blocks.push(Block {
            pivot: false,
            id,
            parent,
            position,
            when: None,
            line: at.line,
            kind,
        });
        self.marks.push(Marks {
            at,
            fields: BTreeMap::new(),
        });
        Some(id)
    }

    /// Remembers where the fields of a block stand.
    pub fn mark(&mut self, id: BlockId, fields: &Fields<'_>) {
        self.marks[usize::from(id.0)].fields = fields
            .places()
            .map(|(name, at)| (name.to_owned(), at))
            .collect();
    }

    /// Where a block's field stands, or else the block.
    pub fn place(&self, id: BlockId, field: &str) -> Position {
        let marks = &self.marks[usize::from(id.0)];
        marks.fields.get(field).copied().unwrap_or(marks.at)
    }

    /// Whether the block says this itself.
    pub fn says(&self, id: BlockId, field: &str) -> bool {
        self.marks[usize::from(id.0)].fields.contains_key(field)
    }

    /// A block.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[usize::from(id.0)]
    }

    /// Whether it runs behind the pivot; while the file is read, also for the block being read.
    pub fn is_behind_pivot(&self, id: BlockId) -> bool {
        let Some(pivot) = self.pivot else {
            return false;
        };
        // Numbers are in preorder: what is inside the pivot block is older than what follows it.
        let inside = |id: BlockId| {
            std::iter::successors(Some(id), |id| self.block(*id).parent).any(|id| id == pivot)
        };
        id > pivot && !inside(id)
    }

    /// A value with expressions in its strings.
    pub fn template(&mut self, yaml: &Yaml, place: Place) -> Template {
        Template(self.shape(yaml, place))
    }

    fn shape(&mut self, yaml: &Yaml, place: Place) -> Shape {
        let shape = match &yaml.content {
            Content::Text(text) => self.text(yaml, text, place),
            Content::List(items) => {
                Shape::List(items.iter().map(|item| self.shape(item, place)).collect())
            }
            Content::Map(entries) => Shape::Map(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), self.shape(&entry.value, place)))
                    .collect(),
            ),
            _ => Shape::Constant(yaml.to_json()),
        };
        constant(shape)
    }

    fn text(&mut self, yaml: &Yaml, text: &str, place: Place) -> Shape {
        let tokens = match tokens(text) {
            Ok(tokens) => tokens,
            Err(why) => {
                self.findings.add(yaml.at, Rule::BadExpression, why);
                return Shape::Constant(yaml.to_json());
            }
        };
        if let [Token::Expression(source)] = tokens.as_slice() {
            return self
                .compile(yaml, source, place)
                .map_or_else(|| Shape::Constant(yaml.to_json()), Shape::Expression);
        }
        let pieces = tokens
            .into_iter()
            .filter_map(|token| match token {
                Token::Literal(literal) => Some(Piece::Literal(literal)),
                Token::Expression(source) => {
                    self.compile(yaml, source, place).map(Piece::Expression)
                }
            })
            .collect();
        Shape::Text(pieces)
    }

    /// A field that is one expression and nothing else.
    pub fn expression(&mut self, yaml: &Yaml, name: &str, place: Place) -> Option<Expression> {
        let tokens = yaml.text().map(tokens);
        if let Some(Ok([Token::Expression(source)])) = tokens.as_ref().map(|t| t.as_deref()) {
            return self.compile(yaml, source, place);
        }
        let why = match tokens {
            Some(Err(why)) => why,
            _ => format!(
                "`{name}` must be one expression, as in `{name}: ${{ input.items }}`, not {}",
                yaml.kind()
            ),
        };
        self.findings.add(yaml.at, Rule::BadExpression, why);
        None
    }

    fn compile(&mut self, yaml: &Yaml, source: &str, place: Place) -> Option<Expression> {
        let at = self.findings.locate(yaml.at, source.trim());
        if !Expression::is_cheap(source) {
            let before = self.expression_bytes;
            self.expression_bytes = before.saturating_add(source.len());
            if self.expression_bytes > EXPRESSIONS_BYTES_MAX {
                if before <= EXPRESSIONS_BYTES_MAX {
                    let message = format!(
                        "the expressions are longer than {EXPRESSIONS_BYTES_MAX} bytes together, and the rest was not read; split the saga"
                    );
                    self.findings.add(at, Rule::TooLarge, message);
                }
                return None;
            }
        }
        match Expression::compile(source) {
            Ok(expression) => {
                self.uses.push(Use {
                    place,
                    at,
                    references: expression.references().clone(),
                });
                Some(expression)
            }
            Err(why) => {
                let shown = super::problem::shortened(source.trim(), 60);
                self.findings.add(
                    at,
                    Rule::BadExpression,
                    format!("bad expression `{shown}`: {why}"),
                );
                None
            }
        }
    }
}

/// Folds a shape without expressions into a value.
fn constant(shape: Shape) -> Shape {
    let is_constant = |shape: &Shape| matches!(shape, Shape::Constant(_));
    let value = |shape| match shape {
        Shape::Constant(value) => value,
        _ => serde_json::Value::Null,
    };
    match shape {
        Shape::Text(pieces) => match <[Piece; 1]>::try_from(pieces) {
            Ok([Piece::Literal(text)]) => Shape::Constant(text.into()),
            Ok([piece]) => Shape::Text(vec![piece]),
            Err(pieces) => Shape::Text(pieces),
        },
        Shape::List(items) if items.iter().all(is_constant) => {
            Shape::Constant(items.into_iter().map(value).collect())
        }
        Shape::Map(fields) if fields.iter().all(|(_, shape)| is_constant(shape)) => {
            Shape::Constant(
                fields
                    .into_iter()
                    .map(|(name, shape)| (name, value(shape)))
                    .collect(),
            )
        }
        other => other,
    }
}
