//! Every shipped saga, played to each of its ends on the stage: the real engine on a virtual clock.
//!
//! The files are read when the tests run, so whoever breaks a file breaks a test without building
//! anything. What a saga shall do stands in the file of its kind; what holds for all of them, in
//! `every`; what holds when hundreds want the same thing at once, in `crowds`.

mod accounts;
mod crowds;
mod events;
mod every;
mod selling;
mod together;
mod waiting;

use std::path::Path;

use backstitch::definition::Definition;
use backstitch::participant::{Aggregate, states};
use backstitch::sim::stage::{Play, Stage};
use futures_util::FutureExt;
use serde_json::Value;

/// Where the shipped sagas are.
fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sagas")
}

/// A shipped saga's text.
fn source(name: &str) -> String {
    let path = directory().join(format!("{name}.yaml"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A stage with these shipped sagas.
fn stage(names: &[&str]) -> Stage {
    let sources: Vec<String> = names.iter().map(|name| source(name)).collect();
    Stage::of(&sources).unwrap_or_else(|problems| panic!("{names:?}: {problems:?}"))
}

/// The shipped sagas' definitions, which may run one another.
fn definitions(names: &[&str]) -> Vec<Definition> {
    let sources: Vec<(&str, String)> = names.iter().map(|name| (*name, source(name))).collect();
    let sources: Vec<(&str, &str)> = sources
        .iter()
        .map(|(name, text)| (*name, &**text))
        .collect();
    backstitch::definition::parse_all(&sources).unwrap()
}

/// One way for a saga to end.
struct End {
    /// What happens, for whoever reads a failure.
    what: &'static str,
    stage: Stage,
    /// The saga's key.
    key: &'static str,
    /// Its status and reason.
    ended_as: &'static str,
    /// All that stand-ins did for it, in any order.
    done: &'static [&'static str],
}

impl End {
    /// Plays it, demands that all went as it says, and returns the play for further questions.
    fn reached(self) -> Play {
        let Self {
            what,
            stage,
            key,
            ended_as,
            done,
        } = self;
        let play = stage.play();
        play.assert_sound();
        let saga = play.saga(key);
        assert_eq!(saga.ended_as(), ended_as, "{what}:\n{}", play.timeline());
        let (mut did, mut expected) = (saga.done(), done.to_vec());
        // What participants with a store of their own did is judged by their aggregates.
        did.retain(|command| !command.is_empty());
        did.sort_unstable();
        expected.sort_unstable();
        assert_eq!(did, expected, "{what}:\n{}", play.timeline());
        play
    }
}

/// A saga's output, as a completed one has it.
fn output<'p>(play: &'p Play, key: &str) -> &'p Value {
    play.saga(key).output.as_deref().unwrap_or(&Value::Null)
}

/// The state of one aggregate of the shipped participants after a play.
fn state_of<A: Aggregate>(play: &Play, id: &str) -> A::State {
    let (_, state) = all_states::<A>(play)
        .into_iter()
        .find(|(known, _)| known == id)
        .unwrap_or_else(|| panic!("there is no {} `{id}`", A::KIND));
    state
}

/// The states of all aggregates of a kind after a play.
fn all_states<A: Aggregate>(play: &Play) -> Vec<(String, A::State)> {
    // The memory store answers at once.
    states::<A>(&play.participants)
        .now_or_never()
        .unwrap()
        .unwrap()
}
