//! Loops: the modifiers `for_each`, `sequential`, `until` and `at_most` of any block.
//!
//! Every loop ends: it goes over a list or counts to a number, and never makes more than
//! [`FOR_EACH_ITEMS_MAX`] items. Without `for_each`, `until` and `at_most` repeat a block.

use super::block::Spot;
use super::bounds::FOR_EACH_ITEMS_MAX;
use super::draft::{Draft, Place};
use super::expression::Expression;
use super::fields::{Fields, wrong_type};
use super::grammar::Kind;
use super::problem::Rule;
use super::tree::{BlockId, BlockKind};
use super::yaml::{Content, Yaml};
use crate::id::STEP_INDICES_MAX;
use crate::numeral;

/// Largest `at_most`, as a field's number.
#[allow(clippy::cast_possible_truncation)] // 10,000
const AT_MOST_MAX: u32 = FOR_EACH_ITEMS_MAX as u32;

/// What a loop goes over.
struct Items {
    expression: Expression,
    /// How many there are, if that is written down.
    count: Option<usize>,
}

impl Draft<'_> {
    /// A block with the loop around it, if it has one.
    pub fn repeated(&mut self, fields: &Fields<'_>, kind: &Kind, spot: Spot) -> Option<BlockId> {
        let until = fields.entry("until").filter(|_| kind.until_ends_loop());
        let for_each = fields.entry("for_each");
        let Some(entry) = for_each.or(until) else {
            self.refuse_without_loop(fields);
            return self.bare(fields, kind, spot);
        };
        if spot.loops >= STEP_INDICES_MAX {
            let message = format!(
                "for_each blocks are nested deeper than {STEP_INDICES_MAX}; put the inner ones into a saga of their own"
            );
            self.findings.add(entry.at, Rule::TooLarge, message);
            return None;
        }
        // The body's number is not known yet; numbers are given out in order.
        let placeholder = BlockKind::Sequence(Vec::new());
        let id = self.add_node(Some(spot.parent), spot.position, fields.at, placeholder)?;
        self.mark(id, fields);
        let given_at_most = fields.whole("at_most", 1..=AT_MOST_MAX, &mut self.findings);
        let items = match for_each {
            Some(entry) => self.items(&entry.value, id),
            None => self.counted(fields, given_at_most),
        };
        let sequential = self.sequential(fields, for_each.is_some(), until.is_some());
        let at_most = self.at_most(fields, given_at_most, &items, until.is_some());
        let inside = Spot {
            loops: spot.loops + 1,
            ..spot.inside(id, 0)
        };
        let body = self.bare(fields, kind, inside)?;
        let until =
            until.and_then(|entry| self.expression(&entry.value, "until", Place::Until(id)));
        self.blocks[usize::from(id.0)].kind = BlockKind::ForEach {
            items: items.expression,
            body,
            sequential,
            until,
            at_most,
        };
        Some(id)
    }

    fn refuse_without_loop(&mut self, fields: &Fields<'_>) {
        for name in ["sequential", "at_most"] {
            if let Some(entry) = fields.entry(name) {
                let message = format!("`{name}` is about a loop; add `for_each`, or drop it");
                self.findings.add(entry.at, Rule::Contradiction, message);
            }
        }
    }

    /// `for_each`: a list, or how many times.
    fn items(&mut self, yaml: &Yaml, id: BlockId) -> Items {
        let nothing = |draft: &mut Self| {
            let expected = "an expression that gives a list, or how many times, as in `for_each: ${ input.items }` or `for_each: 3`";
            wrong_type(yaml, "for_each", expected, &mut draft.findings);
            Items::none()
        };
        match &yaml.content {
            Content::Text(_) => Items {
                expression: self
                    .expression(yaml, "for_each", Place::ForEach(id))
                    .unwrap_or_else(Expression::placeholder),
                count: None,
            },
            Content::Number(number) => {
                let count = numeral::whole_u64(number)
                    .and_then(|count| usize::try_from(count).ok())
                    .filter(|count| (1..=FOR_EACH_ITEMS_MAX).contains(count));
                let Some(count) = count else {
                    let message = format!(
                        "`for_each` is a whole number from 1 to {FOR_EACH_ITEMS_MAX}, not {number}"
                    );
                    self.findings.add(yaml.at, Rule::OutOfRange, message);
                    return Items::none();
                };
                Items::times(count)
            }
            _ => nothing(self),
        }
    }

    /// A loop that only has an `until`: as many times as `at_most` says.
    fn counted(&mut self, fields: &Fields<'_>, at_most: Option<u32>) -> Items {
        if let Some(at_most) = at_most {
            return Items::times(at_most as usize);
        }
        if fields.get("at_most").is_none() {
            let at = fields.entry("until").map_or(fields.at, |entry| entry.at);
            let message = "this may go on for ever; say how often it is tried, as in `at_most: 10`";
            self.findings.add(at, Rule::UnboundedLoop, message);
        }
        Items::none()
    }

    fn sequential(&mut self, fields: &Fields<'_>, has_list: bool, has_until: bool) -> bool {
        let given = fields.flag("sequential", &mut self.findings);
        let is_wrong = match given {
            Some(sequential) => has_until && !sequential,
            // Repeating has no other meaning; items are all begun at once unless told otherwise.
            None => has_until && has_list && fields.get("sequential").is_none(),
        };
        if is_wrong {
            let name = if given.is_some() {
                "sequential"
            } else {
                "until"
            };
            let at = fields.entry(name).map_or(fields.at, |entry| entry.at);
            let message = "`until` is asked after each item, so they must run one after the other; write `sequential: true`";
            self.findings.add(at, Rule::Contradiction, message);
        }
        given.unwrap_or(has_until)
    }

    fn at_most(
        &mut self,
        fields: &Fields<'_>,
        given: Option<u32>,
        items: &Items,
        has_until: bool,
    ) -> usize {
        let Some(given) = given else {
            return items.count.unwrap_or(FOR_EACH_ITEMS_MAX);
        };
        let at_most = given as usize;
        if let Some(count) = items.count.filter(|count| *count > at_most && !has_until) {
            let at = fields.get("at_most").map_or(fields.at, |yaml| yaml.at);
            let message = format!(
                "`for_each: {count}` makes more than {at_most} items, so this always fails; drop `at_most`"
            );
            self.findings.add(at, Rule::Contradiction, message);
        }
        at_most
    }
}

impl Items {
    fn times(count: usize) -> Self {
        Self {
            // A number always compiles.
            expression: Expression::compile(&count.to_string())
                .unwrap_or_else(|_| Expression::placeholder()),
            count: Some(count),
        }
    }

    fn none() -> Self {
        Self {
            expression: Expression::placeholder(),
            count: None,
        }
    }
}
