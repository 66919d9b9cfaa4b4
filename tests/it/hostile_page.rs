//! What strangers write, on the page: it shows as text, and nothing of it is done.

use serde_json::{Value, json};

use crate::browser::{self, Browser, Look};
use crate::fixture::{
    Backends, Bank, Node, PATIENCE, Sent, Wire, define_charge, eventually, get_json, post,
    suspended,
};

/// What would be done if it were not taken for text.
const CORPUS: [&str; 7] = [
    "<script>window.done = 'script'</script>",
    "<img src=x onerror=\"window.done = 'img'\">",
    "\"><svg onload=\"window.done = 'svg'\">",
    "'><details open ontoggle=\"window.done = 'details'\"><a href=\"javascript:window.done='link'\">go</a>",
    "</textarea></title></style><iframe srcdoc=\"<script>parent.done = 'frame'</script>\">",
    "right to left \u{202e}gpj.exe\u{202c} \u{5d0}\u{5d1}",
    "controls \u{1b}[31mred\u{7} \u{200b}zero",
];

/// What must not be there, and whether anything was done.
const INTRUDERS: &str = "
const found = document.querySelectorAll('main script, img, iframe, main [onload], main [onerror], [ontoggle], a[href^=\"javascript:\"]');
return [window.done || null, found.length];";

fn start_hostile_sagas(backends: &Backends, node: &Node) {
    let mut accepted = 0;
    for (number, hostile) in CORPUS.iter().enumerate() {
        // No longer than a key may be; the whole of it, and much of it, elsewhere.
        let key = format!("{number} {hostile}{}", "k".repeat(100));
        let input = json!({ "id": key, "customer": hostile, "note": hostile.repeat(200), (*hostile): hostile });
        match post(&format!("{}/v1/sagas/charge", node.url), &input) {
            Ok((201, _)) => accepted += 1,
            Ok((400..500, _)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(accepted >= 5, "{accepted}");
    eventually("all of them are stuck", PATIENCE, || {
        (suspended(backends) == accepted).then_some(())
    });
}

fn send_hostile_letters(backends: &Backends, wire: &Wire) {
    for hostile in CORPUS {
        let body = hostile.repeat(100);
        let letter = Sent {
            kind: Some(hostile),
            message_id: Some(hostile),
            headers: &[("x-note", hostile), ("reason", hostile)],
            body: body.as_bytes(),
            ..Sent::default()
        };
        wire.send("backstitch.start", &letter);
    }
    let letters = i64::try_from(CORPUS.len()).unwrap();
    eventually("all of them are dead letters", PATIENCE, || {
        (backends.database.count("backstitch.dead_letters") == letters).then_some(())
    });
}

fn ids(listed: &Value, list: &str, id: &str) -> Vec<String> {
    let listed = listed[list].as_array().expect("a list");
    let ids = listed.iter().filter_map(|row| row[id].as_str());
    ids.map(str::to_owned).collect()
}

#[test]
fn what_strangers_write_shows_as_text_in_every_view() {
    if !browser::is_there() {
        return;
    }
    let backends = Backends::create();
    let sagas = tempfile::tempdir().unwrap();
    define_charge(sagas.path());
    let _bank = Bank::open(&backends.virtual_host.url, &CORPUS.concat());
    let wire = Wire::connect(&backends.virtual_host.url);
    let node = Node::serve(&backends, sagas.path());
    start_hostile_sagas(&backends, &node);
    send_hostile_letters(&backends, &wire);

    let mut paths: Vec<String> = [
        "/ui",
        "/ui/sagas",
        "/ui/letters",
        "/ui/tasks",
        "/ui/jobs",
        "/ui/audit",
    ]
    .map(str::to_owned)
    .to_vec();
    let found = get_json(&format!("{}/v1/sagas", node.url));
    let of_sagas = ids(&found, "sagas", "saga_id");
    let found = get_json(&format!("{}/v1/dead-letters", node.url));
    let of_letters = ids(&found, "dead_letters", "id");
    paths.extend(of_sagas.iter().map(|id| format!("/ui/sagas/{id}")));
    paths.extend(of_letters.iter().map(|id| format!("/ui/letters/{id}")));
    let query: String = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("key_prefix", CORPUS[2]), ("x", CORPUS[0])])
        .finish();
    paths.push(format!("/ui/sagas?{query}"));
    paths.push(format!("/ui/letters?{query}"));

    let browser = Browser::open(Look {
        width: 360,
        ..Look::default()
    });
    for path in &paths {
        browser.goto(&format!("{}{path}", node.url));
        let opened = browser.run("document.querySelectorAll('details').forEach((it) => { it.open = true; }); return document.body.innerText");
        assert_eq!(browser.run(INTRUDERS), json!([null, 0]), "{path}");
        assert_eq!(browser.alert(), None, "{path}");
        assert_eq!(browser.console(), Vec::<String>::new(), "{path}");
        let shown = opened.as_str().unwrap_or_default();
        for hidden in ['\u{202e}', '\u{1b}', '\u{7}', '\u{200b}'] {
            assert!(!shown.contains(hidden), "{path} shows {hidden:?}");
        }
    }
    // As text it is there.
    browser.goto(&format!("{}/ui/letters", node.url));
    browser.sees("<script>window.done");
    browser.is_sound("hostile-letters");
    browser.goto(&format!("{}/ui/sagas/{}", node.url, of_sagas[0]));
    browser.is_sound("hostile-saga");
}
