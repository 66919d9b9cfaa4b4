//! The README's five minutes with dead letters: plain queues, and a shop that knows nothing of us.

use serde_json::{Value, json};

use crate::fixture::{Backends, Command, finish, python, repository, told};

/// What a program printed, if it ended well.
#[track_caller]
fn printed(command: &Command) -> String {
    let output = finish(command);
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

struct Shop {
    backends: Backends,
}

impl Shop {
    #[track_caller]
    fn shop(&self, words: &[&str]) -> String {
        let mut command = Command::program(python(), [repository("examples/plain-shop/shop.py")]);
        for word in words {
            command = command.with(word);
        }
        printed(&command.on(&self.backends)).trim().to_owned()
    }

    fn letters(&self, words: &[&str]) -> Command {
        let words = ["dead-letters"].iter().chain(words).copied();
        Command::backstitch(words).on(&self.backends)
    }

    #[track_caller]
    fn answer(&self, words: &[&str]) -> Value {
        serde_json::from_str(&printed(&self.letters(words).with("--json"))).unwrap()
    }
}

#[test]
fn a_plain_shop_gets_its_letters_back() {
    let shop = Shop {
        backends: Backends::create(),
    };
    assert_eq!(shop.shop(&["produce", "100"]), "100 orders");
    assert_eq!(
        shop.shop(&["consume", "--bank-is-down"]),
        "46 handled, 54 rejected"
    );

    assert_eq!(shop.answer(&["drain", "--queue", "shop.dlq"])["new"], 54);
    let groups = shop.answer(&["groups"]);
    assert_eq!(
        (
            &groups["groups"][0]["count"],
            &groups["groups"][0]["newest"]["type"]
        ),
        (&json!(54), &json!("order.placed")),
        "{groups}"
    );
    let wrong = shop.answer(&["list", "--body", "\"amount\": -"]);
    assert_eq!(wrong["dead_letters"].as_array().unwrap().len(), 10);
    let id = wrong["dead_letters"][0]["id"].as_str().unwrap();
    let shown = shop.answer(&["show", id]);
    assert_eq!(
        shown["properties"]["headers"]["x-first-death-queue"],
        "shop.orders"
    );

    let patch = r#"[{"op": "replace", "path": "/body/amount", "value": 5}]"#;
    printed(&shop.letters(&["edit", id, "--patch", patch, "--why", "typo"]));
    assert_eq!(
        shop.answer(&["replay", id, "--why", "typo mended"])["replayed"],
        1
    );
    assert_eq!(shop.shop(&["consume"]), "1 handled, 0 rejected");
    let discard = ["discard", "--body", "\"amount\": -", "--why", "load test"];
    assert_eq!(shop.answer(&discard)["discarded"], 9);

    let replay = ["replay", "--queue", "shop.orders"];
    let dry = shop.answer(&[&replay[..], &["--dry-run"]].concat());
    assert_eq!(dry["sends"].as_array().unwrap().len(), 44);
    assert_eq!(dry["sends"][0]["to"]["routing_key"], "shop.orders", "{dry}");

    // The bank is still down: the canaries come back, and the rest stays.
    let canary = [&replay[..], &["--canary", "5", "--canary-wait", "30s"]].concat();
    let broken = std::thread::scope(|scope| {
        let replay = scope.spawn(|| finish(&shop.letters(&canary)));
        let mut rejected = 0;
        while rejected < 5 {
            let said = shop.shop(&["consume", "--bank-is-down"]);
            let count = said.split(' ').nth(2).unwrap();
            rejected += count.parse::<usize>().unwrap();
        }
        replay.join().unwrap()
    });
    assert_eq!(broken.status.code(), Some(1), "{}", told(&broken));
    assert!(
        told(&broken).contains("5 canaries came back"),
        "{}",
        told(&broken)
    );

    let rest = shop.answer(&[&replay[..], &["--rate", "200/s", "--why", "it is back"]].concat());
    assert_eq!(rest["replayed"], 44, "{rest}");
    assert_eq!(shop.shop(&["consume"]), "44 handled, 0 rejected");
    let audit = shop.answer(&["audit"]);
    assert_eq!(audit["broken"], Value::Null);
    let counts = shop.answer(&["stats"])["counts"].clone();
    assert!(
        counts
            .as_array()
            .unwrap()
            .iter()
            .all(|of| of["status"] != "open"),
        "{counts}"
    );
}
