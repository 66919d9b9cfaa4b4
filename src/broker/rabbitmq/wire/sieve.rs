//! Cutting the server's bytes into frames, and replacing those that the library can't take.
//!
//! Bytes go in as the network brings them and come out in the same order, whatever the pieces.
//! Method and header frames are looked at whole, others pass without being held.

use std::sync::Arc;

use super::fields::{Bytes, Flaw, flaw, is_text, lossy, stand_in};
use super::kept::Kept;

/// Type, channel and size.
const HEAD_BYTES: usize = 7;
/// The byte that ends each frame.
const FRAME_END: u8 = 0xce;
/// A frame's bytes that are not its payload.
const AROUND_BYTES: usize = HEAD_BYTES + 1;
/// Largest method or header frame that is looked at; the library takes no larger ones anyway. Four
/// times the server's usual limit, because dead-lettering adds headers and does not look at it.
const HELD_BYTES_MAX: usize = 4 * 128 * 1024;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Class, weight and body size before the list of properties.
const LIST_AT: usize = 12;
/// What the server says when it proposes limits.
const TUNE: [u8; 4] = [0, 10, 0, 30];

/// Parts of a method's arguments.
#[derive(Clone, Copy)]
enum Part {
    /// Numbers and bits.
    Bytes(usize),
    /// A short string.
    Text,
}

/// Methods that carry text from strangers, or cut in the middle of a character: class, method, arguments.
const TEXTS: &[([u8; 4], &[Part])] = &[
    // basic.deliver
    (
        [0, 60, 0, 60],
        &[Part::Text, Part::Bytes(9), Part::Text, Part::Text],
    ),
    // basic.get-ok
    ([0, 60, 0, 71], &[Part::Bytes(9), Part::Text, Part::Text]),
    // basic.return
    (
        [0, 60, 0, 50],
        &[Part::Bytes(2), Part::Text, Part::Text, Part::Text],
    ),
    // channel.close
    ([0, 20, 0, 40], &[Part::Bytes(2), Part::Text]),
    // connection.close
    ([0, 10, 0, 50], &[Part::Bytes(2), Part::Text]),
    // connection.blocked
    ([0, 10, 0, 60], &[Part::Text]),
];

/// The sieve of one connection.
pub(super) struct Sieve {
    kept: Arc<Kept>,
    /// Bytes of a frame that has begun and is looked at whole.
    held: Vec<u8>,
    /// Bytes of a frame that passes, still to come.
    passing: usize,
    /// What comes is no longer AMQP, or was never: all of it passes.
    blind: bool,
    /// Largest frame that was agreed on; 0 for any.
    frame_max: usize,
    out: Vec<u8>,
    taken: usize,
}

impl Sieve {
    pub(super) fn new(kept: Arc<Kept>) -> Self {
        Self {
            kept,
            held: Vec::new(),
            passing: 0,
            blind: false,
            frame_max: 0,
            out: Vec::new(),
            taken: 0,
        }
    }

    /// Whether there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.out.len()
    }

    /// Takes what has passed; how much that was.
    pub(super) fn take(&mut self, into: &mut [u8]) -> usize {
        let ready = &self.out[self.taken..];
        let count = ready.len().min(into.len());
        into[..count].copy_from_slice(&ready[..count]);
        self.taken += count;
        if self.is_empty() {
            self.out.clear();
            self.taken = 0;
        }
        count
    }

    /// Takes in what the network brought.
    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = if self.blind {
                self.out.extend_from_slice(bytes);
                &[]
            } else if self.passing > 0 {
                let (now, rest) = bytes.split_at(self.passing.min(bytes.len()));
                self.passing -= now.len();
                self.out.extend_from_slice(now);
                rest
            } else if self.held.is_empty() {
                self.begin(bytes)
            } else {
                self.go_on(bytes)
            };
        }
    }

    /// A frame begins.
    fn begin<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if bytes.len() < HEAD_BYTES {
            self.held.extend_from_slice(bytes);
            return &[];
        }
        match self.frame_bytes(bytes) {
            None => bytes,
            Some(length) if bytes.len() >= length => {
                let (frame, rest) = bytes.split_at(length);
                self.look_at(frame);
                rest
            }
            Some(length) => {
                self.held.reserve(length);
                self.held.extend_from_slice(bytes);
                &[]
            }
        }
    }

    /// More of a frame of which something is held.
    fn go_on<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let wanted = if self.held.len() < HEAD_BYTES {
            HEAD_BYTES
        } else {
            let size = size_of(&self.held);
            size + AROUND_BYTES
        };
        let (now, rest) = bytes.split_at((wanted - self.held.len()).min(bytes.len()));
        self.held.extend_from_slice(now);
        if self.held.len() < wanted {
            return rest;
        }
        let held = std::mem::take(&mut self.held);
        if wanted == HEAD_BYTES {
            match self.frame_bytes(&held) {
                // It passes; what is held of it comes first.
                None => {
                    let passing = self.passing;
                    self.out.extend_from_slice(&held);
                    self.passing = passing.saturating_sub(held.len());
                }
                Some(_) => self.held = held,
            }
        } else {
            self.look_at(&held);
        }
        rest
    }

    /// The length of the frame whose head this is, if it is to be looked at; else it passes.
    fn frame_bytes(&mut self, head: &[u8]) -> Option<usize> {
        let length = size_of(head) + AROUND_BYTES;
        match head[0] {
            METHOD | HEADER if length <= HELD_BYTES_MAX => return Some(length),
            METHOD | HEADER | BODY | HEARTBEAT => self.passing = length,
            // Not a frame: the server speaks another protocol.
            _ => self.blind = true,
        }
        None
    }

    /// Passes a whole frame on, or what stands for it.
    fn look_at(&mut self, frame: &[u8]) {
        let (head, rest) = frame.split_at(HEAD_BYTES);
        let payload = &rest[..rest.len() - 1];
        if rest[payload.len()] != FRAME_END {
            self.out.extend_from_slice(frame); // for the library to complain about
            return;
        }
        let replaced = if head[0] == HEADER {
            self.replaced_header(payload, frame.len())
        } else {
            self.note_limits(payload);
            replaced_method(payload)
        };
        match replaced {
            None => self.out.extend_from_slice(frame),
            Some(payload) => {
                let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                self.out.extend_from_slice(&head[..3]);
                self.out.extend_from_slice(&size.to_be_bytes());
                self.out.extend_from_slice(&payload);
                self.out.push(FRAME_END);
            }
        }
    }

    /// The header frame to pass on instead of one that the library can't take.
    fn replaced_header(&self, payload: &[u8], frame_bytes: usize) -> Option<Vec<u8>> {
        let (start, list) = payload.split_at_checked(LIST_AT)?;
        let is_too_large = self.frame_max > 0 && frame_bytes > self.frame_max;
        flaw(list).or(is_too_large.then_some(Flaw::TooLarge))?;
        let number = self.kept.put(list.to_vec());
        Some([start, &stand_in(number)].concat())
    }

    fn note_limits(&mut self, payload: &[u8]) {
        if let Some(arguments) = payload.strip_prefix(&TUNE)
            && let Some(frame_max) = arguments.get(2..6).and_then(|it| it.try_into().ok())
        {
            self.frame_max = usize::try_from(u32::from_be_bytes(frame_max)).unwrap_or(0);
        }
    }
}

fn size_of(head: &[u8]) -> usize {
    let size: [u8; 4] = head[3..HEAD_BYTES].try_into().unwrap_or_default();
    usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX - AROUND_BYTES)
}

/// The method to pass on instead of one with a text that is none.
fn replaced_method(payload: &[u8]) -> Option<Vec<u8>> {
    let (method, _) = payload.split_at_checked(4)?;
    let (_, parts) = TEXTS.iter().find(|(name, _)| name == method)?;
    let mut rest = Bytes(&payload[4..]);
    let mut flawed = false;
    for part in *parts {
        match part {
            Part::Bytes(count) => drop(rest.take(*count)?),
            Part::Text => flawed |= !is_text(rest.short()?),
        }
    }
    flawed.then(|| {
        let mut rest = Bytes(&payload[4..]);
        let mut replaced = method.to_vec();
        for part in *parts {
            match part {
                Part::Bytes(count) => replaced.extend(rest.take(*count).unwrap_or_default()),
                Part::Text => {
                    let text = lossy(rest.short().unwrap_or_default());
                    replaced.push(u8::try_from(text.len()).unwrap_or_default());
                    replaced.extend(text.as_bytes());
                }
            }
        }
        replaced.extend(rest.0);
        replaced
    })
}
