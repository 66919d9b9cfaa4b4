//! The operator's night on the page alone, in a real browser: from the first red number to the last saga
//! that came home, and the letters after them. And every view, as all of its readers see it.

use lapin::types::AMQPValue;
use serde_json::Value;

use crate::browser::{self, Browser, Look};
use crate::fixture::{
    Backends, Bank, Node, PATIENCE, Sent, Wire, define_charge, eventually, get_json, get_stuck,
    text,
};

const SAGAS: usize = 60;
const LETTERS: usize = 4;
/// A queue whose messages die while nobody can handle them, and where they go then.
const MAILS: &str = "mails";
const DEAD: &str = "mails.dead";

/// Has some messages die, as a broken consumer does it.
fn let_messages_die(wire: &Wire) {
    wire.declare(DEAD);
    let to = [
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(DEAD)),
    ];
    wire.declare_with(MAILS, &to as &[(&str, AMQPValue)]);
    for number in 0..LETTERS {
        let id = format!("mail-{number}");
        let mail = Sent {
            kind: Some("mail.send"),
            message_id: Some(&id),
            body: br#"{"to":"ann@example.org"}"#,
            ..Sent::default()
        };
        wire.send(MAILS, &mail);
        wire.refuse(MAILS);
    }
}

/// A node with sagas that are stuck and messages that have died.
struct Night {
    // In the order of their end: what all the others need goes last.
    node: Node,
    bank: Bank,
    wire: Wire,
    _sagas: tempfile::TempDir,
    backends: Backends,
}

impl Night {
    fn falls(stuck: usize) -> Self {
        let backends = Backends::create();
        let sagas = tempfile::tempdir().unwrap();
        define_charge(sagas.path());
        let bank = Bank::open(&backends.virtual_host.url, "the vault is locked");
        let wire = Wire::connect(&backends.virtual_host.url);
        let_messages_die(&wire);
        let node = Node::serve_with(&backends, sagas.path(), &["--dead-letter-queue", DEAD]);
        get_stuck(&backends, &node, stuck);
        eventually("the letters are taken in", PATIENCE, || {
            (letters(&backends, "open") == LETTERS).then_some(())
        });
        Self {
            backends,
            bank,
            wire,
            node,
            _sagas: sagas,
        }
    }

    /// Goes to a view.
    fn open(&self, browser: &Browser, path: &str) {
        browser.goto(&format!("{}{path}", self.node.url));
    }
}

fn letters(backends: &Backends, status: &str) -> usize {
    let rows = format!("backstitch.dead_letters WHERE status = '{status}'");
    usize::try_from(backends.database.count(&rows)).unwrap()
}

#[test]
fn an_operator_brings_all_home_on_the_page_alone() {
    if !browser::is_there() {
        return;
    }
    let night = Night::falls(SAGAS);
    let browser = Browser::open(Look::default());

    // The first red number leads to all that are stuck for the same reason.
    night.open(&browser, "/ui");
    browser.sees("the vault is locked");
    browser.is_sound("night-1-now");
    browser.click(&SAGAS.to_string());
    browser.sees(&format!("{SAGAS} sagas"));
    browser.is_sound("night-2-group");
    let group = browser.address();

    // One of them, and why.
    browser.click("c-7");
    browser.sees("the vault is locked");
    browser.sees("Do something about it");
    browser.is_sound("night-3-saga");

    // Would it help to try again? It is mended first; then all of them, a few at a time.
    night.bank.mend();
    browser.goto(&group);
    browser.tick("all that the filter finds");
    browser.click("Show what would be done");
    browser.sees(&format!("Retry would be done to {SAGAS} sagas"));
    browser.fill("Your name", "ann");
    browser.fill("Why", "the vault is open again");
    browser.fill("How many at a time", "30/s");
    browser.fill("How many go first, to see whether it helps", "3");
    browser.is_sound("night-4-dry-run");
    browser.click("Retry");
    browser.sees("How far it has come");
    browser.picture("night-5-job-begins");
    let job = browser.address();
    browser.waits_for("the job is done", || {
        browser.goto(&job);
        let words = format!("{SAGAS} done · 0 refused");
        browser.text().contains(&words).then_some(())
    });
    browser.is_sound("night-6-job");
    eventually("all are home", PATIENCE, || {
        (night.backends.database.ended_sagas() == SAGAS).then_some(())
    });

    replay_the_letters(&night, &browser);

    night.open(&browser, "/ui");
    browser.sees("Nothing waits for a person.");
    browser.is_sound("night-9-morning");
    night.open(&browser, "/ui/audit");
    for words in [
        "job-create",
        "ann",
        "the vault is open again",
        "the mailer is back",
    ] {
        browser.sees(words);
    }
    let audit = get_json(&format!(
        "{}/v1/dead-letters/audit?verify=true",
        night.node.url
    ));
    assert_eq!(audit["broken"], Value::Null, "{audit}");
}

/// One of the letters first, to see whether it helps; then the others.
fn replay_the_letters(night: &Night, browser: &Browser) {
    browser.click("Dead letters");
    browser.sees(MAILS);
    browser.is_sound("night-7-letters");
    browser.click(&LETTERS.to_string());
    for (first, left) in [("1", LETTERS), ("", LETTERS - 1)] {
        browser.tick("all that the filter finds");
        browser.click("Show what would be done");
        browser.sees(&format!("{left} would be sent again"));
        browser.sees(&format!("{left} to {MAILS}"));
        browser.fill("Your name", "ann");
        browser.fill("Why", "the mailer is back");
        browser.fill(
            "How many first, to see whether it helps (all, if empty)",
            first,
        );
        browser.is_sound("night-8-replay");
        browser.click("Replay");
        browser.sees("sent again.");
        let sent = if first.is_empty() { left } else { 1 };
        for _ in 0..sent {
            let mail = night.wire.wait_for(MAILS);
            assert_eq!(mail.kind.as_deref(), Some("mail.send"));
        }
    }
    eventually("all letters are replayed", PATIENCE, || {
        (letters(&night.backends, "replayed") == LETTERS).then_some(())
    });
}

#[test]
fn every_view_can_be_used_by_all_who_read_it() {
    if !browser::is_there() {
        return;
    }
    let night = Night::falls(3);
    let found = get_json(&format!("{}/v1/sagas", night.node.url));
    let saga = found["sagas"][0]["saga_id"].as_str().unwrap().to_owned();
    let found = get_json(&format!("{}/v1/dead-letters", night.node.url));
    let letter = found["dead_letters"][0]["id"].as_str().unwrap().to_owned();
    let views = [
        ("now", "/ui".to_owned()),
        ("sagas", "/ui/sagas".to_owned()),
        ("saga", format!("/ui/sagas/{saga}")),
        ("act", format!("/ui/act?action=skip&id={saga}")),
        ("letters", "/ui/letters".to_owned()),
        ("letter", format!("/ui/letters/{letter}")),
        (
            "replay",
            format!("/ui/letters/act?action=replay&id={letter}"),
        ),
        ("tasks", "/ui/tasks".to_owned()),
        ("definitions", "/ui/definitions".to_owned()),
        ("definition", "/ui/definitions/charge".to_owned()),
        ("schedules", "/ui/schedules".to_owned()),
        ("jobs", "/ui/jobs".to_owned()),
        ("audit", "/ui/audit".to_owned()),
        ("nothing", "/ui/nowhere".to_owned()),
    ];
    let narrow = Look {
        width: 360,
        dark: true,
        ..Look::default()
    };
    let wide = Look {
        width: 1920,
        ..Look::default()
    };
    let browser = Browser::open(Look::default());
    for (name, path) in &views {
        night.open(&browser, path);
        for (look, words) in [(wide, "wide"), (narrow, "narrow")] {
            browser.look(look);
            browser.is_sound(&format!("{name}-{words}"));
        }
    }
}
