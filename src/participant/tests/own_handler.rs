//! A team's own handler, beside the aggregates.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;

use super::*;
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

    async fn handle(&self, _command: &Command, _unit: &mut UnitOfWork) -> Result<Value, Refusal> {
        match self.asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Refusal::Failed("the moon is wrong".to_owned())),
            times => Ok(json!(times)),
        }
    }
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
