//! A service that handles commands: its name, its handlers, and how it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::aggregate::Aggregate;
use super::command::Command;
use super::handler::{AggregateHandler, CommandHandler};
use super::history::Kinds;
use super::refusal::{CommandRefusal, Rejection};
use super::unit::UnitOfWork;
use crate::broker::{Queue, Topology};
use crate::engine::relay::RelayOptions;
use crate::message::DEAD_LETTER_QUEUE;
use crate::store::participant::AggregateKey;

/// Most commands handled in one transaction.
pub const BATCH_COMMANDS_MAX: usize = 200;
/// Most unacknowledged commands a worker holds: the batch at work and more than the next one.
pub const PREFETCH: u16 = 500;

/// How a participant runs.
#[derive(Debug, Clone)]
pub struct ParticipantOptions {
    /// Workers side by side, each with a consumer of its own.
    pub workers: usize,
    /// Age at which a committed reply counts as left behind and any instance publishes it.
    pub reply_grace: Duration,
    /// Whether replies to nodes go by the exchange `backstitch.replies`, for which the right to write to
    /// that alone is enough, instead of by the default exchange.
    pub reply_exchange: bool,
    /// Whether duplicates are told from new commands. Only ever false in tests which must prove
    /// that the simulator notices.
    pub dedupe: bool,
}

impl Default for ParticipantOptions {
    fn default() -> Self {
        Self {
            workers: 2,
            reply_grace: RelayOptions::default().grace,
            reply_exchange: false,
            dedupe: true,
        }
    }
}

/// A service that handles commands.
pub struct Participant {
    name: String,
    handlers: BTreeMap<&'static str, Registered>,
    kinds: Kinds,
}

struct Registered {
    handler: Arc<dyn CommandHandler>,
    standalone: bool,
}

impl Participant {
    /// With its name, which is its queue's name too.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            handlers: BTreeMap::new(),
            kinds: Kinds::default(),
        }
    }

    /// Adds a handler. Of two handlers for one command the later one has it.
    #[must_use]
    pub fn handler(mut self, handler: impl CommandHandler) -> Self {
        let handler: Arc<dyn CommandHandler> = Arc::new(handler);
        for spec in handler.commands() {
            let registered = Registered {
                handler: Arc::clone(&handler),
                standalone: spec.standalone,
            };
            self.handlers.insert(spec.name, registered);
        }
        self
    }

    /// Adds an aggregate.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.kinds = self.kinds.with::<A>();
        self.handler(AggregateHandler::<A>::default())
    }

    /// Its name, and its queue's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kinds of its aggregates.
    pub fn kinds(&self) -> Kinds {
        self.kinds.clone()
    }

    /// The commands it handles.
    pub fn commands(&self) -> impl Iterator<Item = &'static str> {
        self.handlers.keys().copied()
    }

    /// What it declares before it consumes: its queue, and the one its undeliverable commands
    /// go to.
    pub fn topology(&self) -> Topology {
        let queue = |name: &str, dead_letter_to: Option<&str>| Queue {
            name: name.to_owned(),
            dead_letter_to: dead_letter_to.map(str::to_owned),
        };
        Topology {
            queues: vec![
                queue(DEAD_LETTER_QUEUE, None),
                queue(&self.name, Some(DEAD_LETTER_QUEUE)),
            ],
            ..Topology::default()
        }
    }

    pub(super) fn handles(&self, command: &str) -> bool {
        self.handlers.contains_key(command)
    }

    pub(super) fn is_standalone(&self, command: &str) -> bool {
        self.handlers
            .get(command)
            .is_some_and(|registered| registered.standalone)
    }

    pub(super) fn aggregate_of(
        &self,
        command: &Command,
    ) -> Result<Option<AggregateKey>, Rejection> {
        match self.handlers.get(command.name.as_str()) {
            Some(registered) => registered.handler.aggregate_of(command),
            None => Ok(None),
        }
    }

    pub(super) async fn handle(
        &self,
        command: &Command,
        unit: &mut UnitOfWork,
    ) -> Result<Value, CommandRefusal> {
        match self.handlers.get(command.name.as_str()) {
            Some(registered) => registered.handler.handle(command, unit).await,
            None => Err(CommandRefusal::Failed(format!(
                "`{}` has no handler",
                command.name
            ))),
        }
    }
}
