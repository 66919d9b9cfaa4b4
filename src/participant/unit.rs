//! What the handlers of one batch change together: committed with their barriers and replies, or not
//! at all.

use std::any::Any;
use std::collections::BTreeMap;

use super::aggregate::Aggregate;
use super::command::Command;
use super::open::{Closed, Open, OpenAggregate};
use super::refusal::CommandRefusal;
use crate::id::Timestamp;
use crate::store::StoreError;
use crate::store::participant::{AggregateKey, AggregateRow, Origin};

/// What the handlers of one batch change together.
pub struct UnitOfWork {
    now: Timestamp,
    /// What was asked for at load, and found or not.
    loaded: BTreeMap<AggregateKey, Option<AggregateRow>>,
    open: BTreeMap<AggregateKey, Box<dyn OpenAggregate>>,
    /// What is being handled.
    origin: Origin,
}

impl UnitOfWork {
    /// With the aggregates that were asked for and those that were found.
    pub(crate) fn new(now: Timestamp, asked: &[AggregateKey], found: Vec<AggregateRow>) -> Self {
        let mut loaded: BTreeMap<_, _> = asked.iter().map(|key| (key.clone(), None)).collect();
        for row in found {
            loaded.insert(row.key.clone(), Some(row));
        }
        Self {
            now,
            loaded,
            open: BTreeMap::new(),
            origin: Origin::default(),
        }
    }

    /// From here on events are recorded because of this command.
    pub(crate) fn begin(&mut self, command: &Command) {
        self.origin = command.origin();
    }

    /// The time, the same for the whole batch.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The aggregate that [`CommandHandler::aggregate_of`](super::CommandHandler::aggregate_of) named, with all that the batch has done
    /// to it so far.
    pub fn aggregate<A: Aggregate>(
        &mut self,
        key: &AggregateKey,
    ) -> Result<&mut Open<A>, CommandRefusal> {
        if !self.open.contains_key(key) {
            let row = self.loaded.get(key).ok_or_else(|| {
                CommandRefusal::Failed(format!(
                    "{} `{}` was not named before it was used",
                    key.kind, key.id
                ))
            })?;
            let opened = Open::<A>::new(row.as_ref()).map_err(|error| {
                // Nothing is overwritten: the row stays for a person to look at.
                tracing::error!(kind = %key.kind, id = %key.id, %error, "stored aggregate can't be read");
                CommandRefusal::Failed(error.to_string())
            })?;
            self.open.insert(key.clone(), Box::new(opened));
        }
        let open = self.open.get_mut(key);
        let open = open.and_then(|open| (open.as_mut() as &mut dyn Any).downcast_mut());
        let open: &mut Open<A> = open.ok_or_else(|| {
            CommandRefusal::Failed(format!(
                "two kinds of aggregate share the name {}",
                key.kind
            ))
        })?;
        open.set_origin(&self.origin);
        Ok(open)
    }

    /// What is to be written.
    pub(crate) fn close(self) -> Result<Closed, StoreError> {
        let mut closed = Closed::default();
        for (key, open) in self.open {
            open.close(key, self.now, &mut closed)?;
        }
        Ok(closed)
    }
}
