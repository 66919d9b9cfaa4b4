//! Sagas that move what is counted: money between accounts, points, quotas.

use std::time::Duration;

use backstitch::aggregates::quotas::{self, Amounts};
use backstitch::aggregates::{Payments, Quotas, payments};
use backstitch::participant::Participant;
use backstitch::saga::OperatorKind;
use backstitch::sim::stage::{Play, Stage, rejects, silent, succeeds};
use serde_json::{Value, json};

use super::{End, output, stage, state_of};

fn bank() -> Stage {
    let with = |amount| [payments::Event::Deposited { amount }];
    stage(&["transfer-money"])
        .shipped_participants()
        .given::<Payments>("ada", with(1_000))
        .given::<Payments>("bob", with(1))
        .given::<Payments>("full", with(u64::MAX - 10))
}

fn transfer(from: &str, to: &str, amount: u64) -> Value {
    json!({ "transfer": "t", "from": from, "to": to, "amount": amount })
}

/// The actual balance, with nothing held or expected.
fn balance(play: &Play, account: &str) -> u64 {
    let state = state_of::<Payments>(play, account);
    assert_eq!(state.actual, state.available, "{account}");
    assert!(state.expected.is_empty(), "{account}");
    state.actual
}

#[test]
fn a_transfer_moves_the_money_or_leaves_it() {
    let cases = [
        (transfer("ada", "bob", 1_000), "completed", (0, 1_001)),
        (transfer("ada", "bob", 1), "completed", (999, 2)),
        (
            transfer("ada", "bob", 1_001),
            "compensated: debit rejected: not enough money: 1001 cents wanted, 1000 available on `ada`",
            (1_000, 1),
        ),
        (
            transfer("ada", "nobody", 10),
            "compensated: credit rejected: there is no account `nobody`",
            (1_000, 1),
        ),
        (
            transfer("ada", "full", 11),
            "compensated: credit rejected: `full` can take at most 10 cents more",
            (1_000, 1),
        ),
    ];
    for (input, ended_as, balances) in cases {
        let play = bank().start("transfer-money", input).play();
        play.assert_sound();
        assert_eq!(play.saga("t").ended_as(), ended_as);
        assert_eq!(
            (balance(&play, "ada"), balance(&play, "bob")),
            balances,
            "{ended_as}"
        );
    }
}

#[test]
fn a_transfer_that_hangs_or_is_called_off_gives_the_money_free() {
    let held = |stage: Stage| stage.start("transfer-money", transfer("a", "b", 5));
    let ends = [
        End {
            what: "the payee does not answer",
            stage: held(stage(&["transfer-money"]).answer("payments.expect", silent())),
            key: "t",
            ended_as: "compensated: credit reserve: no answer within 5s, after 4 attempt(s)",
            done: &[
                "payments.reserve",
                "payments.expect-no-more",
                "payments.release",
            ],
        },
        End {
            what: "a person calls it off",
            stage: held(stage(&["transfer-money"]).answer("payments.expect", silent()))
                .after(Duration::from_secs(1))
                .operate("transfer-money", "t", OperatorKind::Cancel),
            key: "t",
            ended_as: "compensated: cancelled by the stage: it is in the script",
            done: &[
                "payments.reserve",
                "payments.expect-no-more",
                "payments.release",
            ],
        },
    ];
    for end in ends {
        end.reached();
    }
}

fn award(stage: Stage) -> Stage {
    let input = json!({ "award": "a", "project": "p", "task": "t", "points": 5 });
    stage
        .answer("projects.set-points-aside", succeeds(json!({ "left": 15 })))
        .start("award-points", input)
}

#[test]
fn points_reach_the_task_or_stay_with_the_project() {
    let play = End {
        what: "both agree",
        stage: award(stage(&["award-points"])),
        key: "a",
        ended_as: "completed",
        done: &[
            "projects.set-points-aside",
            "tasks.offer-points",
            "projects.spend-points",
            "tasks.take-points",
        ],
    }
    .reached();
    assert_eq!(
        *output(&play, "a"),
        json!({ "task": "t", "points": 5, "left": 15 })
    );
}

#[test]
fn whoever_awards_points_in_vain_reads_why() {
    let ends = [
        End {
            what: "the budget is used up",
            stage: award(stage(&["award-points"]).answer(
                "projects.set-points-aside",
                rejects("4 of 20 points are left"),
            )),
            key: "a",
            ended_as: "compensated: budget rejected: 4 of 20 points are left",
            done: &[],
        },
        End {
            what: "the task is closed",
            stage: award(
                stage(&["award-points"]).answer("tasks.offer-points", rejects("it is closed")),
            ),
            key: "a",
            ended_as: "compensated: task rejected: it is closed",
            done: &["projects.set-points-aside", "projects.put-points-back"],
        },
        End {
            what: "the task does not answer",
            stage: award(stage(&["award-points"]).answer("tasks.offer-points", silent())),
            key: "a",
            ended_as: "compensated: task reserve: no answer within 5s, after 4 attempt(s)",
            done: &[
                "projects.set-points-aside",
                "tasks.withdraw-offer",
                "projects.put-points-back",
            ],
        },
    ];
    for end in ends {
        let why = end.ended_as;
        let play = end.reached();
        // What people see is the view, and it has the reason in its own words.
        let view = serde_json::to_value(play.saga("a").view()).unwrap();
        let shown = view["reason"].as_str().unwrap_or_default();
        assert!(why.ends_with(shown) && !shown.is_empty(), "{shown}");
    }
}

/// A tenant with room for three users, one project and 100 megabytes.
fn tenant() -> Stage {
    equipped(stage(&["add-project"]))
        .answer("storage.allocate", succeeds(json!({ "volume": "v-1" })))
}

fn equipped(stage: Stage) -> Stage {
    let limits = Amounts {
        users: 3,
        projects: 1,
        storage_mb: 100,
    };
    stage
        .participants(|| vec![Participant::new(Quotas::NAME).aggregate::<Quotas>()])
        .given::<Quotas>("t", [quotas::Event::LimitsSet { limits }])
}

fn project(members: &[&str], megabytes: u64) -> Value {
    json!({ "tenant": "t", "project": "p", "members": members, "megabytes": megabytes })
}

#[test]
fn a_project_is_added_within_the_quotas_or_not_at_all() {
    let used = |users, projects, storage_mb| Amounts {
        users,
        projects,
        storage_mb,
    };
    let cases = [
        (
            "within",
            tenant(),
            project(&["ada", "bob"], 60),
            "completed",
            used(2, 1, 60),
        ),
        (
            "to the brim",
            tenant(),
            project(&["ada", "bob", "cy"], 100),
            "completed",
            used(3, 1, 100),
        ),
        (
            "without members",
            tenant(),
            project(&[], 0),
            "completed",
            used(0, 1, 0),
        ),
        (
            "too many users",
            tenant(),
            project(&["ada", "bob", "cy", "dan"], 1),
            "compensated: quota rejected: over the quota of `t`: 4 users wanted, 3 left",
            used(0, 0, 0),
        ),
        (
            "too much storage",
            tenant(),
            project(&[], 101),
            "compensated: quota rejected: over the quota of `t`: 101 storage_mb wanted, 100 left",
            used(0, 0, 0),
        ),
        (
            "one member can't be invited",
            tenant().answer(
                backstitch::sim::stage::on("users.invite").item(1),
                rejects("bob left"),
            ),
            project(&["ada", "bob"], 60),
            "compensated: member[1] rejected: bob left",
            used(0, 0, 0),
        ),
        (
            "no disk",
            equipped(stage(&["add-project"]).answer("storage.allocate", rejects("not here"))),
            project(&["ada"], 60),
            "compensated: storage rejected: not here",
            used(0, 0, 0),
        ),
        (
            "the name is taken",
            tenant().answer("projects.create", rejects("there is one called p")),
            project(&["ada"], 60),
            "compensated: project rejected: there is one called p",
            used(0, 0, 0),
        ),
    ];
    for (what, stage, input, ended_as, used) in cases {
        let play = stage.start("add-project", input).play();
        play.assert_sound();
        assert_eq!(play.saga("t/p").ended_as(), ended_as, "{what}");
        let quotas = state_of::<Quotas>(&play, "t");
        assert_eq!(
            (quotas.used, quotas.reserved),
            (used, Amounts::default()),
            "{what}"
        );
    }
}
