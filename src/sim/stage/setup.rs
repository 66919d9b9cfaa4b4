//! What a play is made of, before it begins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::network::FaultRates;
use super::super::now::now;
use super::super::scheduler::EPOCH;
use super::answer::{Calls, Response};
use super::cue::{Cue, Entrance};
use crate::aggregates;
use crate::definition::{Definition, Problems, parse_all};
use crate::participant::{Aggregate, Participant};
use crate::saga::{OperatorKind, Sabotage};
use crate::store::memory::MemoryStore;

/// Definitions, and what happens to them. Made with [`Stage::of`], finished by [`Stage::play`].
pub struct Stage {
    pub(super) definitions: Vec<Arc<Definition>>,
    pub(super) seed: u64,
    pub(super) rules: Vec<(Calls, Response)>,
    pub(super) improvise: bool,
    pub(super) latency: Duration,
    pub(super) entrances: Vec<Entrance>,
    /// When the next entrance is.
    pub(super) at: Duration,
    pub(super) troupe: Vec<fn() -> Vec<Participant>>,
    pub(super) props: Vec<Prop>,
    pub(super) faults: Option<FaultRates>,
    pub(super) run_for: Option<Duration>,
    pub(super) person: bool,
    pub(super) sabotage: Sabotage,
}

/// Puts something into the participants' store before the play.
pub(super) type Prop = Box<dyn FnOnce(&MemoryStore) + Send>;

impl Stage {
    /// With definitions from their YAML texts.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of<S: AsRef<str>>(sources: &[S]) -> Result<Self, Vec<Problems>> {
        let named: Vec<(String, &str)> = sources
            .iter()
            .enumerate()
            .map(|(number, source)| (format!("definition {}", number + 1), source.as_ref()))
            .collect();
        parse_all(&named).map(Self::with)
    }

    /// With definitions that were read.
    pub fn with(definitions: Vec<Definition>) -> Self {
        Self::sharing(definitions.into_iter().map(Arc::new).collect())
    }

    /// With definitions that others use too.
    pub fn sharing(definitions: Vec<Arc<Definition>>) -> Self {
        Self {
            definitions,
            seed: 0,
            rules: Vec::new(),
            improvise: false,
            latency: Duration::from_millis(10),
            entrances: Vec::new(),
            at: Duration::ZERO,
            troupe: Vec::new(),
            props: Vec::new(),
            faults: None,
            run_for: None,
            person: false,
            sabotage: Sabotage::default(),
        }
    }

    /// What is left to chance is drawn from this.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// What is left to chance is drawn from it.
    pub fn seed_drawn_from(&self) -> u64 {
        self.seed
    }

    /// Stand-ins answer these calls like this. The first rule that fits a call counts; calls that
    /// no rule fits are done, and answered with their own payload.
    #[must_use]
    pub fn answer(mut self, calls: impl Into<Calls>, response: Response) -> Self {
        self.rules.push((calls.into(), response));
        self
    }

    /// Stand-ins draw from the seed what no rule says: yes, no, try again, nothing, too late.
    #[must_use]
    pub fn improvise(self) -> Self {
        Self {
            improvise: true,
            ..self
        }
    }

    /// How long stand-ins take to answer, if nothing else is said: 10 ms unless set.
    #[must_use]
    pub fn latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// What is said after this happens at this time after the opening.
    #[must_use]
    pub fn at(self, at: Duration) -> Self {
        Self { at, ..self }
    }

    /// What is said after this happens this much later than what was said before.
    #[must_use]
    pub fn after(self, pause: Duration) -> Self {
        Self {
            at: self.at.saturating_add(pause),
            ..self
        }
    }

    /// Somebody starts a saga.
    #[must_use]
    pub fn start(self, saga: impl Into<String>, input: Value) -> Self {
        let saga = saga.into();
        self.enter(Cue::Start { saga, input })
    }

    /// Somebody sends a signal to the saga of this name and key.
    #[must_use]
    pub fn signal(
        self,
        saga: impl Into<String>,
        key: impl Into<String>,
        signal: impl Into<String>,
        body: Value,
    ) -> Self {
        self.enter(Cue::Signal {
            saga: saga.into(),
            key: key.into(),
            signal: signal.into(),
            body,
        })
    }

    /// Somebody publishes a domain event.
    #[must_use]
    pub fn event(
        self,
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
        body: Value,
    ) -> Self {
        self.enter(Cue::Event {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            body,
        })
    }

    /// A person does something to the newest saga of this name and key.
    #[must_use]
    pub fn operate(
        self,
        saga: impl Into<String>,
        key: impl Into<String>,
        action: OperatorKind,
    ) -> Self {
        self.enter(Cue::Operate {
            saga: saga.into(),
            key: key.into(),
            action,
        })
    }

    fn enter(mut self, cue: Cue) -> Self {
        self.entrances.push(Entrance { at: self.at, cue });
        self
    }

    /// Participants that handle their queues themselves, instead of stand-ins, on a store of
    /// their own. Called again when their process has crashed.
    #[must_use]
    pub fn participants(mut self, participants: fn() -> Vec<Participant>) -> Self {
        self.troupe.push(participants);
        self
    }

    /// The shipped participants: `inventory`, `orders`, `payments`, `mailer` and their like.
    #[must_use]
    pub fn shipped_participants(self) -> Self {
        self.participants(aggregates::participants)
    }

    /// What happened to an aggregate of the participants before the play: stock, balances.
    #[must_use]
    pub fn given<A: Aggregate>(
        mut self,
        id: impl Into<String>,
        events: impl IntoIterator<Item = A::Event>,
    ) -> Self
    where
        A::Event: Send + 'static,
    {
        let id = id.into();
        let events: Vec<_> = events
            .into_iter()
            .map(|event| (id.clone(), event))
            .collect();
        self.props.push(Box::new(move |store| {
            let seeded = aggregates::seed::<A>(store, EPOCH, events);
            now(async { seeded.await.map(|_| ()) });
        }));
        self
    }

    /// Two nodes instead of one, a bad network, and crashes, for the first while; then all heals.
    #[must_use]
    pub fn faults(self, rates: FaultRates) -> Self {
        Self {
            faults: Some(rates),
            ..self
        }
    }

    /// Goes on for at least this long, although every saga has ended: schedules may start more.
    #[must_use]
    pub fn run_for(self, duration: Duration) -> Self {
        Self {
            run_for: Some(duration),
            ..self
        }
    }

    /// When nothing else would ever happen, a person sees to what waits: sends the signal that is
    /// waited for, skips what is stuck, and at last calls the saga off.
    #[must_use]
    pub fn attended(self) -> Self {
        Self {
            person: true,
            ..self
        }
    }

    /// Known bugs, for the proof that the judge notices.
    #[doc(hidden)]
    #[must_use]
    pub fn sabotage(self, sabotage: Sabotage) -> Self {
        Self { sabotage, ..self }
    }

    /// The queues that participants of their own serve.
    pub(super) fn served(&self) -> BTreeSet<String> {
        let all = self.troupe.iter().flat_map(|troupe| troupe());
        all.map(|participant| participant.name().to_owned())
            .collect()
    }
}
