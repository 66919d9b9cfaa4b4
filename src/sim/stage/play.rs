//! A play that is over: how each saga ended, what happened, and whether it was sound.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::scheduler::Ended;
use super::ledger::{Effect, EffectLedger};
use crate::definition::Definition;
use crate::id::{Phase, SagaId, Timestamp};
use crate::saga::{Saga, Status};
use crate::store::DeadLetter;
use crate::store::memory::MemoryStore;
use crate::view::{self, History, SagaView};

/// What a play leaves behind.
pub struct Play {
    /// Repeats it.
    pub seed: u64,
    /// All sagas, in the order in which they started.
    pub sagas: Vec<SagaPlay>,
    /// What participants did.
    pub ledger: EffectLedger,
    /// What those outside wanted and did not get, in words.
    pub refused: Vec<String>,
    /// Messages that nobody could handle.
    pub letters: Vec<DeadLetter>,
    /// Whether everything came to an end.
    pub ended: Ended,
    /// Crashes that were survived.
    pub crashes: u64,
    /// How much happened.
    pub polls: u64,
    /// How long it lasted, in virtual time.
    pub lasted: Duration,
    /// The store of participants that were not stand-ins; for their aggregates.
    pub participants: MemoryStore,
}

/// One saga of a play.
pub struct SagaPlay {
    /// Its id.
    pub id: SagaId,
    /// The definition's name.
    pub name: String,
    /// The business key.
    pub key: String,
    /// Where it stands.
    pub status: Status,
    /// Why it was rolled back, or waits.
    pub reason: Option<String>,
    /// The result, once completed.
    pub output: Option<Arc<Value>>,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took to its end.
    pub took: Option<Duration>,
    /// Its journal and row.
    pub history: History,
    /// Its state.
    pub state: Saga,
    /// What it ran.
    pub definition: Option<Arc<Definition>>,
    effects: Vec<Effect>,
}

pub(super) struct Facts {
    pub(super) seed: u64,
    pub(super) histories: Vec<(History, Option<Arc<Definition>>)>,
    pub(super) ledger: EffectLedger,
    pub(super) refused: Vec<String>,
    pub(super) letters: Vec<DeadLetter>,
    pub(super) ended: Ended,
    pub(super) crashes: u64,
    pub(super) polls: u64,
    pub(super) lasted: Duration,
    pub(super) participants: MemoryStore,
}

impl Play {
    pub(super) fn new(facts: Facts) -> Self {
        let Facts {
            seed,
            histories,
            ledger,
            refused,
            letters,
            ended,
            crashes,
            polls,
            lasted,
            participants,
        } = facts;
        let sagas = histories
            .into_iter()
            .map(|(history, definition)| SagaPlay::new(history, definition, &ledger))
            .collect();
        Self {
            seed,
            sagas,
            ledger,
            refused,
            letters,
            ended,
            crashes,
            polls,
            lasted,
            participants,
        }
    }

    /// The newest saga with this key.
    ///
    /// # Panics
    /// If there is none: a scenario that is about a saga that never was.
    pub fn saga(&self, key: &str) -> &SagaPlay {
        self.find(key).unwrap_or_else(|| {
            let keys: Vec<&str> = self.sagas.iter().map(|saga| saga.key.as_str()).collect();
            panic!(
                "no saga has the key `{key}`; there are {keys:?}; refused: {:?}",
                self.refused
            )
        })
    }

    /// The newest saga with this key, if there is one.
    pub fn find(&self, key: &str) -> Option<&SagaPlay> {
        self.sagas.iter().rev().find(|saga| saga.key == key)
    }

    /// Sagas of this definition, in the order in which they started.
    pub fn sagas_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a SagaPlay> {
        self.sagas.iter().filter(move |saga| saga.name == name)
    }

    /// How often stand-ins carried out this command, for all sagas.
    pub fn count(&self, command: &str) -> usize {
        let effects = self.ledger.effects.iter();
        effects.filter(|effect| effect.command == command).count()
    }

    /// What happened, for people: one line an event, each saga after the other.
    pub fn timeline(&self) -> String {
        let sagas: Vec<String> = self.sagas.iter().map(SagaPlay::timeline).collect();
        let mut text = sagas.join("\n");
        for refused in &self.refused {
            // Writing to a String can't fail.
            let _ = writeln!(text, "refused: {refused}");
        }
        for letter in &self.letters {
            let _ = writeln!(text, "dead letter on {}: {}", letter.queue, letter.reason);
        }
        text
    }
}

impl SagaPlay {
    fn new(history: History, definition: Option<Arc<Definition>>, ledger: &EffectLedger) -> Self {
        let state = view::folded(&history);
        let head = &history.head;
        let effects = ledger.effects.iter();
        Self {
            id: head.id,
            name: head.name.clone(),
            key: head.key.clone(),
            status: head.status,
            reason: state.status_reason(),
            output: state.output.clone(),
            started_at: head.started_at,
            took: head.ended_at.map(|at| at.since(head.started_at)),
            effects: effects
                .filter(|effect| effect.saga == head.id)
                .cloned()
                .collect(),
            state,
            history,
            definition,
        }
    }

    /// Its status and, if there is one, the reason: `compensated: stock rejected: sold out`.
    pub fn ended_as(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}: {reason}", self.status),
            None => self.status.to_string(),
        }
    }

    /// The commands that stand-ins carried out for it, in order, each once however often it came.
    pub fn done(&self) -> Vec<&str> {
        self.effects
            .iter()
            .map(|effect| effect.command.as_str())
            .collect()
    }

    /// How often stand-ins carried out this command for it (once for each item).
    pub fn count(&self, command: &str) -> usize {
        let effects = self.effects.iter();
        effects.filter(|effect| effect.command == command).count()
    }

    /// What participants did for it.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// When, since its start, stand-ins carried out this command.
    pub fn times(&self, command: &str) -> Vec<Duration> {
        let effects = self.effects.iter();
        effects
            .filter(|effect| effect.command == command)
            .map(|effect| effect.at.since(self.started_at))
            .collect()
    }

    /// The reply of a step, or the payload of a wait's signal; `stock[2]` for an item's.
    pub fn reply(&self, step: &str) -> Option<&Value> {
        let path = step.parse().ok()?;
        self.state.steps.get(&path)?.reply.as_deref()
    }

    /// As the command line and the API show it.
    pub fn view(&self) -> SagaView {
        SagaView::new(&self.history, self.definition.as_deref())
    }

    /// What happened, for people.
    pub fn timeline(&self) -> String {
        let mut text = format!("{} {} ({})\n", self.name, self.key, self.id);
        let view = self.view();
        // Writing to a String can't fail.
        let mut line = |after: Duration, words: &str| {
            let _ = writeln!(text, "{:>18}  {words}", clock(after));
        };
        let mut effects = self.effects.iter().peekable();
        for moment in &view.timeline {
            let after = Duration::from_micros(moment.after_us);
            let at = self.started_at.after(after);
            while let Some(effect) = effects.next_if(|effect| effect.at < at) {
                line(effect.at.since(self.started_at), &words(effect));
            }
            for event in moment.events.iter().filter_map(|event| event.text.as_ref()) {
                line(after, event);
            }
        }
        for effect in effects {
            line(effect.at.since(self.started_at), &words(effect));
        }
        let _ = writeln!(text, "{:>18}  {}", "", self.ended_as());
        if let Some(output) = self.output.as_ref().filter(|output| !output.is_null()) {
            let _ = writeln!(text, "{:>18}  output: {output}", "");
        }
        text
    }
}

fn words(effect: &Effect) -> String {
    let Effect {
        command,
        step,
        phase,
        ..
    } = effect;
    let done = match phase {
        Phase::Reserve => "reserved",
        Phase::Action => "done",
        Phase::Confirm => "confirmed",
        Phase::Compensate => "undone",
    };
    format!("    {done} by {command} for {step}")
}

/// Time since the start, to the millisecond: `0.010`, `12:30.000`, `3d 00:00:00.250`.
fn clock(after: Duration) -> String {
    let (seconds, millis) = (after.as_secs(), after.subsec_millis());
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}.{millis:03}"),
        (0, 0, _) => format!("{minutes}:{seconds:02}.{millis:03}"),
        (0, _, _) => format!("{hours}:{minutes:02}:{seconds:02}.{millis:03}"),
        _ => format!("{days}d {hours:02}:{minutes:02}:{seconds:02}.{millis:03}"),
    }
}
