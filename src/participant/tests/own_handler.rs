//! A team's own handler, beside the aggregates.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;

use super::*;
use crate::limits::BODY;
use crate::store::participant::AggregateKey;

/// A team's own handler: fails the first time it is asked.
struct Moody {
    asked: Arc<AtomicU32>,
}

#[async_trait]
impl CommandHandler for Moody {
    fn commands(&self) -> &'static [CommandSpec] {
        const { &[CommandSpec::new("plain.do")] }
    }

    fn aggregate_of(&self, _command: &Command) -> Result<Option<AggregateKey>, Rejection> {
        Ok(None)
    }

    async fn handle(
        &self,
        _command: &Command,
        _unit: &mut UnitOfWork,
    ) -> Result<Value, CommandRefusal> {
        match self.asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err(CommandRefusal::Failed("the moon is wrong".to_owned())),
            times => Ok(json!(times)),
        }
    }
}

/// Answers with more than a reply may be, and less for saga 2.
struct Talkative;

#[async_trait]
impl CommandHandler for Talkative {
    fn commands(&self) -> &'static [CommandSpec] {
        const { &[CommandSpec::new("plain.tell")] }
    }

    fn aggregate_of(&self, _command: &Command) -> Result<Option<AggregateKey>, Rejection> {
        key_of::<Inventory>("a".to_owned()).map(Some)
    }

    async fn handle(
        &self,
        command: &Command,
        unit: &mut UnitOfWork,
    ) -> Result<Value, CommandRefusal> {
        let key = key_of::<Inventory>("a".to_owned())?;
        let stock = unit.aggregate::<Inventory>(&key)?;
        stock.record(&[inventory::Event::Received { quantity: 1 }])?;
        let small = command.saga == SagaId(Uuid::from_u128(2));
        let bytes = if small { 10 } else { BODY.bytes };
        Ok(json!("x".repeat(bytes)))
    }
}

#[tokio::test]
async fn what_can_not_be_answered_is_rejected_and_not_done() {
    let mut bundle = Bundle::new().await;
    let ask = |saga| command("plain.tell", saga, Phase::Action, &json!({}));
    bundle
        .send("plain", vec![ask(1), ask(2), ask(3), ask(1)])
        .await;
    let running = bundle.start(Participant::new("plain").handler(Talkative));
    let mut outcomes: Vec<String> = Vec::new();
    for reply in bundle.replies(4).await {
        if reply.outcome == "rejected" {
            let reason = reply.reason.unwrap();
            assert!(reason.contains("too large"), "{reason}");
        }
        outcomes.push(reply.outcome);
    }
    outcomes.sort();
    assert_eq!(outcomes, ["rejected", "rejected", "rejected", "succeeded"]);
    assert_eq!(bundle.stock().await, (11, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_failed_command_leaves_no_trace_and_is_run_again() {
    let mut bundle = Bundle::new().await;
    let asked = Arc::new(AtomicU32::new(0));
    let moody = Moody {
        asked: Arc::clone(&asked),
    };
    let running = bundle.start(Participant::new("plain").handler(moody));
    let act = command("plain.do", 1, Phase::Action, &json!({}));
    let failed = bundle.ask("plain", act.clone()).await;
    assert_eq!(failed.outcome, "failed");
    assert_eq!(failed.reason.as_deref(), Some("the moon is wrong"));
    for _ in 0..2 {
        assert_eq!(bundle.ask("plain", act.clone()).await.body, json!(1));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    running.stop().await;
}
