//! Who hears how a saga ends.

use std::time::Duration;

use super::starts_tests::{Stage, heard, input, job};

#[test]
fn everybody_who_wanted_the_same_saga_hears_how_it_ends() {
    for loses_messages in [false, true] {
        let mut stage = Stage::new(5, &job("existing"));
        stage.loses_messages = loses_messages;
        stage.start_all();
        stage.run(Duration::from_secs(5));
        for id in ["first", "second", "second"] {
            stage.place(Some(id), &input(600));
        }
        stage.run(Duration::from_mins(1));
        stage.place(Some("third"), &input(600));
        stage.run(Duration::from_mins(20));
        stage.place(Some("late"), &input(600));
        stage.faults.heal();
        stage.run(Duration::from_mins(5));
        assert_eq!(stage.sagas().len(), 1);
        let heard = heard(&stage);
        let starters = ["first", "second", "third", "late"];
        let told = |id: &str, what: &str| {
            let kinds = heard.get(id);
            kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == what))
        };
        for what in ["accepted", "completed"] {
            let count = starters.iter().filter(|id| told(id, what)).count();
            // An answer may vanish on its way in a bad network, and is not given again.
            let expected = if loses_messages { 2..=4 } else { 4..=4 };
            assert!(expected.contains(&count), "{what}: {heard:?}");
        }
    }
}
