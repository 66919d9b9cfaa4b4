//! One acknowledgement for a message that became several works: given once all are committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::broker::{Acks, DeliveryTag};

/// Counts the works of one delivery.
pub(super) struct SharedAck {
    acks: Arc<dyn Acks>,
    tag: DeliveryTag,
    left: AtomicUsize,
    given_back: AtomicBool,
}

impl SharedAck {
    /// For this many works, which must all acknowledge.
    pub(super) fn new(acks: &Arc<dyn Acks>, tag: DeliveryTag, works: usize) -> Arc<Self> {
        Arc::new(Self {
            acks: Arc::clone(acks),
            tag,
            left: AtomicUsize::new(works),
            given_back: AtomicBool::new(false),
        })
    }
}

impl Acks for SharedAck {
    /// Each tag is the word of one work.
    fn ack(&self, tags: &[DeliveryTag]) {
        let left = self.left.fetch_sub(tags.len(), Ordering::AcqRel);
        if left == tags.len() && !self.given_back.load(Ordering::Acquire) {
            self.acks.ack(&[self.tag]);
        }
    }

    /// One work that can't be done is enough: then all come again, and those done change nothing.
    fn requeue(&self, _tags: &[DeliveryTag]) {
        if !self.given_back.swap(true, Ordering::AcqRel) {
            self.acks.requeue(&[self.tag]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Words(Mutex<Vec<&'static str>>);

    impl Acks for Words {
        fn ack(&self, _tags: &[DeliveryTag]) {
            self.0.lock().unwrap().push("ack");
        }

        fn requeue(&self, _tags: &[DeliveryTag]) {
            self.0.lock().unwrap().push("requeue");
        }
    }

    #[test]
    fn the_last_work_acknowledges_and_a_failed_one_gives_back() {
        let tag = DeliveryTag { epoch: 1, tag: 7 };
        let cases: [(&[&str], &[&str]); 4] = [
            (&["ack", "ack"], &[]),
            (&["ack", "ack ack"], &["ack"]),
            (&["ack", "ack", "ack"], &["ack"]),
            (&["ack", "requeue", "requeue"], &["requeue"]),
        ];
        for (said, expected) in cases {
            let words = Arc::new(Words::default());
            let shared = SharedAck::new(&(Arc::clone(&words) as Arc<dyn Acks>), tag, 3);
            for word in said {
                match *word {
                    "requeue" => shared.requeue(&[tag]),
                    word => shared.ack(&vec![tag; word.split(' ').count()]),
                }
            }
            assert_eq!(*words.0.lock().unwrap(), expected, "{said:?}");
        }
    }
}
