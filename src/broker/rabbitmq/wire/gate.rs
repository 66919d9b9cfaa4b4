//! Holds back what the server sends while enough has come that nobody has taken.
//!
//! The protocol bounds messages on their way by their number alone, so a thousand large ones would all
//! be in memory at once. While what waits in the consumers' inboxes has more bytes than it may have,
//! nothing is read from the connection, and the server keeps it.
//!
//! What is acknowledged is written, and needs no reading. But heartbeats, and answers to requests, stand
//! behind messages in the stream; so a little is read each second all the same.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::limits::WAITING_BYTES;

/// One connection's.
#[derive(Default)]
pub(in crate::broker::rabbitmq) struct Gate {
    /// Bytes of messages that have come and were not taken.
    waiting: AtomicUsize,
    /// Whether the next read is let through whatever waits.
    once: AtomicBool,
    /// Whether nobody wants the connection any more.
    ended: AtomicBool,
    reader: AtomicWaker,
}

impl Gate {
    /// Messages of so many bytes have come.
    pub(in crate::broker::rabbitmq) fn came(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Ordering::SeqCst);
    }

    /// As many were taken, or let go.
    pub(in crate::broker::rabbitmq) fn gone(&self, bytes: usize) {
        let before = self.waiting.fetch_sub(bytes, Ordering::SeqCst);
        if before >= WAITING_BYTES && self.has_room() {
            self.reader.wake();
        }
    }

    /// Lets one read through.
    pub(in crate::broker::rabbitmq) fn let_one_through(&self) {
        if !self.has_room() {
            self.once.store(true, Ordering::SeqCst);
            self.reader.wake();
        }
    }

    /// Nobody wants the connection any more: whoever reads from it is told that it is lost, and lets it
    /// go. The library would wait for as long as it is silent.
    pub(in crate::broker::rabbitmq) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.reader.wake();
    }

    /// Waits until there may be read.
    ///
    /// # Errors
    /// There is nothing more to be read.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // First, or what changes now wakes nobody. Also if it is open: then the network is waited for,
        // and the end must be heard of all the same.
        self.reader.register(context.waker());
        if self.ended.load(Ordering::SeqCst) {
            Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
        } else if self.is_open() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn is_open(&self) -> bool {
        self.has_room() || self.once.swap(false, Ordering::SeqCst)
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) < WAITING_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn may_read(gate: &Gate) -> bool {
        let read = poll_fn(|context| gate.poll(context)).now_or_never();
        matches!(read, Some(Ok(())))
    }

    #[test]
    fn it_is_shut_while_too_much_waits() {
        let gate = Gate::default();
        gate.came(WAITING_BYTES - 1);
        assert!(may_read(&gate));
        gate.came(20);
        assert!(!may_read(&gate));
        gate.gone(19);
        assert!(!may_read(&gate));
        gate.gone(1);
        assert!(may_read(&gate));
        gate.end();
        assert!(!may_read(&gate));
    }

    #[test]
    fn a_little_is_let_through_all_the_same() {
        let gate = Gate::default();
        gate.let_one_through();
        gate.came(WAITING_BYTES);
        assert!(!may_read(&gate), "not kept from when it was open");
        gate.let_one_through();
        assert!(may_read(&gate));
        assert!(!may_read(&gate));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        for wake in [|gate: &Gate| gate.gone(1), Gate::let_one_through, Gate::end] {
            let gate = Gate::default();
            gate.came(WAITING_BYTES);
            let mut reading = pin!(poll_fn(|context| gate.poll(context)));
            assert!(futures_util::poll!(&mut reading).is_pending());
            let (_, ()) = tokio::join!(reading, async { wake(&gate) });
        }
    }
}
