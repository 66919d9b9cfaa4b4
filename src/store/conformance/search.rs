//! Cases: finding sagas by what people know of them, in pages, and by cause.

use std::time::Duration;

use super::Complete;
use super::sagas::store_all;
use super::sample::{at, new_saga, next, saga};
use crate::definition::{Label, LabelValue};
use crate::id::{Phase, SagaId};
use crate::saga::StepPhase;
use crate::store::search::{SearchOrder, SearchPage};
use crate::store::{Filter, SagaCause, SagaHead, SagaWrite, Status};

fn spot(step: &str, phase: Phase) -> StepPhase {
    StepPhase {
        step: step.parse().unwrap(),
        phase,
    }
}

fn cause(id: &str, step: &str, since: i64) -> SagaCause {
    SagaCause {
        id: id.to_owned(),
        spot: Some(spot(step, Phase::Confirm)),
        reason: format!("no route to {step} ({since})"),
        since: at(since),
    }
}

fn label(name: &str, value: LabelValue) -> Label {
    Label {
        name: name.to_owned(),
        value,
    }
}

/// Sagas that differ in everything that can be asked for. Each is written twice, so that what changes
/// is what the second write said.
async fn varied(store: &dyn Complete) -> Vec<SagaWrite> {
    let statuses = Status::ALL;
    let mut all = Vec::new();
    for number in 1..=24_u128 {
        let place = usize::try_from(number).unwrap();
        let mut write = new_saga(
            number,
            &format!("{}-{number}", ["A", "B", "Aé"][place % 3]),
            1,
        );
        let head = &mut write.head;
        ["place-order", "refund"][place % 2].clone_into(&mut head.name);
        head.version = u32::try_from(1 + number % 3).unwrap();
        head.started_at = at(i64::try_from(number).unwrap());
        head.parent = (number % 5 == 0).then(|| saga(1));
        head.awaits = Some(spot("payment", Phase::Reserve));
        write.labels = vec![
            label(
                "customer",
                LabelValue::Text(["alice", "bob", "42"][place % 3].to_owned()),
            ),
            label(
                "amount",
                LabelValue::Number([-2.0, 42.0, 1e3, 0.5][place % 4]),
            ),
        ];
        if number.is_multiple_of(4) {
            let due = at(1_000_000 * i64::try_from(number).unwrap());
            write.labels.push(label("due", LabelValue::Time(due)));
        }
        all.push(write);
    }
    store_all(store, all.clone()).await;
    for (place, write) in all.iter_mut().enumerate() {
        let labels = std::mem::take(&mut write.labels);
        *write = next(write, 1);
        let head = &mut write.head;
        head.status = statuses[place % statuses.len()];
        head.updated_at = at(1_000 + i64::try_from(place).unwrap());
        if head.status.is_ended() {
            head.ended_at = Some(head.updated_at);
            head.awaits = None;
            // Two that ended at the same time.
            if place > 20 {
                head.ended_at = Some(at(5));
            }
        } else {
            let steps = ["stock[1]", "stock[12]", "stocks", "payment"];
            head.awaits = Some(spot(steps[place % 4], Phase::Confirm));
        }
        if !matches!(head.status, Status::Running | Status::Completed) {
            let step = ["stock[1]", "payment"][place % 2];
            head.cause = Some(cause(["c1", "c2"][place % 2], step, 100));
        }
        if place == 9 {
            head.superseded = true;
        }
        store_all(store, vec![write.clone()]).await;
        write.labels = labels;
    }
    all
}

async fn found(store: &dyn Complete, filter: &Filter, page: &SearchPage) -> Vec<SagaId> {
    let heads = store.search(filter, page).await.unwrap();
    heads.iter().map(|head| head.id).collect()
}

/// The reference is [`Filter::holds`]; each condition finds something, and not everything.
pub async fn each_condition_of_a_filter_finds_what_the_reference_finds(store: &dyn Complete) {
    let all = varied(store).await;
    let parent = saga(1);
    let two = format!("id={},{}", saga(3), saga(17));
    let texts = [
        "name=refund".to_owned(),
        "version=1,3".to_owned(),
        "status=suspended".to_owned(),
        "status=live".to_owned(),
        "status=completed,compensated&name=refund".to_owned(),
        "key=B-1".to_owned(),
        "key=B-1&name=refund".to_owned(),
        "key_prefix=A".to_owned(),
        "key_prefix=A%C3%A9&name=refund".to_owned(),
        format!("started_since={}&started_until={}", at(5), at(9)),
        format!("ended_since={}", at(1_004)),
        format!("ended_until={}", at(1_004)),
        format!("updated_since={}&updated_until={}", at(1_003), at(1_020)),
        "step=stock".to_owned(),
        "step=stock%5B1%5D&phase=confirm".to_owned(),
        "phase=confirm".to_owned(),
        "reason=to+payment".to_owned(),
        "cause=c1".to_owned(),
        "in_trouble=true".to_owned(),
        "label=customer%3Dalice".to_owned(),
        "label=customer%3D42".to_owned(),
        "label=amount%3E%3D42&label=customer%3Dbob".to_owned(),
        "label=amount%3C0&status=live".to_owned(),
        format!("parent={parent}"),
        two,
    ];
    let newest = SearchPage::newest(100);
    for text in texts {
        let filter = Filter::read(&text, at(0)).unwrap();
        let fits = |write: &&SagaWrite| filter.holds(&write.head, &write.labels);
        let mut expected: Vec<SagaId> = all.iter().filter(fits).map(|it| it.head.id).collect();
        expected.reverse();
        assert_eq!(found(store, &filter, &newest).await, expected, "{text}");
        if !text.starts_with("key=B-1") {
            assert!(
                (1..24).contains(&expected.len()),
                "{text}: {}",
                expected.len()
            );
        }
        let count = store.count(&filter, 100).await.unwrap();
        assert_eq!(
            (count.sagas, count.or_more),
            (expected.len() as u64, false),
            "{text}"
        );
    }
    let heads = store.search(&Filter::default(), &newest).await.unwrap();
    let stored: Vec<&SagaHead> = all.iter().rev().map(|write| &write.head).collect();
    assert_eq!(heads.iter().collect::<Vec<_>>(), stored);
    let labels = store.labels(&[saga(4), saga(99), saga(1)]).await.unwrap();
    let names: Vec<Vec<&str>> = labels
        .iter()
        .map(|labels| labels.iter().map(|label| label.name.as_str()).collect())
        .collect();
    assert_eq!(
        names,
        [
            vec!["amount", "customer", "due"],
            vec![],
            vec!["amount", "customer"]
        ]
    );
    assert_eq!(labels[0][2].value, LabelValue::Time(at(4_000_000)));
}

/// In both directions, whatever the size of the page.
pub async fn pages_of_each_order_bring_everything_once(store: &dyn Complete) {
    let all = varied(store).await;
    for (sort, filter) in [
        ("started", ""),
        ("-started", "status=live"),
        ("ended", ""),
        ("-ended", "name=refund"),
        ("key", "name=place-order"),
        ("-key", "name=refund"),
    ] {
        let filter = Filter::read(filter, at(0)).unwrap();
        let first = SearchPage::newest(3).sorted(sort).unwrap();
        let mut expected: Vec<&SagaHead> = all
            .iter()
            .filter(|write| filter.holds(&write.head, &write.labels))
            .map(|write| &write.head)
            .filter(|head| match first.order {
                SearchOrder::Started => true,
                SearchOrder::Ended => head.ended_at.is_some(),
                SearchOrder::Key => !head.superseded,
            })
            .collect();
        expected.sort_by_key(|head| match first.order {
            SearchOrder::Started => (None, String::new(), head.id),
            SearchOrder::Ended => (head.ended_at, String::new(), head.id),
            SearchOrder::Key => (None, head.key.clone(), head.id),
        });
        if sort.starts_with('-') {
            expected.reverse();
        }
        let expected: Vec<SagaId> = expected.into_iter().map(|head| head.id).collect();
        let (mut page, mut read) = (first.clone(), Vec::new());
        loop {
            let heads = store.search(&filter, &page).await.unwrap();
            read.extend(heads.iter().map(|head| head.id));
            let Some(last) = heads.last() else { break };
            let cursor = page.place(last).to_string();
            page = first.clone().following(&cursor).unwrap();
        }
        assert_eq!(read, expected, "{sort}");
    }
    let below = SearchPage {
        below: Some(saga(3)),
        ascending: true,
        ..SearchPage::newest(9)
    };
    assert_eq!(
        found(store, &Filter::default(), &below).await,
        [saga(1), saga(2)]
    );
}

/// A number is no text, and a range keeps to its type.
pub async fn labels_are_found_by_their_type(store: &dyn Complete) {
    let values = [
        LabelValue::Text("7".to_owned()),
        LabelValue::Number(7.0),
        LabelValue::Number(70.0),
        LabelValue::Text("seven".to_owned()),
        LabelValue::Time(at(7)),
        LabelValue::Text("a\u{0}b".to_owned()),
    ];
    let mut writes = Vec::new();
    for (number, value) in (1..).zip(values) {
        let mut write = new_saga(number, &number.to_string(), 1);
        write.labels = vec![label("x", value)];
        writes.push(write);
    }
    store_all(store, writes).await;
    let is_at = format!("x={}", at(7));
    let before = format!("x<{}", at(8));
    for (condition, expected) in [
        ("x=7", &[2, 1][..]),
        ("x=7.0", &[2]),
        ("x>7", &[3]),
        ("x>=7", &[3, 2]),
        ("x<1000", &[3, 2]),
        ("x>a", &[6, 4]),
        ("x<b", &[6, 1]),
        (&is_at, &[5]),
        (&before, &[5]),
        ("y=7", &[]),
    ] {
        let mut filter = Filter::default();
        filter.set("label", condition, at(0)).unwrap();
        let expected: Vec<SagaId> = expected.iter().map(|number| saga(*number)).collect();
        assert_eq!(
            found(store, &filter, &SearchPage::newest(9)).await,
            expected,
            "{condition}"
        );
    }
}

/// One more is not counted.
pub async fn counts_end_at_their_bound(store: &dyn Complete) {
    varied(store).await;
    for (bound, expected) in [(0, (0, true)), (23, (23, true)), (24, (24, false))] {
        let count = store.count(&Filter::default(), bound).await.unwrap();
        assert_eq!((count.sagas, count.or_more), expected);
    }
}

/// By definition, step, phase and reason; with how it goes.
pub async fn sagas_in_trouble_are_grouped_by_cause(store: &dyn Complete) {
    const MINUTE: i64 = 60_000_000;
    let now = at(0).after(Duration::from_hours(10));
    let minutes_ago = |minutes: i64| 600 * MINUTE - minutes * MINUTE;
    let stuck = [
        (1, "c1", Status::Suspended, 5),
        (2, "c1", Status::Suspended, 70),
        (3, "c1", Status::Confirming, 50),
        (4, "c2", Status::Compensated, 300),
        (5, "c1", Status::Suspended, 110),
        (6, "c3", Status::Compensating, 10),
    ];
    let mut writes = vec![new_saga(7, "7", 1)];
    for (number, id, status, minutes) in stuck {
        let mut write = new_saga(number, &number.to_string(), 1);
        write.head.status = status;
        write.head.cause = Some(cause(id, "stock[1]", minutes_ago(minutes)));
        write.labels = vec![label("customer", LabelValue::Text("alice".to_owned()))];
        writes.push(write);
    }
    store_all(store, writes).await;
    let shown = async |text: &str, limit: usize| {
        let filter = Filter::read(text, now).unwrap();
        let groups = store.groups(&filter, now, limit).await.unwrap();
        let shown = groups.iter().map(|group| {
            let (last, before) = (group.last_hour.sagas, group.hour_before.sagas);
            let id = group.sample.cause.as_ref().unwrap().id.clone();
            (id, group.count.sagas, last, before, group.sample.id)
        });
        shown.collect::<Vec<_>>()
    };
    let group = |id: &str, count, last, before, sample: u128| {
        (id.to_owned(), count, last, before, saga(sample))
    };
    let (c1, c2, c3) = (
        group("c1", 4, 2, 2, 1),
        group("c2", 1, 0, 0, 4),
        group("c3", 1, 1, 0, 6),
    );
    let all = vec![c1.clone(), c2.clone(), c3.clone()];
    assert_eq!(shown("", 9).await, all);
    assert_eq!(shown("label=customer%3Dalice", 9).await, all);
    assert_eq!(shown("status=live", 9).await, [c1.clone(), c3]);
    assert_eq!(shown("name=refund", 9).await, []);
    assert_eq!(shown("name=place-order&status=ended", 9).await, [c2]);
    assert_eq!(shown("status=live", 1).await, [c1]);
    assert_eq!(
        shown("cause=c1&status=suspended", 9).await,
        [group("c1", 3, 1, 2, 1)]
    );
    let filter = Filter::read("cause=c1", now).unwrap();
    let groups = store.groups(&filter, now, 9).await.unwrap();
    assert_eq!(groups[0].oldest, at(minutes_ago(110)));
    assert_eq!(groups[0].newest, at(minutes_ago(5)));
}
