//! YAML values with expressions in their strings: a step's `with`, the key, the output.
//!
//! A string that is exactly one `${ … }` keeps the expression's type; one with text around it
//! becomes text; `$${` stands for a literal `${`. What has no expression in it is kept as a
//! ready-made value.

use serde_json::{Map, Value};

use super::expression::{EvaluationError, EvaluationScope, Expression};
use crate::limits::{COMPUTED, Excess, Extent, Limit};
use crate::numeral;

/// A YAML value with expressions in its strings.
#[derive(Debug)]
pub struct Template(pub(super) Shape);

#[derive(Debug)]
pub(super) enum Shape {
    Constant(Value),
    Expression(Expression),
    Text(Vec<Piece>),
    List(Vec<Shape>),
    Map(Vec<(String, Shape)>),
}

#[derive(Debug)]
pub(super) enum Piece {
    Literal(String),
    Expression(Expression),
}

impl Template {
    /// Renders to a JSON value; a string that is one expression keeps the expression's type.
    pub fn render(&self, scope: &EvaluationScope<'_>) -> Result<Value, EvaluationError> {
        self.render_within(scope, &COMPUTED)
    }

    /// Renders to a JSON value that is no larger than `limit`. Nothing much larger is ever built.
    pub fn render_within(
        &self,
        scope: &EvaluationScope<'_>,
        limit: &Limit,
    ) -> Result<Value, EvaluationError> {
        let mut room = Room {
            limit,
            used: Extent::default(),
            level: 0,
        };
        let value = self.0.render(scope, &mut room)?;
        // Brackets and commas around what was measured piece by piece.
        room.check().map_err(|excess| EvaluationError {
            expression: self.written(),
            why: too_large(excess),
        })?;
        Ok(value)
    }

    /// How large it gets within `limit`, as far as that can be known: nothing, if it can't be
    /// rendered on this data.
    pub fn reckon(&self, scope: &EvaluationScope<'_>, limit: &Limit) -> Result<Extent, Excess> {
        let mut room = Room {
            limit,
            used: Extent::default(),
            level: 0,
        };
        let rendered = self.0.render(scope, &mut room);
        room.check()?;
        Ok(rendered.map_or(Extent::default(), |_| room.used))
    }

    /// Its text if it is one string, for people; of one expression, what stands between the braces.
    pub fn written(&self) -> String {
        match &self.0 {
            Shape::Expression(expression) => expression.source.clone(),
            Shape::Text(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Literal(text) => text.clone(),
                    Piece::Expression(expression) => format!("${{ {} }}", expression.source),
                })
                .collect(),
            Shape::Constant(value) => value.to_string(),
            Shape::List(_) | Shape::Map(_) => String::new(),
        }
    }
}

impl Shape {
    /// The expressions in it.
    pub fn expressions(&self) -> Vec<&Expression> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::Expression(expression) => vec![expression],
            Self::Text(pieces) => pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Expression(expression) => Some(expression),
                    Piece::Literal(_) => None,
                })
                .collect(),
            Self::List(items) => items.iter().flat_map(Self::expressions).collect(),
            Self::Map(fields) => fields
                .iter()
                .flat_map(|(_, shape)| shape.expressions())
                .collect(),
        }
    }

    fn render(
        &self,
        scope: &EvaluationScope<'_>,
        room: &mut Room<'_>,
    ) -> Result<Value, EvaluationError> {
        match self {
            Self::Constant(value) => {
                room.take(Extent::of(value));
                Ok(value.clone())
            }
            Self::Expression(expression) => {
                let value = expression.evaluate(scope)?;
                room.take(Extent::of(&value));
                room.check_after(expression)?;
                Ok(value)
            }
            Self::Text(pieces) => {
                let before = room.used;
                let mut text = String::new();
                for piece in pieces {
                    piece.append(&mut text, scope, room)?;
                }
                let value = Value::String(text);
                room.used = before;
                room.take(Extent::of(&value));
                Ok(value)
            }
            Self::List(items) => {
                room.enter(items.len());
                let items = items.iter().map(|item| item.render(scope, room)).collect();
                room.level -= 1;
                items
            }
            Self::Map(fields) => {
                room.enter(fields.len());
                let mut object = Map::with_capacity(fields.len());
                for (name, value) in fields {
                    room.used.bytes += Extent::bytes_of_name(name);
                    object.insert(name.clone(), value.render(scope, room)?);
                }
                room.level -= 1;
                Ok(Value::Object(object))
            }
        }
    }
}

/// How much of a limit a value in the making has used.
struct Room<'l> {
    limit: &'l Limit,
    used: Extent,
    /// Lists and objects around what is rendered now.
    level: usize,
}

impl Room<'_> {
    fn enter(&mut self, items: usize) {
        self.take(Extent::of_brackets(items));
        self.level += 1;
    }

    fn take(&mut self, part: Extent) {
        let depth = part.depth + self.level;
        self.used.add(Extent { depth, ..part });
    }

    fn check(&self) -> Result<(), Excess> {
        self.limit.check(self.used)
    }

    fn check_after(&self, expression: &Expression) -> Result<(), EvaluationError> {
        self.check().map_err(|excess| EvaluationError {
            expression: expression.source.clone(),
            why: too_large(excess),
        })
    }
}

fn too_large(excess: Excess) -> String {
    format!("what it is put into gets too large: {excess}")
}

impl Piece {
    fn append(
        &self,
        text: &mut String,
        scope: &EvaluationScope<'_>,
        room: &mut Room<'_>,
    ) -> Result<(), EvaluationError> {
        let expression = match self {
            Self::Literal(literal) => {
                text.push_str(literal);
                return Ok(());
            }
            Self::Expression(expression) => expression,
        };
        let before = text.len();
        match expression.evaluate(scope)? {
            Value::String(value) => text.push_str(&value),
            Value::Bool(value) => text.push_str(if value { "true" } else { "false" }),
            // By value: a text that a key is made of must not depend on who wrote the number.
            Value::Number(number) => text.push_str(&numeral::canonical(&number)),
            other => {
                return Err(EvaluationError {
                    expression: expression.source.clone(),
                    why: format!(
                        "it is {}, which can't be put into text; text, numbers and booleans can",
                        super::expression::kind(&other)
                    ),
                });
            }
        }
        room.used.bytes += text.len() - before;
        room.check_after(expression)
    }
}

/// A piece of a string before its expressions are compiled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    Literal(String),
    /// The text between `${` and `}`.
    Expression(&'t str),
}

/// Splits a string into text and expressions; an error if an expression has no end.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        literal.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            literal.push_str("${");
            rest = after;
        } else if let Some(inside) = rest.strip_prefix("${") {
            let end = end_of_expression(inside)
                .ok_or("a `${` has no `}`; write `$${` for a literal `${`")?;
            if !literal.is_empty() {
                tokens.push(Token::Literal(std::mem::take(&mut literal)));
            }
            tokens.push(Token::Expression(&inside[..end]));
            rest = &inside[end + 1..];
        } else {
            literal.push('$');
            rest = &rest[1..];
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() || tokens.is_empty() {
        tokens.push(Token::Literal(literal));
    }
    Ok(tokens)
}

/// Where the `}` stands that ends an expression: outside its strings, its own braces closed.
fn end_of_expression(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            b'"' | b'\'' => {
                at = end_of_string(bytes, at)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The place after the CEL string literal that starts at `start`: `"…"`, `"""…"""`, `r"…"`.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let triple = [quote; 3];
    let fence: &[u8] = if bytes[start..].starts_with(&triple) {
        &triple
    } else {
        &triple[..1]
    };
    let raw = start > 0
        && matches!(bytes[start - 1], b'r' | b'R')
        && !(start > 1
            && bytes[start - 2].is_ascii_alphanumeric()
            && !matches!(bytes[start - 2], b'b' | b'B'));
    let mut at = start + fence.len();
    while at < bytes.len() {
        if bytes[at] == b'\\' && !raw {
            at += 2;
        } else if bytes[at..].starts_with(fence) {
            return Some(at + fence.len());
        } else {
            at += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_split_into_text_and_expressions() {
        let literal = |text: &str| Token::Literal(text.to_owned());
        let cases: Vec<(&str, Vec<Token<'_>>)> = vec![
            ("", vec![literal("")]),
            ("plain $5", vec![literal("plain $5")]),
            ("${ a }", vec![Token::Expression(" a ")]),
            (
                "x ${a}${b} y",
                vec![
                    literal("x "),
                    Token::Expression("a"),
                    Token::Expression("b"),
                    literal(" y"),
                ],
            ),
            ("$${ a }", vec![literal("${ a }")]),
            ("$$${a}", vec![literal("$${a}")]),
            (
                r#"${ {"a": "}"}["a"] }"#,
                vec![Token::Expression(r#" {"a": "}"}["a"] "#)],
            ),
            (
                r#"${ '\'}' + r"\" }"#,
                vec![Token::Expression(r#" '\'}' + r"\" "#)],
            ),
            (
                "${ '''it's }''' }",
                vec![Token::Expression(" '''it's }''' ")],
            ),
            (
                "über ${ä} €",
                vec![literal("über "), Token::Expression("ä"), literal(" €")],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(tokens(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn an_expression_without_end_is_an_error() {
        for text in ["${", "${ a", "a ${ {} ", "${ '} ", "${ '\\"] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_put_together_is_bounded_as_a_whole() {
        use crate::limits::{BODY, COMPUTED};
        use serde_json::json;
        let render = |with: &str, input: &Value| {
            let yaml = format!(
                "saga: s\nversion: 1\nkey: ${{ input.id }}\nsteps:\n  - {{ step: a, with: {with}, reserve: a.b, confirm: a.c, compensate: a.d }}"
            );
            let definition = crate::definition::parse(&yaml, "s.yaml").unwrap();
            let scope = EvaluationScope {
                input,
                steps: &(),
                item: None,
                given: None,
                saga: None,
            };
            let with = definition.step("a").unwrap().with.as_ref().unwrap();
            with.render(&scope).map_err(|error| error.why)
        };
        let text = json!({ "id": "k", "x": "x".repeat(BODY.bytes - 40) });
        let several = |times: usize| {
            let fields = (0..times).map(|field| format!("f{field}: '${{ input.x }}'"));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        };
        assert!(render(&several(4), &text).is_ok());
        let whole = render(&several(4), &text).unwrap();
        assert!(COMPUTED.check_value(&whole).is_ok());
        assert!(render(&several(5), &text).unwrap_err().contains("bytes"));
        let glued = format!("'{}'", "${ input.x }".repeat(5));
        assert!(render(&glued, &text).unwrap_err().contains("bytes"));
        let nested = |levels: usize| {
            let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            json!({ "id": "k", "x": serde_json::from_str::<Value>(&text).unwrap() })
        };
        let wrapped = format!("{}'${{ input.x }}'{}", "{a: ".repeat(40), "}".repeat(40));
        assert!(render(&wrapped, &nested(COMPUTED.depth - 40)).is_ok());
        let why = render(&wrapped, &nested(COMPUTED.depth - 39)).unwrap_err();
        assert!(why.contains("deeper"), "{why}");
    }
}
