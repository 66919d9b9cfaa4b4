//! How many steps one saga may come to have: the products of the `at_most` of loops in one another.

use super::super::bounds::INSTANCES_MAX;
use super::super::draft::Draft;
use super::super::problem::{Position, Rule};
use super::super::tree::{BlockId, BlockKind, Definition};

impl Draft<'_> {
    /// At most one problem: the first loop that makes it too much.
    pub(super) fn check_size(&self) -> Option<(Position, Rule, String)> {
        let mut total = 0;
        let too_much = self.count(Definition::ROOT, 1, None, &mut total)?;
        let message = format!(
            "with this loop the saga may come to have more than {INSTANCES_MAX} steps; say how many items there are at most, as in `at_most: 100`"
        );
        let field = if self.says(too_much, "at_most") {
            "at_most"
        } else {
            "for_each"
        };
        Some((self.place(too_much, field), Rule::TooLarge, message))
    }

    /// Adds what is in a block; the innermost loop around, if it becomes too much there.
    fn count(
        &self,
        id: BlockId,
        times: usize,
        inside: Option<BlockId>,
        total: &mut usize,
    ) -> Option<BlockId> {
        match &self.block(id).kind {
            BlockKind::Sequence(children) | BlockKind::Parallel(children) => children
                .iter()
                .find_map(|child| self.count(*child, times, inside, total)),
            BlockKind::ForEach { body, at_most, .. } => {
                self.count(*body, times.saturating_mul(*at_most), Some(id), total)
            }
            BlockKind::Step(_) | BlockKind::Wait(_) | BlockKind::Sleep(_) | BlockKind::Saga(_) => {
                *total = total.saturating_add(times);
                inside.filter(|_| *total > INSTANCES_MAX)
            }
        }
    }
}
