//! Accepted, so stored, read back, sent, answered and confirmed: whatever stands at the edge of a
//! limit is refused where it comes in, with a code, or passes every later door to an end that is all
//! or nothing.
//!
//! Starts, replies and signals are bytes a little below, at and above each limit, and go through the
//! queues of a real engine, on the store in memory and on SQLite. The node keeps no saga in its
//! cache, so each message finds its saga as it is stored.

mod bodies;
mod shop;

use std::sync::Arc;

use backstitch::definition::{BUSINESS_KEY_BYTES_MAX, FOR_EACH_ITEMS_MAX};
use backstitch::limits::{CACHE_BYTES, PORTION_BYTES, SAGA};
use backstitch::store::Store;
use backstitch::store::memory::MemoryStore;
use backstitch::store::sqlite::SqliteStore;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use tokio::runtime::Runtime;

use bodies::Shape;
use shop::{Case, Fate, Shop};

/// Cases that are drawn, with bodies at the edge of a limit and with many commands.
const DRAWN_IN_MEMORY: (u32, u32) = (10, 1);
const DRAWN_IN_SQLITE: (u32, u32) = (6, 1);
/// Bytes of a command that is about as large as one may be.
const PAD: usize = 900_000;

#[test]
fn a_start_at_a_limit_runs_to_its_end_and_one_above_it_is_refused() {
    let runtime = Runtime::new().unwrap();
    let shop = runtime.block_on(Shop::open(Arc::new(MemoryStore::new()), 0));
    for edge in Shape::EDGES {
        for (off, expected) in [(0, Fate::Completed), (1, Fate::Refused)] {
            let input = edge(off);
            let case = Case {
                input,
                ..Case::SMALL
            };
            let fate = runtime.block_on(shop.play(&case));
            assert_eq!(fate, Ok(expected), "{input:?}");
        }
    }
    runtime.block_on(shop.close());
}

#[test]
fn what_a_decision_leaves_off_goes_on_without_the_clock() {
    let runtime = Runtime::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let shop = runtime.block_on(Shop::open(store, CACHE_BYTES));
    let portions = Case {
        items: 3 * PORTION_BYTES / PAD,
        pad: PAD,
        ..Case::SMALL
    };
    assert_eq!(runtime.block_on(shop.play(&portions)), Ok(Fate::Completed));
    runtime.block_on(shop.close());
}

#[test]
fn what_is_accepted_comes_to_its_end_in_memory() {
    let runtime = Runtime::new().unwrap();
    play_all(&runtime, DRAWN_IN_MEMORY, || Arc::new(MemoryStore::new()));
}

#[test]
fn what_is_accepted_comes_to_its_end_in_sqlite() {
    let runtime = Runtime::new().unwrap();
    play_all(&runtime, DRAWN_IN_SQLITE, || {
        let store = runtime.block_on(SqliteStore::open_in_memory());
        Arc::new(store.unwrap())
    });
}

fn play_all(runtime: &Runtime, drawn: (u32, u32), store: impl Fn() -> Arc<dyn Store>) {
    play_on(runtime, store(), 0, drawn.0, near());
    play_on(runtime, store(), CACHE_BYTES, drawn.1, crowd());
}

/// Draws cases and plays them, one after the other, on one node.
fn play_on(
    runtime: &Runtime,
    store: Arc<dyn Store>,
    cache_bytes: usize,
    cases: u32,
    drawn: impl Strategy<Value = Case>,
) {
    let shop = runtime.block_on(Shop::open(store, cache_bytes));
    let config = Config {
        cases,
        // A case is few words and takes long: it is told as it was drawn.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    let played = TestRunner::new(config).run(&drawn, |case| {
        let fate = runtime.block_on(shop.play(&case));
        fate.map(drop).map_err(TestCaseError::fail)
    });
    match played {
        Err(TestError::Fail(why, case)) => panic!("{why}\n{case:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
        Ok(()) => {}
    }
    runtime.block_on(shop.close());
}

/// Bodies at the edge of what one may be.
fn near() -> impl Strategy<Value = Case> {
    let key = prop_oneof![
        3 => Just(Case::SMALL.key_bytes),
        1 => BUSINESS_KEY_BYTES_MAX - 1..=BUSINESS_KEY_BYTES_MAX + 1,
    ];
    let bodies = (shape(), shape(), shape());
    let denied = prop::option::weighted(0.2, 0_usize..4);
    (bodies, key, 0_usize..4, denied).prop_map(
        |((input, reply, word), key_bytes, items, denied)| Case {
            input,
            reply,
            word,
            key_bytes,
            items,
            denied,
            ..Case::SMALL
        },
    )
}

/// Half of them small, so that one of several is often the only one at an edge.
fn shape() -> impl Strategy<Value = Shape> {
    let edge = (prop::sample::select(&Shape::EDGES[..]), -2..=2_i32);
    prop_oneof![Just(Shape::Small), edge.prop_map(|(edge, off)| edge(off)),]
}

/// Loops at the edge of a portion, of a saga, and of what a loop may be.
fn crowd() -> impl Strategy<Value = Case> {
    let (portion, saga) = (PORTION_BYTES / PAD, SAGA.bytes / PAD);
    let sizes = prop_oneof![
        4 => (portion - 1..=2 * portion + 1).prop_map(|items| (items, PAD)),
        1 => (saga..saga + 3).prop_map(|items| (items, PAD)),
        1 => (FOR_EACH_ITEMS_MAX + 1..FOR_EACH_ITEMS_MAX + 3).prop_map(|items| (items, 0)),
    ];
    let denied = prop::option::of(0..portion);
    (sizes, denied).prop_map(|((items, pad), denied)| Case {
        items,
        pad,
        denied,
        ..Case::SMALL
    })
}
