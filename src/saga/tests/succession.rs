//! A start that replaces the saga holding its key.

use super::*;

fn successor(number: u128, start: Option<&str>, input: Value) -> Input {
    Input::Supersede(Successor {
        saga: SagaId(Uuid::from_u128(number)),
        start: start.map(str::to_owned),
        input: Arc::new(input),
        starter: Some(Starter {
            reply_to: format!("starter-{number}"),
            correlation_id: None,
        }),
        at: Timestamp::from_micros(7),
    })
}

fn other(number: u128) -> Input {
    let start = format!("m{number}");
    successor(
        number,
        Some(&start),
        json!({ "id": "o1", "n": u64::try_from(number).unwrap() }),
    )
}

/// What is sent besides commands and notices: who starts, who is refused.
fn told(story: &mut Story, input: Input) -> Result<Vec<String>, Refusal> {
    let decision = decide(&story.definition, &mut story.saga, input, story.now)?;
    story.journal.extend(decision.events);
    story.check_fold();
    let told = decision
        .emissions
        .into_iter()
        .filter_map(|send| match send {
            Emission::Successor(successor) => Some(format!("start {}", successor.saga.0.as_u128())),
            Emission::Answer { starter, kind, .. } => Some(format!("{kind} {}", starter.reply_to)),
            _ => None,
        });
    Ok(told.collect())
}

fn reply(command: &str) -> Input {
    let (step, phase) = command.split_once(' ').unwrap();
    Input::Reply(Reply {
        step: step.parse().unwrap(),
        phase: phase.parse().unwrap(),
        outcome: Outcome::Succeeded,
        stated: true,
        body: Arc::new(json!({})),
        reason: None,
    })
}

#[test]
fn a_live_saga_is_rolled_back_and_its_successor_starts_when_it_has_ended() {
    let mut story = Story::order(&[]);
    story.yes("order reserve");
    assert!(story.tell(other(2)).unwrap().is_empty(), "heard out first");
    assert_eq!(story.saga.status(), Status::Compensating);
    assert!(story.reason().starts_with("replaced by saga"));
    assert_eq!(story.yes("payment reserve"), ["payment compensate#1"]);
    assert_eq!(story.yes("payment compensate"), ["order compensate#1"]);
    assert!(!story.saga.is_superseded());
    assert_eq!(
        told(&mut story, reply("order compensate")).unwrap(),
        ["start 2"]
    );
    assert!(story.saga.is_superseded());
    assert_eq!(told(&mut story, other(3)), Err(Refusal::Ended));
}

#[test]
fn behind_the_pivot_it_finishes_first() {
    let mut story = Story::order(&[]);
    for command in ["order reserve", "payment reserve"] {
        story.yes(command);
    }
    assert!(told(&mut story, other(2)).unwrap().is_empty());
    assert_eq!(story.saga.status(), Status::Confirming);
    for command in ["order confirm", "payment confirm"] {
        story.yes(command);
    }
    assert_eq!(
        told(&mut story, reply("receipt confirm")).unwrap(),
        ["start 2"]
    );
    assert_eq!(story.saga.status(), Status::Completed);
}

#[test]
fn an_ended_saga_gives_way_at_once() {
    let mut story = Story::order(&[]);
    story
        .tell(operator("a", OperatorKind::ForceComplete))
        .unwrap();
    assert_eq!(told(&mut story, other(2)).unwrap(), ["start 2"]);
    assert_eq!(story.saga.status(), Status::Completed, "ended is final");
}

#[test]
fn only_the_newest_successor_counts_and_the_one_before_it_hears_so() {
    let mut story = Story::order(&[]);
    assert!(told(&mut story, other(2)).unwrap().is_empty());
    assert_eq!(told(&mut story, other(3)).unwrap(), ["refused starter-2"]);
    let ended = operator("a", OperatorKind::ForceCompensated);
    assert_eq!(told(&mut story, ended).unwrap(), ["start 3"]);
}

#[test]
fn the_same_start_again_changes_nothing() {
    let own = json!({ "id": "o1", "items": [] });
    let mut story = Story::order(&[]);
    let cases = [
        successor(2, None, own.clone()),
        successor(2, Some("m9"), own.clone()),
    ];
    for again in cases {
        assert_eq!(told(&mut story, again), Err(Refusal::Settled));
    }
    told(&mut story, other(2)).unwrap();
    let pending = json!({ "id": "o1", "n": 2 });
    let cases = [
        ("delivered again", other(2)),
        (
            "the pending one, asked for again",
            successor(3, Some("m8"), pending),
        ),
        (
            "perhaps the first start, delivered again",
            successor(3, None, own.clone()),
        ),
    ];
    for (case, again) in cases {
        assert_eq!(told(&mut story, again), Err(Refusal::Settled), "{case}");
    }
    // The first input again, as a new wish.
    let back = told(&mut story, successor(4, Some("m4"), own)).unwrap();
    assert_eq!(back, ["refused starter-2"]);
}

#[test]
fn a_late_duplicate_of_a_replaced_start_does_not_replace_its_replacement() {
    let (mut story, _) = Story::begin(ORDER, json!({ "id": "o1", "n": 2, "items": [] }));
    let line = Line {
        starts: vec!["m1".to_owned(), "m2".to_owned()],
        ..Line::default()
    };
    let mut saga = Saga::new(story.saga.id, &story.saga.name, "k", story.now);
    let start = Input::StartInLine {
        input: Arc::new(json!({ "id": "o1", "n": 2, "items": [] })),
        starter: None,
        line,
    };
    let began = decide(&story.definition, &mut saga, start, story.now).unwrap();
    story.saga = saga;
    story.journal = began.events;
    story.check_fold();
    assert_eq!(told(&mut story, other(1)), Err(Refusal::Settled));
    assert!(told(&mut story, other(3)).is_ok());
    let next = story.saga.line.next(story.saga.id);
    assert_eq!(next.starts, ["m1", "m2", "m3"]);
    assert_eq!(next.replaces, Some(story.saga.id));
    for number in 10..40 {
        told(&mut story, other(number)).unwrap();
    }
    assert!(story.saga.line.starts.len() <= 16, "bounded");
}

#[test]
fn a_paused_saga_gives_way_when_a_person_resumes_it() {
    let mut story = Story::order(&[]);
    story.tell(operator("a", OperatorKind::Pause)).unwrap();
    story.tell(other(2)).unwrap();
    assert_eq!(story.saga.status(), Status::Suspended);
    assert!(story.yes("order reserve").is_empty(), "kept");
    let sent = story.tell(operator("b", OperatorKind::Resume)).unwrap();
    assert_eq!(sent, ["order compensate#1"]);
    assert_eq!(story.saga.status(), Status::Compensating);
}

#[test]
fn what_is_sent_to_the_key_of_a_saga_that_gives_way_is_handed_down() {
    let mut story = Story::order(&[]);
    let signal = |id: &str| {
        Input::SignalForSuccessor(Signal {
            name: "said".to_owned(),
            id: id.to_owned(),
            body: Arc::new(json!(1)),
            at: None,
        })
    };
    let early = told(&mut story, signal("a"));
    assert!(matches!(early, Err(Refusal::NotPossible(_))), "{early:?}");
    told(&mut story, other(2)).unwrap();
    assert_eq!(story.saga.heir(), Some(SagaId(Uuid::from_u128(2))));
    told(&mut story, signal("a")).unwrap();
    assert_eq!(told(&mut story, signal("a")), Err(Refusal::Settled));
    for number in 1..SIGNALS_KEPT_MAX {
        told(&mut story, signal(&number.to_string())).unwrap();
    }
    let full = told(&mut story, signal("more"));
    assert_eq!(full, Err(Refusal::TooManySignals));
    let next = story.saga.line.next(story.saga.id);
    assert_eq!(next.kept.len(), SIGNALS_KEPT_MAX);
    assert_eq!(next.kept[0].id, "a");
}

#[test]
fn whoever_wanted_the_same_saga_hears_how_it_ends() {
    let starter = |name: &str| Starter {
        reply_to: "answers".to_owned(),
        correlation_id: Some(name.to_owned()),
    };
    let mut story = Story::unstarted(ORDER);
    let input = Arc::new(json!({ "id": "o1", "items": [] }));
    let first = Some(starter("first"));
    let start = Input::Start {
        input,
        starter: first,
    };
    story.tell(start).unwrap();
    let again = story.tell(Input::Listen(starter("first")));
    assert_eq!(again, Err(Refusal::Settled), "it hears the end anyway");
    assert!(
        story
            .tell(Input::Listen(starter("second")))
            .unwrap()
            .is_empty()
    );
    let again = story.tell(Input::Listen(starter("second")));
    assert_eq!(again, Err(Refusal::Settled));
    for number in 1..LISTENERS_MAX {
        let starter = starter(&number.to_string());
        story.tell(Input::Listen(starter)).unwrap();
    }
    let full = story.tell(Input::Listen(starter("more")));
    assert!(matches!(full, Err(Refusal::NotPossible(_))), "{full:?}");

    let end = operator("end", OperatorKind::ForceComplete);
    let decision = decide(&story.definition, &mut story.saga, end, story.now).unwrap();
    let told: Vec<_> = decision
        .emissions
        .iter()
        .filter_map(|send| match send {
            Emission::Answer { starter, kind, .. } => {
                Some((starter.correlation_id.as_deref().unwrap(), *kind))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1 + LISTENERS_MAX);
    assert_eq!(told[..2], [("first", "completed"), ("second", "completed")]);
    assert_eq!(
        story.tell(Input::Listen(starter("late"))),
        Err(Refusal::Ended)
    );
    let (kind, reason, body) = end_of(&story.saga, story.now).unwrap();
    assert_eq!((kind, reason), ("completed", None));
    assert_eq!(body["status"], "completed");
}
