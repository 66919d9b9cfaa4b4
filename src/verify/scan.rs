//! All sagas, newest first, beside a checkpoint in the same order.

use std::io::{BufRead, Write};

use futures_util::{StreamExt, stream};

use super::checkpoint::{ChainEnd, CheckpointError, Reader, Seal, Writer};
use super::flaw::{Finding, Flaw, row_agrees};
use crate::id::Timestamp;
use crate::saga::Saga;
use crate::saga::journal::{Chain, GENESIS, replay};
use crate::store::{Hash, LIST_ROWS_MAX, ListFilter, Revision, SagaHead, Store, StoreError};

/// Journal entries read at once.
const JOURNAL_PAGE: usize = 1_000;
/// Journals read side by side: hides the way to the database and back.
const JOURNALS_AT_ONCE: usize = 8;

/// What to check against, and what to write.
pub struct Scan<R, W> {
    /// An earlier checkpoint.
    pub against: Option<Reader<R>>,
    /// Where a new one goes.
    pub checkpoint: Option<W>,
    /// What the new one says of its time.
    pub now: Timestamp,
}

/// What a scan went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Journal entries whose hashes hold.
    pub entries: u64,
    /// Sagas with a flaw, also those that are gone.
    pub flawed: u64,
    /// The new checkpoint's root: over all sagas that are there.
    pub seal: Seal,
    /// The earlier one's.
    pub against: Option<Seal>,
}

/// Why sagas could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoint can't be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Reads all sagas, tells `see` what is wrong with any, and makes a checkpoint of them.
///
/// # Errors
/// Database and files; a flawed saga is no error but a [`Finding`].
pub async fn scan<R: BufRead, W: Write>(
    store: &dyn Store,
    scan: Scan<R, W>,
    mut see: impl FnMut(Finding),
) -> Result<Summary, VerifyError> {
    let mut writer = Writer::begin(scan.checkpoint, scan.now)?;
    let mut earlier = Earlier::begin(scan.against)?;
    let (mut entries, mut flawed) = (0, 0);
    let mut filter = ListFilter {
        limit: LIST_ROWS_MAX,
        ..ListFilter::default()
    };
    loop {
        let page = store.list(&filter).await?;
        let mut expected = Vec::with_capacity(page.len());
        for head in &page {
            let gone = earlier.skip_to(head)?;
            flawed += gone.len() as u64;
            gone.into_iter().for_each(&mut see);
            expected.push(earlier.take(head)?);
        }
        let checks = page.iter().zip(expected);
        let checks = checks.map(|(head, expected)| check(store, head, expected));
        let mut checked = stream::iter(checks).buffered(JOURNALS_AT_ONCE);
        while let Some(checked) = checked.next().await {
            let Checked { end, flaw, read } = checked?;
            entries += read;
            writer.add(&end)?;
            if let Some(flaw) = flaw {
                flawed += 1;
                see(flaw);
            }
        }
        match page.last() {
            Some(oldest) if page.len() == LIST_ROWS_MAX => filter.before = Some(oldest.id),
            _ => break,
        }
    }
    let gone = earlier.rest()?;
    flawed += gone.len() as u64;
    gone.into_iter().for_each(&mut see);
    Ok(Summary {
        entries,
        flawed,
        seal: writer.seal()?,
        against: earlier.reader.and_then(|reader| reader.seal().cloned()),
    })
}

struct Checked {
    end: ChainEnd,
    flaw: Option<Finding>,
    /// Entries whose hashes hold.
    read: u64,
}

/// Reads one saga's journal page by page, up to what its row speaks of.
async fn check(
    store: &dyn Store,
    head: &SagaHead,
    expected: Option<ChainEnd>,
) -> Result<Checked, StoreError> {
    let mut chain = Chain::new(head.id);
    let mut saga = Saga::new(head.id, &head.name, &head.key, head.started_at);
    let mut then: Option<Hash> = None;
    let mut broken = None;
    'pages: while chain.seq() < head.revision {
        let page = store.journal(head.id, chain.seq(), JOURNAL_PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in page.iter().take_while(|entry| entry.seq <= head.revision) {
            let read = chain.add(entry).and_then(|()| replay(&mut saga, entry));
            if let Err(error) = read {
                broken = Some(Flaw::Journal(error));
                break 'pages;
            }
            if expected.is_some_and(|expected| expected.revision == entry.seq) {
                then = Some(entry.hash);
            }
        }
    }
    let flaw = broken
        .or_else(|| row_agrees(head, &chain, &saga).err())
        .or_else(|| expected.and_then(|expected| replaced(expected, then, chain.seq())));
    Ok(Checked {
        end: ChainEnd {
            saga: head.id,
            revision: head.revision,
            hash: head.head_hash,
        },
        flaw: flaw.map(|flaw| Finding {
            saga: head.id,
            name: Some((head.name.clone(), head.key.clone())),
            flaw,
        }),
        read: chain.seq(),
    })
}

fn replaced(expected: ChainEnd, then: Option<Hash>, now: Revision) -> Option<Flaw> {
    let then = then.or((expected.revision == 0).then_some(GENESIS));
    match then {
        None => Some(Flaw::Shortened {
            checkpoint: expected.revision,
            now,
        }),
        Some(hash) if hash != expected.hash => Some(Flaw::Replaced(expected.revision)),
        Some(_) => None,
    }
}

/// An earlier checkpoint, read as far as the scan has come.
struct Earlier<R> {
    reader: Option<Reader<R>>,
    next: Option<ChainEnd>,
}

impl<R: BufRead> Earlier<R> {
    fn begin(mut reader: Option<Reader<R>>) -> Result<Self, VerifyError> {
        let next = match &mut reader {
            Some(reader) => reader.next_head()?,
            None => None,
        };
        Ok(Self { reader, next })
    }

    fn step(&mut self) -> Result<Option<ChainEnd>, VerifyError> {
        let next = match &mut self.reader {
            Some(reader) => reader.next_head()?,
            None => None,
        };
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// Sagas of the checkpoint that should have come before this one, and did not.
    fn skip_to(&mut self, head: &SagaHead) -> Result<Vec<Finding>, VerifyError> {
        let mut gone = Vec::new();
        while self.next.is_some_and(|next| next.saga > head.id) {
            gone.extend(self.step()?.map(gone_since));
        }
        Ok(gone)
    }

    /// What the checkpoint says of this saga.
    fn take(&mut self, head: &SagaHead) -> Result<Option<ChainEnd>, VerifyError> {
        if self.next.is_some_and(|next| next.saga == head.id) {
            return self.step();
        }
        Ok(None)
    }

    fn rest(&mut self) -> Result<Vec<Finding>, VerifyError> {
        let mut gone = Vec::new();
        while let Some(end) = self.step()? {
            gone.push(gone_since(end));
        }
        Ok(gone)
    }
}

fn gone_since(end: ChainEnd) -> Finding {
    Finding {
        saga: end.saga,
        name: None,
        flaw: Flaw::Gone(end.revision),
    }
}
