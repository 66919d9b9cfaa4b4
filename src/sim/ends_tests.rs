//! Who hears how a saga ends.

use super::starts_tests::{Stage, heard, input, job};
use super::*;

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
        for id in ["first", "second", "third", "late"] {
            let kinds = &heard[id];
            // A network that loses messages may have lost this one.
            assert!(loses_messages || kinds[0] == "accepted", "{id}: {kinds:?}");
            assert!(kinds.contains(&"completed".to_owned()), "{id}: {kinds:?}");
        }
    }
}
