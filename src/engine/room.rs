//! Room for what is read: small values take many times the memory of their bytes, so what may be read
//! at once is bounded by what it will take, and not by messages.
//!
//! A space is taken before a body is read, by its bytes and the number of its values, and given up
//! once what follows from it is committed. It is shared by everything that reads: queues and HTTP.
//! Whoever waits for a space holds nothing that those who have one wait for; the largest body there
//! may be fits, when it is alone.
//!
//! A body that is too large to be read takes what it takes to keep it as a dead letter.
//!
//! Deliberately absent: what a node has been given and not taken yet, which the broker's side bounds.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{BODY, DECODED_BYTES, Extent, SMALL_BODY_BYTES, kibibytes};

/// See the module's documentation.
pub struct Room {
    /// In KiB.
    free: Arc<Semaphore>,
}

/// What a body takes of the room as long as this, or a copy of it, is there.
#[derive(Debug, Clone, Default)]
pub struct Space {
    _taken: Option<Arc<OwnedSemaphorePermit>>,
}

impl Default for Room {
    fn default() -> Self {
        let free = Semaphore::new(kibibytes(DECODED_BYTES) as usize);
        Self {
            free: Arc::new(free),
        }
    }
}

impl Room {
    /// Waits until there is room for what a body will be once it is read.
    pub async fn take_for(&self, body: &[u8]) -> Space {
        let memory = memory_of(body);
        if memory == 0 {
            return Space::default();
        }
        let share = kibibytes(memory.min(DECODED_BYTES));
        // Nothing closes the semaphore.
        let taken = Arc::clone(&self.free).acquire_many_owned(share).await;
        Space {
            _taken: taken.ok().map(Arc::new),
        }
    }
}

/// Copies of a body there are while it is stored: its own, and those on the way to the database.
const LETTER_COPIES: usize = 4;

/// Memory that a body takes once it is read, or kept unread; none if it is small.
fn memory_of(body: &[u8]) -> usize {
    if body.len() <= SMALL_BODY_BYTES {
        return 0;
    }
    let unread = LETTER_COPIES * body.len();
    if body.len() > BODY.bytes {
        return unread;
    }
    let extent = Extent::of_text(body);
    BODY.check(extent).map_or(unread, |()| extent.memory())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn objects(count: usize) -> Vec<u8> {
        format!("[{}1]", "{\"a\":1},".repeat(count)).into_bytes()
    }

    #[test]
    fn small_bodies_are_let_in_and_what_is_too_large_is_not_read() {
        assert_eq!(memory_of(&objects(100)), 0);
        for body in [objects(60_000), vec![b' '; BODY.bytes + 1]] {
            assert_eq!(memory_of(&body), LETTER_COPIES * body.len());
        }
        let listed = memory_of(&objects(49_000));
        assert!((30_000_000..DECODED_BYTES).contains(&listed), "{listed}");
        let text = format!("\"{}\"", "x".repeat(1_000_000)).into_bytes();
        assert!(memory_of(&text) < 1_100_000);
    }

    #[test]
    fn who_finds_no_room_waits_until_somebody_has_gone() {
        let (room, large) = (Room::default(), objects(49_000));
        let space = room.take_for(&large).now_or_never().unwrap();
        let copy = space.clone();
        drop(space);
        assert!(room.take_for(&large).now_or_never().is_none());
        assert!(room.take_for(&objects(10)).now_or_never().is_some());
        drop(copy);
        assert!(room.take_for(&large).now_or_never().is_some());
    }
}
