//! The projections of a program.

use std::sync::Arc;
use std::time::Duration;

use super::document::{AnyProjection, Of};
use super::model::{Key, Projection};

/// The projections of a program, and how each is kept.
#[derive(Clone, Default)]
pub struct Projections {
    pub(super) registered: Vec<Registered>,
}

/// One of them.
#[derive(Clone)]
pub(super) struct Registered {
    pub(super) projection: Arc<dyn AnyProjection>,
    pub(super) live: bool,
    /// How long a document that was made on demand is kept after it was last read.
    pub(super) on_demand: Option<Duration>,
}

impl Projections {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a projection's documents up to date.
    #[must_use]
    pub fn live<P: Projection>(mut self) -> Self {
        self.entry::<P>().live = true;
        self
    }

    /// Makes a projection's documents when they are asked for, and keeps each until nobody has asked
    /// for it for so long.
    #[must_use]
    pub fn on_demand<P: Projection>(mut self, kept_for: Duration) -> Self {
        const {
            assert!(
                matches!(P::KEY, Key::Correlation),
                "only documents that are keyed by correlation can be made on demand"
            );
        }
        self.entry::<P>().on_demand = Some(kept_for);
        self
    }

    /// The names, in the order they were added.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.registered.iter().map(|it| it.projection.name())
    }

    /// Only those of these names; all if none is named. An error names the first that is not there.
    pub fn named(mut self, names: &[String]) -> Result<Self, String> {
        if let Some(unknown) = names.iter().find(|name| self.find(name).is_none()) {
            let known: Vec<_> = self.names().collect();
            return Err(format!(
                "there is no projection `{unknown}`; there are {}",
                known.join(", ")
            ));
        }
        self.registered
            .retain(|it| names.is_empty() || names.iter().any(|name| name == it.projection.name()));
        Ok(self)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Registered> {
        self.registered
            .iter()
            .find(|it| it.projection.name() == name)
    }

    fn entry<P: Projection>(&mut self) -> &mut Registered {
        let known = self
            .registered
            .iter()
            .position(|it| it.projection.name() == P::NAME);
        let index = known.unwrap_or_else(|| {
            self.registered.push(Registered {
                projection: Arc::new(Of::<P>::new()),
                live: false,
                on_demand: None,
            });
            self.registered.len() - 1
        });
        &mut self.registered[index]
    }
}
