//! A checkpoint: all chains' heads at some moment, and the Merkle root over them.
//!
//! The file is JSON lines, so that it can be written and read in one pass: a line that says what it
//! is, a line a saga (`[id, revision, hash]`, newest id first), and a last line with the count and
//! the root. The root alone, printed in a mail or handed to a notary, is enough to prove later that
//! the file is the one that was made; the file is needed to say *which* saga is not as it was.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

use super::merkle::MerkleTree;
use crate::id::{SagaId, Timestamp};
use crate::store::{Hash, Revision};

/// The format's version, in the first line.
const FORMAT: u32 = 1;
/// Longest line that is read, in bytes: the file comes from outside.
const LINE_BYTES_MAX: usize = 1_000;

/// A chain's end: what a checkpoint keeps of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainEnd {
    /// The saga.
    pub saga: SagaId,
    /// Its newest entry.
    pub revision: Revision,
    /// That entry's hash.
    pub hash: Hash,
}

/// Why a checkpoint can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file.
    #[error("the checkpoint can't be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// A line is not what it should be.
    #[error("line {line} of the checkpoint {why}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Its lines don't give the root it states.
    #[error("the checkpoint was changed: its lines give the root {found}, not {stated}")]
    Root {
        /// What its lines give.
        found: String,
        /// What it states, or what was said to be its root.
        stated: String,
    },
}

/// What a checkpoint comes down to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Sagas in it.
    pub sagas: u64,
    /// The Merkle root over their chains' heads, in hexadecimal.
    pub root: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "backstitch-checkpoint")]
    format: u32,
    at: String,
}

/// Writes a checkpoint, or just computes its root.
pub struct Writer<W> {
    out: Option<W>,
    tree: MerkleTree,
}

impl<W: Write> Writer<W> {
    /// Begins a checkpoint; without `out`, only the root is computed.
    pub fn begin(mut out: Option<W>, at: Timestamp) -> Result<Self, CheckpointError> {
        let header = Header {
            format: FORMAT,
            at: at.to_string(),
        };
        if let Some(out) = &mut out {
            line(out, &header)?;
        }
        let tree = MerkleTree::default();
        Ok(Self { out, tree })
    }

    /// Adds a chain's head. Heads come newest id first.
    pub fn add(&mut self, end: &ChainEnd) -> Result<(), CheckpointError> {
        self.tree.push(&leaf(end));
        if let Some(out) = &mut self.out {
            line(out, &(end.saga, end.revision, hex::encode(end.hash)))?;
        }
        Ok(())
    }

    /// Ends it.
    pub fn seal(mut self) -> Result<Seal, CheckpointError> {
        let seal = Seal {
            sagas: self.tree.leaves(),
            root: hex::encode(self.tree.root()),
        };
        if let Some(out) = &mut self.out {
            line(out, &seal)?;
            out.flush()?;
        }
        Ok(seal)
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> Result<(), CheckpointError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// SHA-256 is taken of: the saga's id, its revision (big-endian), its head's hash.
fn leaf(end: &ChainEnd) -> [u8; 56] {
    let mut bytes = [0; 56];
    bytes[..16].copy_from_slice(end.saga.0.as_bytes());
    bytes[16..24].copy_from_slice(&end.revision.to_be_bytes());
    bytes[24..].copy_from_slice(&end.hash);
    bytes
}

/// Reads a checkpoint, one chain's head after the other.
pub struct Reader<R> {
    from: R,
    line: u64,
    tree: MerkleTree,
    last: Option<SagaId>,
    /// Set once the last line is read.
    seal: Option<Seal>,
    /// When it was made, as it says.
    pub at: String,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    pub fn open(mut from: R) -> Result<Self, CheckpointError> {
        let first = next_line(&mut from, 1)?.unwrap_or_default();
        let header: Header = serde_json::from_str(&first)
            .map_err(|_| wrong(1, "is not that of a checkpoint of Backstitch"))?;
        if header.format != FORMAT {
            let why = format!("says format {}; this version reads {FORMAT}", header.format);
            return Err(wrong(1, &why));
        }
        Ok(Self {
            from,
            line: 1,
            tree: MerkleTree::default(),
            last: None,
            seal: None,
            at: header.at,
        })
    }

    /// The next head; none when all are read and the file's root is found to be right.
    pub fn next_head(&mut self) -> Result<Option<ChainEnd>, CheckpointError> {
        if self.seal.is_some() {
            return Ok(None);
        }
        self.line += 1;
        let Some(text) = next_line(&mut self.from, self.line)? else {
            return Err(wrong(self.line, "is missing: the file was cut off"));
        };
        if let Ok((saga, revision, hash)) = serde_json::from_str::<(SagaId, u64, String)>(&text) {
            let hash = hash_in(&hash).ok_or_else(|| wrong(self.line, "has no hash"))?;
            if self.last.is_some_and(|last| last <= saga) {
                return Err(wrong(self.line, "is out of order"));
            }
            self.last = Some(saga);
            let end = ChainEnd {
                saga,
                revision,
                hash,
            };
            self.tree.push(&leaf(&end));
            return Ok(Some(end));
        }
        let seal: Seal = serde_json::from_str(&text)
            .map_err(|_| wrong(self.line, "is neither a saga's nor the last one"))?;
        let found = hex::encode(self.tree.root());
        if found != seal.root || self.tree.leaves() != seal.sagas {
            let stated = seal.root;
            return Err(CheckpointError::Root { found, stated });
        }
        self.seal = Some(seal);
        Ok(None)
    }

    /// What the file comes down to, once it has been read to its end.
    pub fn seal(&self) -> Option<&Seal> {
        self.seal.as_ref()
    }
}

fn wrong(line: u64, why: &str) -> CheckpointError {
    let why = why.to_owned();
    CheckpointError::Line { line, why }
}

fn next_line(from: &mut impl BufRead, line: u64) -> Result<Option<String>, CheckpointError> {
    let mut bytes = Vec::new();
    let most = LINE_BYTES_MAX as u64 + 1;
    std::io::Read::take(&mut *from, most).read_until(b'\n', &mut bytes)?;
    if bytes.len() > LINE_BYTES_MAX {
        return Err(wrong(line, "is too long"));
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong(line, "is not UTF-8"))?;
    Ok(Some(text))
}

fn hash_in(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}
