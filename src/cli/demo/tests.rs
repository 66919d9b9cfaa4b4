use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::report::{grouped, parse_stat, percentile};
use super::workload::{Sizes, Workload};
use crate::id::Timestamp;

const SIZES: Sizes = Sizes {
    orders: 2_000,
    customers: 200,
    articles: 50,
};

fn workload(sizes: Sizes, seed: u64) -> Workload {
    Workload::make(sizes, seed, Uuid::nil(), Timestamp::default(), true)
}

#[test]
fn the_same_seed_makes_the_same_orders_and_another_seed_others() {
    let first = workload(SIZES, 1);
    assert_eq!(first.orders, workload(SIZES, 1).orders);
    assert_eq!(first.silent, workload(SIZES, 1).silent);
    assert_ne!(first.orders, workload(SIZES, 2).orders);
}

#[test]
fn about_a_fifth_of_the_orders_is_bound_to_fail() {
    let workload = workload(SIZES, 1);
    let expected = &workload.expected;
    let broke = workload
        .orders
        .iter()
        .filter(|order| order.total > expected.balances[&order.customer])
        .count();
    let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
    for item in workload.orders.iter().flat_map(|order| &order.items) {
        *wanted.entry(&item.sku).or_default() += item.quantity;
    }
    let missing: u64 = wanted
        .iter()
        .map(|(sku, pieces)| pieces.saturating_sub(expected.stock[*sku]))
        .sum();
    assert_eq!(workload.orders.len(), 2_000);
    assert_eq!(broke, 180);
    assert!(
        (175..=185).contains(&missing),
        "{missing} pieces are missing"
    );
    assert_eq!(workload.silent.len(), 30);
}

#[test]
fn the_smallest_shop_is_a_shop() {
    let sizes = Sizes {
        orders: 1,
        customers: 2,
        articles: 2,
    };
    for seed in 0..50 {
        let workload = workload(sizes, seed);
        assert_eq!(workload.orders.len(), 1);
        assert!(workload.orders[0].total > 0);
    }
}

#[test]
fn processor_time_is_read_behind_a_name_with_anything_in_it() {
    let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 150 7 9 20 0 4 0 100 1 1";
    assert_eq!(parse_stat(stat), Some(Duration::from_secs(4)));
    assert_eq!(parse_stat("42 (a"), None);
}

#[test]
fn percentiles_are_values_that_occurred() {
    let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
    for (percent, expected) in [(50, 100.0), (99, 198.0), (100, 200.0)] {
        let found = percentile(&values, percent);
        assert!((found - expected).abs() < 1e-9, "p{percent}: {found}");
    }
    assert!(percentile(&[], 99).abs() < 1e-9);
}

#[test]
fn numbers_are_grouped_by_thousands() {
    for (number, text) in [
        (0, "0"),
        (999, "999"),
        (1_000, "1,000"),
        (1_234_567, "1,234,567"),
    ] {
        assert_eq!(grouped(number), text);
    }
}
