use super::*;
use crate::aggregates::tests::{Bundle, command};

fn ask(name: &str, saga: u128, revision: u64, changes: Value) -> Command {
    let mut payload = changes;
    payload["invoice"] = "i".into();
    payload["editor"] = format!("editor-{saga}").into();
    payload["revision"] = revision.into();
    command(name, saga, "invoice", payload)
}

fn more(sku: &str, quantity: u64) -> Value {
    json!({ "more": [{ "sku": sku, "quantity": quantity }], "fewer": [] })
}

fn fewer(sku: &str, quantity: u64) -> Value {
    json!({ "more": [], "fewer": [{ "sku": sku, "quantity": quantity }] })
}

fn saved(saga: u128, revision: u64, changes: &Value, bundle: &mut Bundle<Invoices>) {
    bundle
        .tell(&ask(EDIT, saga, revision, changes.clone()))
        .unwrap();
    bundle
        .tell(&ask(SAVE, saga, revision, changes.clone()))
        .unwrap();
}

#[test]
fn a_saved_edit_changes_the_lines_and_raises_the_revision() {
    let mut bundle = Bundle::<Invoices>::new();
    saved(1, 0, &more("a", 3), &mut bundle);
    saved(2, 1, &more("b", 1), &mut bundle);
    saved(3, 2, &fewer("a", 1), &mut bundle);
    saved(4, 3, &fewer("b", 1), &mut bundle);
    assert_eq!(bundle.state.lines, Lines::from([("a".to_owned(), 2)]));
    assert_eq!(bundle.state.revision, 4);
    assert_eq!(bundle.state.editor.as_deref(), Some("editor-4"));
}

#[test]
fn an_edit_of_what_is_no_longer_there_is_refused_and_says_who_was_faster() {
    let mut bundle = Bundle::<Invoices>::new();
    saved(1, 0, &more("a", 3), &mut bundle);
    let told = bundle.tell(&ask(EDIT, 2, 0, more("a", 1)));
    assert_eq!(
        told.unwrap_err().0,
        "invoice `i` was changed by editor-1: it is at revision 1, not 0"
    );
}

#[test]
fn while_one_edits_others_are_refused_until_it_is_discarded() {
    let mut bundle = Bundle::<Invoices>::new();
    bundle.tell(&ask(EDIT, 1, 0, more("a", 3))).unwrap();
    let reason = bundle.tell(&ask(EDIT, 2, 0, more("a", 1))).unwrap_err().0;
    assert!(reason.contains("is being edited by editor-1"), "{reason}");
    bundle.tell(&ask(SAVE, 2, 0, more("a", 1))).unwrap_err();
    bundle.tell(&ask(DISCARD, 2, 0, more("a", 1))).unwrap();
    assert!(
        bundle.state.edit.is_some(),
        "another's discard does nothing"
    );
    bundle.tell(&ask(DISCARD, 1, 0, more("a", 3))).unwrap();
    assert_eq!(bundle.state, State::default());
    saved(2, 0, &more("a", 1), &mut bundle);
}

#[test]
fn lines_that_can_not_be_are_refused() {
    let cases = [
        (fewer("a", 4), "4 of `a` off, but there are 3"),
        (fewer("b", 1), "1 of `b` off, but there are 0"),
        (more("a", u64::MAX), "are too many"),
        (
            json!({ "more": [{ "sku": "a", "quantity": 1 }], "fewer": [{ "sku": "a", "quantity": 1 }] }),
            "more and fewer at once",
        ),
    ];
    let mut bundle = Bundle::<Invoices>::new();
    saved(1, 0, &more("a", 3), &mut bundle);
    for (changes, why) in cases {
        let reason = bundle.tell(&ask(EDIT, 2, 1, changes)).unwrap_err().0;
        assert!(reason.contains(why), "{reason}");
    }
}
