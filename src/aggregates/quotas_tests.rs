use super::*;
use crate::aggregates::tests::{Bundle, command};

fn limited(users: u64, projects: u64, storage_mb: u64) -> Bundle<Quotas> {
    let mut bundle = Bundle::new();
    bundle
        .tell(&ask(SET_LIMITS, 0, users, projects, storage_mb))
        .unwrap();
    bundle
}

fn ask(name: &str, saga: u128, users: u64, projects: u64, storage_mb: u64) -> Command {
    let payload = json!({
        "tenant": "t", "users": users, "projects": projects, "storage_mb": storage_mb,
    });
    command(name, saga, "quota", payload)
}

fn amounts(users: u64, projects: u64, storage_mb: u64) -> Amounts {
    Amounts {
        users,
        projects,
        storage_mb,
    }
}

#[test]
fn all_three_are_reserved_by_one_command_and_used_by_confirm() {
    let mut bundle = limited(10, 2, 1_000);
    let reply = bundle.tell(&ask(RESERVE, 1, 4, 1, 600)).unwrap();
    let left = json!({ "users": 6, "projects": 1, "storage_mb": 400 });
    assert_eq!(reply["left"], left);
    assert_eq!(bundle.state.used, Amounts::default());
    bundle.tell(&ask(CONFIRM, 1, 4, 1, 600)).unwrap();
    assert_eq!(bundle.state.used, amounts(4, 1, 600));
    assert_eq!(bundle.state.reserved, Amounts::default());
    assert!(bundle.state.reservations.is_empty());
}

#[test]
fn one_quota_that_is_too_small_refuses_all_three_and_says_which() {
    let cases = [
        ((5, 1, 1), "5 users wanted, 4 left"),
        ((1, 2, 1), "2 projects wanted, 1 left"),
        ((1, 1, 401), "401 storage_mb wanted, 400 left"),
        (
            (9, 9, 1),
            "9 users wanted, 4 left; 9 projects wanted, 1 left",
        ),
    ];
    let mut bundle = limited(10, 2, 1_000);
    bundle.tell(&ask(RESERVE, 1, 6, 1, 600)).unwrap();
    let before = bundle.state.clone();
    for ((users, projects, storage_mb), why) in cases {
        let told = bundle.tell(&ask(RESERVE, 2, users, projects, storage_mb));
        assert_eq!(told.unwrap_err().0, format!("over the quota of `t`: {why}"));
        assert_eq!(bundle.state, before);
    }
    bundle.tell(&ask(RESERVE, 2, 4, 1, 400)).unwrap();
}

#[test]
fn what_is_released_or_given_back_can_be_reserved_again() {
    let mut bundle = limited(1, 1, 1);
    bundle.tell(&ask(RESERVE, 1, 1, 1, 1)).unwrap();
    bundle.tell(&ask(RELEASE, 1, 1, 1, 1)).unwrap();
    bundle.tell(&ask(RELEASE, 1, 1, 1, 1)).unwrap();
    bundle.tell(&ask(RESERVE, 2, 1, 1, 1)).unwrap();
    bundle.tell(&ask(CONFIRM, 2, 1, 1, 1)).unwrap();
    bundle.tell(&ask(GIVE_BACK, 0, 1, 0, 1)).unwrap();
    assert_eq!(bundle.state.left(), amounts(1, 0, 1));
    bundle.tell(&ask(GIVE_BACK, 0, 1, 0, 0)).unwrap_err();
    bundle.tell(&ask(CONFIRM, 3, 1, 1, 1)).unwrap_err();
}

#[test]
fn a_limit_below_what_is_used_takes_nothing_away_and_gives_nothing_more() {
    let mut bundle = limited(10, 1, 0);
    bundle.tell(&ask(RESERVE, 1, 8, 0, 0)).unwrap();
    bundle.tell(&ask(CONFIRM, 1, 8, 0, 0)).unwrap();
    bundle.tell(&ask(SET_LIMITS, 0, 5, 1, 0)).unwrap();
    assert_eq!(bundle.state.left(), amounts(0, 1, 0));
    bundle.tell(&ask(RESERVE, 2, 1, 0, 0)).unwrap_err();
    bundle.tell(&ask(RESERVE, 2, 0, 1, 0)).unwrap();
}
