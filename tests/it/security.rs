//! Who may use a node that other machines reach, from the prompt; and that secrets stay where they
//! belong.

use std::path::Path;

use tempfile::TempDir;

use crate::fixture::{
    Backends, Command, Node, PATIENCE, eventually, finish, free_address, get, repository, told,
};

const ORDER: &str = r#"{"order_id": "1", "customer": "ann", "total": 100, "items": [{"sku": "book", "quantity": 1}]}"#;

/// A database file, and the files of those who use it.
struct Shop {
    directory: TempDir,
}

impl Shop {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory }
    }

    fn file(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_string_lossy()
            .into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let database = format!("sqlite:{}", self.file("shop.db"));
        Command::backstitch(arguments).database(database)
    }

    /// A token in a file.
    fn token(&self, arguments: &[&str]) -> String {
        let made = finish(&self.command(&[&["token", "create"], arguments].concat()));
        assert!(made.status.success(), "{}", told(&made));
        let path = self.file("token");
        std::fs::write(&path, &made.stdout).expect("a file");
        path
    }

    fn serve(&self, listen: &str) -> Node {
        let sagas = repository("sagas");
        let sagas = sagas.to_string_lossy();
        let arguments = [
            "serve",
            "--with-participants",
            "--sagas",
            &sagas,
            "--listen",
            listen,
        ];
        Node::start(&self.command(&arguments))
    }
}

#[test]
fn a_node_that_other_machines_reach_asks_who_somebody_is() {
    let shop = Shop::new();
    let (_, port) = free_address()
        .rsplit_once(':')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let address = format!("0.0.0.0:{port}");
    let url = format!("http://127.0.0.1:{port}");
    let mut refused = shop.serve(&address);
    assert_eq!(refused.ended().code(), Some(2));
    assert!(
        refused.log().contains("--insecure-no-auth"),
        "{}",
        refused.log()
    );

    let scopes = ["--name", "shop", "--scope", "sagas:start,sagas:read"];
    let token = shop.token(&[&scopes[..], &["--saga", "place-order"]].concat());
    let mut node = shop.serve(&address);
    eventually("the node is ready", PATIENCE, || {
        node.assert_running();
        matches!(get(&format!("{url}/readyz")), Ok((200, _))).then_some(())
    });
    let ask = |arguments: &[&str], token: Option<&str>| {
        let mut command = shop.command(arguments).with("--url").with(&url);
        if let Some(token) = token {
            command = command.with("--token-file").with(token);
        }
        let output = finish(&command);
        (output.status.code(), told(&output))
    };
    let start = ["start", "place-order", "--input", ORDER, "--wait"];
    let (code, text) = ask(&start, None);
    assert!(code == Some(1) && text.contains("BST-0047"), "{text}");
    let (code, text) = ask(&start, Some(&token));
    // Whether there is stock is not the point.
    assert!(code == Some(0) || code == Some(3), "{text}");
    let id = text
        .split_whitespace()
        .find(|word| word.len() == 36)
        .expect("a saga's id");
    let cancel = ["cancel", id, "--why", "wrong address"];
    let (code, text) = ask(&cancel, Some(&token));
    assert!(code == Some(1) && text.contains("BST-0048"), "{text}");

    let shown = told(&finish(&shop.command(&["token", "list", "--json"])));
    assert!(shown.contains("sagas:start@place-order"), "{shown}");
    let list: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let id = list["tokens"][0]["id"].as_str().expect("an id");
    let revoked = finish(&shop.command(&["token", "revoke", id, "--by", "ann", "--why", "leaked"]));
    assert!(revoked.status.success(), "{}", told(&revoked));
    eventually("the token is refused", PATIENCE, || {
        let (_, text) = ask(&start, Some(&token));
        text.contains("BST-0047").then_some(())
    });
    assert!(node.terminate().success(), "{}", node.log());
    let audit = told(&finish(&shop.command(&["dead-letters", "audit", "--list"])));
    assert!(
        audit.contains("token-create") && audit.contains("leaked"),
        "{audit}"
    );
}

#[test]
fn secrets_are_in_no_log_however_much_is_logged() {
    let backends = Backends::create();
    let shop = Shop::new();
    // The one line of a file, as orchestrators of containers hand them over.
    let address = backends.virtual_host.user(".*");
    let password = address
        .split(['@', ':'])
        .nth(2)
        .expect("a password")
        .to_owned();
    let write = |name: &str, text: &str| {
        let path = shop.file(name);
        std::fs::write(&path, format!("{text}\n")).expect("a file");
        path
    };
    let amqp = write("amqp", &address);
    let database = write("database", &backends.database.url);
    let made = finish(
        &Command::backstitch(["token", "create", "--name", "shop", "--scope", "admin"])
            .with("--database-url-file")
            .with(&database),
    );
    let token = String::from_utf8(made.stdout)
        .expect("text")
        .trim()
        .to_owned();
    let file = write("token", &token);
    let listen = free_address();
    let sagas = repository("sagas");
    let node = Command::backstitch(["--log", "trace", "serve", "--listen", &listen, "--sagas"])
        .with(sagas)
        .with("--database-url-file")
        .with(&database)
        .with("--amqp-url-file")
        .with(&amqp);
    let mut node = Node::start(&node);
    let url = format!("http://{listen}");
    eventually("the node is ready", PATIENCE, || {
        node.assert_running();
        matches!(get(&format!("{url}/readyz")), Ok((200, _))).then_some(())
    });
    let start = [
        "start",
        "place-order",
        "--input",
        ORDER,
        "--url",
        &url,
        "--token-file",
        &file,
    ];
    let started = finish(&Command::backstitch(start));
    assert!(started.status.success(), "{}", told(&started));
    let wrong =
        Command::backstitch(["cancel", "x", "--url", &url, "--token-file"]).with(Path::new(&file));
    let mut seen = told(&started) + &told(&finish(&wrong));
    assert!(node.terminate().success(), "{}", node.log());
    seen += &node.log();
    seen += &backends
        .database
        .text("SELECT coalesce(string_agg(tokens::text, ' '), '') FROM tokens");
    for (what, secret) in [("the token", &token), ("the broker's password", &password)] {
        assert!(secret.len() > 3, "{what}");
        assert!(!seen.contains(secret.as_str()), "{what} is seen");
    }
    backends.virtual_host.forget_user();
}
