//! What a node needs of memory with its usual settings, while the largest bodies of small values that it
//! takes come all at once: such a body takes forty times its size once it is read.
#![cfg(target_os = "linux")]

use std::fs;

use tempfile::TempDir;

use crate::fixture::{Backends, Node, PATIENCE, Sent, Wire, eventually, post_text};

/// Keeps its input, and stands still.
const KEEP: &str = "
saga: keep
version: 1
key: ${ input.id }
timeout: 30d
steps:
  - wait: said
";
const STARTS: usize = 40;
const REQUESTS: usize = 50;
/// The cache has 256 MiB of it at most.
const MEMORY_MAX: u64 = 300_000_000;

/// A megabyte of 49,000 objects with one field each.
fn input(id: &str) -> String {
    let items = r#"{"something":1},"#.repeat(49_000);
    format!(
        r#"{{"id":"{id}","items":[{items}1],"rest":"{}"}}"#,
        "x".repeat(240_000)
    )
}

struct Bundle {
    backends: Backends,
    node: Node,
    _sagas: TempDir,
}

impl Bundle {
    fn start() -> Self {
        let backends = Backends::create();
        let sagas = tempfile::tempdir().expect("a directory");
        fs::write(sagas.path().join("keep.yaml"), KEEP).expect("a file");
        let node = Node::serve(&backends, sagas.path());
        Self {
            backends,
            node,
            _sagas: sagas,
        }
    }

    fn wait_for(&self, sagas: usize) {
        let sagas = i64::try_from(sagas).expect("few");
        eventually("all are started", PATIENCE * 2, || {
            (self.backends.database.count("backstitch.sagas") == sagas).then_some(())
        });
    }

    fn assert_small(&self) {
        let peak = self.node.memory_peak();
        println!("{} MB at the peak", peak / 1_000_000);
        assert!(peak <= MEMORY_MAX, "{peak} bytes at the peak");
    }
}

#[test]
fn large_starts_by_the_queue_fit() {
    let bundle = Bundle::start();
    let wire = Wire::connect(&bundle.backends.virtual_host.url);
    for n in 0..STARTS {
        let id = n.to_string();
        let body = input(&id);
        let start = Sent {
            kind: Some("keep"),
            message_id: Some(&id),
            body: body.as_bytes(),
            ..Sent::default()
        };
        wire.send("backstitch.start", &start);
    }
    bundle.wait_for(STARTS);
    bundle.assert_small();
}

#[test]
fn large_starts_over_http_fit() {
    let bundle = Bundle::start();
    let url = format!("{}/sagas/keep", bundle.node.url);
    std::thread::scope(|scope| {
        for n in 0..REQUESTS {
            let url = &url;
            scope.spawn(move || {
                let body = input(&n.to_string());
                // A slow machine may not be done in the time of a request; then it is asked again.
                eventually("it is accepted", PATIENCE * 2, || {
                    match post_text(url, &body) {
                        Ok((200..300, _)) => Some(()),
                        Ok((503, _)) => None,
                        other => panic!("{other:?}"),
                    }
                });
            });
        }
    });
    bundle.wait_for(REQUESTS);
    bundle.assert_small();
}

/// What cannot be read as a start is kept as bytes, whatever its size.
#[test]
fn bodies_that_are_much_too_large_fit() {
    let bundle = Bundle::start();
    let wire = Wire::connect(&bundle.backends.virtual_host.url);
    for n in 0..STARTS {
        // Else one that comes again could be taken for another.
        let body = [n.to_string().as_bytes(), &vec![b'1'; 8_000_000]].concat();
        let start = Sent {
            kind: Some("keep"),
            body: &body,
            ..Sent::default()
        };
        wire.send("backstitch.start", &start);
    }
    let letters = i64::try_from(STARTS).expect("few");
    eventually("all are letters", PATIENCE * 2, || {
        (bundle.backends.database.count("backstitch.dead_letters") == letters).then_some(())
    });
    bundle.assert_small();
}
