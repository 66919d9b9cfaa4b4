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
    by_number: VecDeque<(i64, Vec<u8>)>,
    last: i64,
    bytes: usize,
}

/// Where a message's list of properties is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::broker::rabbitmq) enum Taken {
    /// Where it was: the library has read it.
    Untouched,
    /// It was taken out of the stream, and is this.
    List(Vec<u8>),
    /// It was taken out, and is not there any more.
    Gone,
}

impl Kept {
    /// Keeps a list; returns its number.
    pub(super) fn put(&self, list: Vec<u8>) -> i64 {
        let mut all = self.lock();
        all.last += 1;
        let number = all.last;
        all.bytes += list.len();
        all.by_number.push_back((number, list));
        while all.bytes > BYTES_MAX
            && let Some((_, oldest)) = all.by_number.pop_front()
        {
            all.bytes -= oldest.len();
        }
        number
    }

    /// Asks for the list that came with a message.
    pub(in crate::broker::rabbitmq) fn take(&self, properties: &BasicProperties) -> Taken {
        let headers = properties.headers().as_ref().map(FieldTable::inner);
        let Some(AMQPValue::LongLongInt(number)) = headers.and_then(|it| it.get(MARK)) else {
            return Taken::Untouched;
        };
        let mut all = self.lock();
        let found = all
            .by_number
            .binary_search_by_key(number, |(number, _)| *number);
        let Some((_, list)) = found.ok().and_then(|index| all.by_number.remove(index)) else {
            return Taken::Gone;
        };
        all.bytes -= list.len();
        Taken::List(list)
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
        assert_eq!(kept.take(&marked(second)), Taken::List(vec![2]));
        assert_eq!(kept.take(&marked(second)), Taken::Gone);
        assert_eq!(kept.take(&BasicProperties::default()), Taken::Untouched);
        for _ in 0..3 {
            kept.put(vec![0; BYTES_MAX / 2]);
        }
        assert_eq!(kept.take(&marked(first)), Taken::Gone);
        assert_eq!(kept.lock().by_number.len(), 2);
    }
}
