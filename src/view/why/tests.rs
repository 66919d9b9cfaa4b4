use super::*;
use crate::id::Phase;

fn why(kind: WaitKind) -> WhyView {
    WhyView {
        since: Some("2026-03-01T10:00:00.25Z".to_owned()),
        until: Some("2026-03-01T11:00:00Z".to_owned()),
        ..WhyView::blank(kind)
    }
}

fn of_command(kind: WaitKind) -> WhyView {
    WhyView {
        spot: Some(SpotView {
            step: "stock[2]".to_owned(),
            phase: Phase::Confirm,
        }),
        attempt: Some(3),
        attempts_max: Some(20),
        command: Some("inventory.confirm".to_owned()),
        queue: Some(QueueView {
            name: "inventory".to_owned(),
            seen: None,
        }),
        ..why(kind)
    }
}

#[test]
fn each_kind_of_waiting_has_its_sentence() {
    let saga = SagaId(uuid::Uuid::from_u128(9));
    let trouble = Some("no route".to_owned());
    let signal = WhyView {
        spot: Some(SpotView {
            step: "money".to_owned(),
            phase: Phase::Action,
        }),
        signal: Some("paid".to_owned()),
        ..why(WaitKind::Signal)
    };
    for (why, expected) in [
        (
            of_command(WaitKind::Reply),
            "waits since 2026-03-01T10:00:00Z for the answer to `inventory.confirm` (stock[2] confirm, attempt 3 of 20), due by 2026-03-01T11:00:00Z",
        ),
        (
            WhyView {
                trouble: trouble.clone(),
                unsent: true,
                ..of_command(WaitKind::Reply)
            },
            "waits since 2026-03-01T10:00:00Z for the answer to `inventory.confirm` (stock[2] confirm, attempt 3 of 20), due by 2026-03-01T11:00:00Z; the last trouble was: no route; the command is still in the outbox: no node could publish it",
        ),
        (
            WhyView {
                trouble: trouble.clone(),
                ..of_command(WaitKind::Retry)
            },
            "has tried `inventory.confirm` since 2026-03-01T10:00:00Z (stock[2] confirm, attempt 3 of 20), next at 2026-03-01T11:00:00Z; the last trouble was: no route",
        ),
        (
            WhyView {
                trouble: trouble.clone(),
                until: None,
                ..of_command(WaitKind::Person)
            },
            "waits since 2026-03-01T10:00:00Z for a person to retry or skip `inventory.confirm` (stock[2] confirm, attempt 3 of 20): no route",
        ),
        (
            WhyView {
                other_saga: Some(saga),
                command: None,
                queue: None,
                ..of_command(WaitKind::SubSaga)
            },
            "waits since 2026-03-01T10:00:00Z for its sub-saga 00000000-0000-0000-0000-000000000009 (stock[2] confirm, attempt 3 of 20), due by 2026-03-01T11:00:00Z",
        ),
        (
            signal.clone(),
            "waits since 2026-03-01T10:00:00Z for the signal `paid` (money), until 2026-03-01T11:00:00Z",
        ),
        (
            WhyView {
                until: None,
                others: 2,
                ..signal.clone()
            },
            "waits since 2026-03-01T10:00:00Z for the signal `paid` (money), for as long as it takes; 2 other steps wait, too",
        ),
        (
            WhyView {
                r#for: WaitKind::Time,
                others: 1,
                ..signal
            },
            "sleeps since 2026-03-01T10:00:00Z (money) until 2026-03-01T11:00:00Z; one other step waits, too",
        ),
        (
            WhyView {
                other_saga: Some(saga),
                ..why(WaitKind::Parent)
            },
            "is prepared since 2026-03-01T10:00:00Z and waits for saga 00000000-0000-0000-0000-000000000009, which runs it, to say on",
        ),
        (
            WhyView {
                trouble: Some("ann paused it: stock-taking".to_owned()),
                ..why(WaitKind::Resume)
            },
            "is paused since 2026-03-01T10:00:00Z until a person resumes it: ann paused it: stock-taking",
        ),
        (
            WhyView::blank(WaitKind::Node),
            "waits for nothing: a node is about to go on with it",
        ),
    ] {
        assert_eq!(why.sentence(), expected);
    }
}

#[test]
fn what_is_seen_of_queues_and_letters_is_said() {
    let seen = |exists, waiting, consumers| QueueSeen {
        exists,
        waiting,
        consumers,
    };
    for (queue, open_letters, expected) in [
        (None, None, ""),
        (None, Some(0), ""),
        (None, Some(1), "; one dead letter of it is open"),
        (
            Some(seen(false, 0, None)),
            None,
            "; its queue `inventory` does not exist: start its participant",
        ),
        (
            Some(seen(true, 14, Some(0))),
            Some(2),
            "; nobody takes from its queue `inventory`, where 14 messages wait; 2 dead letters of it are open",
        ),
        (
            Some(seen(true, 1, Some(1))),
            None,
            "; its queue `inventory` has one consumer, and 1 message waits there",
        ),
        (
            Some(seen(true, 0, Some(3))),
            None,
            "; its queue `inventory` has 3 consumers, and no message waits there",
        ),
        (
            Some(seen(true, 5, None)),
            None,
            "; in its queue `inventory` 5 messages wait",
        ),
    ] {
        let mut why = of_command(WaitKind::Reply);
        let alone = why.sentence();
        why.see(&Surroundings {
            queue,
            open_letters,
        });
        assert_eq!(why.text.strip_prefix(&alone), Some(expected));
    }
}
