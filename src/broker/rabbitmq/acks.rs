//! Which deliveries of one channel are settled, and what to tell the server about it.
//!
//! One acknowledgement of everything up to a tag costs the server a fraction of one for each, so
//! tags are collected and acknowledged up to the highest one below which nothing is open.
//! Separate and pure, because the server closes the channel over a single wrong tag.
//!
//! Invariant: a tag that [`AckWindow::take_watermark`] returns was delivered, is acked by us and
//! not yet settled with the server, and so is or was every lower one.

use std::collections::VecDeque;

/// The deliveries of one channel, whose tags the server counts from 1.
#[derive(Debug, Default)]
pub(super) struct AckWindow {
    /// Deliveries that have left the front; the front of `marks` has the tag after it.
    passed: u64,
    marks: VecDeque<Mark>,
    /// Number of [`Mark::Acked`].
    acked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Somebody works on it.
    Open,
    /// Handled; the server doesn't know yet.
    Acked,
    /// The server was told.
    Settled,
}

impl AckWindow {
    /// A delivery came. Tags come without gaps; one out of line is not tracked and returns false.
    pub(super) fn delivered(&mut self, tag: u64) -> bool {
        let expected = self.passed + self.marks.len() as u64 + 1;
        if tag != expected {
            return false;
        }
        self.marks.push_back(Mark::Open);
        true
    }

    /// A delivery was handled; again, or never delivered: nothing happens.
    pub(super) fn ack(&mut self, tag: u64) {
        if let Some(mark @ Mark::Open) = self.mark(tag) {
            *mark = Mark::Acked;
            self.acked += 1;
        }
    }

    /// A delivery shall be given back; whether the server must be told.
    pub(super) fn requeue(&mut self, tag: u64) -> bool {
        match self.mark(tag) {
            Some(mark @ Mark::Open) => {
                *mark = Mark::Settled;
                true
            }
            _ => false,
        }
    }

    /// The tag up to which everything may be acknowledged at once, if there is something new.
    pub(super) fn take_watermark(&mut self) -> Option<u64> {
        let mut watermark = None;
        while let Some(mark) = self.marks.front().copied().filter(|m| *m != Mark::Open) {
            self.marks.pop_front();
            self.passed += 1;
            if mark == Mark::Acked {
                self.acked -= 1;
                watermark = Some(self.passed);
            }
        }
        watermark
    }

    /// Whether every delivery is settled.
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Handled deliveries that wait behind an open one.
    pub(super) fn waiting(&self) -> usize {
        self.acked
    }

    /// Their tags, to be acknowledged one by one.
    pub(super) fn take_waiting(&mut self) -> Vec<u64> {
        self.acked = 0;
        let tags = self.passed + 1..;
        tags.zip(&mut self.marks)
            .filter(|(_, mark)| **mark == Mark::Acked)
            .map(|(tag, mark)| {
                *mark = Mark::Settled;
                tag
            })
            .collect()
    }

    fn mark(&mut self, tag: u64) -> Option<&mut Mark> {
        let index = tag.checked_sub(self.passed + 1)?;
        self.marks.get_mut(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(deliveries: u64) -> AckWindow {
        let mut window = AckWindow::default();
        for tag in 1..=deliveries {
            assert!(window.delivered(tag));
        }
        window
    }

    #[test]
    fn acks_reach_the_server_up_to_the_first_open_delivery() {
        let mut window = window(5);
        window.ack(1);
        window.ack(2);
        window.ack(4);
        assert_eq!(window.take_watermark(), Some(2));
        assert_eq!(window.take_watermark(), None);
        assert_eq!(window.waiting(), 1);
        window.ack(3);
        assert_eq!(window.take_watermark(), Some(4));
        assert_eq!(window.waiting(), 0);
    }

    #[test]
    fn what_waits_behind_an_open_delivery_is_taken_once() {
        let mut window = window(4);
        window.ack(2);
        window.ack(4);
        assert_eq!(window.take_waiting(), vec![2, 4]);
        assert_eq!(window.take_waiting(), Vec::<u64>::new());
        window.ack(1);
        window.ack(3);
        assert_eq!(window.take_watermark(), Some(3));
    }

    #[test]
    fn a_requeued_delivery_is_never_acknowledged() {
        let mut window = window(3);
        assert!(window.requeue(3));
        assert!(!window.requeue(3));
        window.ack(3);
        window.ack(1);
        window.ack(2);
        // 3 is settled too, but the server no longer knows it: the watermark must not name it.
        assert_eq!(window.take_watermark(), Some(2));
        assert!(!window.requeue(4));
        assert!(window.delivered(4));
    }

    #[test]
    fn unknown_and_repeated_tags_change_nothing() {
        let mut window = window(1);
        for tag in [0, 2, u64::MAX] {
            window.ack(tag);
            assert!(!window.requeue(tag));
        }
        assert!(!window.delivered(7));
        window.ack(1);
        window.ack(1);
        assert_eq!(window.take_watermark(), Some(1));
        window.ack(1);
        assert_eq!(window.take_watermark(), None);
    }
}
