//! Lists of properties that were taken out of the stream, until the consumer asks for them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::fields::MARK;

/// Most bytes kept for one connection: consumers ask soon, but one whose channel breaks never does.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The lists of one connection, each under a number of its own.
#[derive(Default)]
pub(in crate::broker::rabbitmq) struct Kept(Mutex<Lists>);

#[derive(Default)]
struct Lists {
    /// In order of their numbers; those that nobody asked for go first.
    lists: VecDeque<(i64, Vec<u8>)>,
    last: i64,
    bytes: usize,
}

impl Kept {
    /// Keeps a list; returns its number.
    pub(super) fn put(&self, list: Vec<u8>) -> i64 {
        let mut all = self.lock();
        all.last += 1;
        let number = all.last;
        all.bytes += list.len();
        all.lists.push_back((number, list));
        while all.bytes > BYTES_MAX
            && let Some((_, oldest)) = all.lists.pop_front()
        {
            all.bytes -= oldest.len();
        }
        number
    }

    /// The list that came with a message, if it was taken out: `Some(None)` if it is not there any more.
    pub(in crate::broker::rabbitmq) fn take(
        &self,
        properties: &BasicProperties,
    ) -> Option<Option<Vec<u8>>> {
        let headers = properties.headers().as_ref().map(FieldTable::inner)?;
        let AMQPValue::LongLongInt(number) = headers.get(MARK)? else {
            return None;
        };
        let mut all = self.lock();
        let found = all
            .lists
            .binary_search_by_key(number, |(number, _)| *number);
        let taken = found.ok().and_then(|index| all.lists.remove(index));
        let list = taken.map(|(_, list)| list);
        all.bytes -= list.as_ref().map_or(0, Vec::len);
        Some(list)
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(number: i64) -> BasicProperties {
        let mut table = FieldTable::default();
        table.insert(MARK.into(), AMQPValue::LongLongInt(number));
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn a_list_is_taken_once_and_what_nobody_takes_is_bounded() {
        let kept = Kept::default();
        let (first, second) = (kept.put(vec![1]), kept.put(vec![2]));
        assert_eq!(kept.take(&marked(second)), Some(Some(vec![2])));
        assert_eq!(kept.take(&marked(second)), Some(None));
        assert_eq!(kept.take(&BasicProperties::default()), None);
        for _ in 0..3 {
            kept.put(vec![0; BYTES_MAX / 2]);
        }
        assert_eq!(kept.take(&marked(first)), Some(None));
        assert_eq!(kept.lock().lists.len(), 2);
    }
}
