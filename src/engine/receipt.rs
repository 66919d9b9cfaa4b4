//! How to end a work that was lost to a panic: what it was is gone, but not where it came from.

use std::any::Any;
use std::sync::Arc;

use super::room::Space;
use super::work::{Job, Origin, Work};
use crate::broker::{Acks, DeliveryTag};
use crate::error::code;
use crate::store::DeadLetter;

/// How to end a work that was lost to a panic.
pub(super) struct Receipt {
    acks: Arc<dyn Acks>,
    tag: DeliveryTag,
    letter: Arc<dyn Fn() -> DeadLetter + Send + Sync>,
    space: Space,
}

impl Receipt {
    /// For a work that came as a message.
    pub(super) fn of(work: &Work) -> Option<Self> {
        match &work.origin {
            Origin::Delivery {
                acks,
                tag,
                letter,
                space,
            } => Some(Self {
                acks: Arc::clone(acks),
                tag: *tag,
                letter: Arc::clone(letter),
                space: space.clone(),
            }),
            _ => None,
        }
    }

    pub(super) fn all<'a>(works: impl Iterator<Item = &'a Work>) -> Vec<Option<Self>> {
        works.map(Self::of).collect()
    }

    /// The work that keeps the message as a dead letter.
    pub(super) fn bury(&self, what: &str) -> Work {
        let letter = DeadLetter {
            code: code::HANDLING_PANICKED,
            reason: format!("handling this message ended in a panic, which is a bug: {what}"),
            ..(self.letter)()
        };
        let job = Job::Bury {
            letter: Box::new(letter),
            starter: None,
        };
        let origin = Origin::Delivery {
            acks: Arc::clone(&self.acks),
            tag: self.tag,
            letter: Arc::clone(&self.letter),
            space: self.space.clone(),
        };
        Work { job, origin }
    }

    pub(super) fn give_back(self) {
        self.acks.requeue(&[self.tag]);
    }
}

/// What a panic said.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it did not say why".to_owned())
}
