//! Do the dead letters fit what the audit log says of them?
//!
//! The log is read as the story of each letter: when it was taken in and with what content, what was
//! done to it, whether it was deleted. Then the letters are read and compared. Letters that a node or a
//! participant could not handle itself have no entry when they come, only for what is done to them.
//!
//! Invariants: nothing is written; so many letters at a time are kept in mind as may be, or else the log
//! is read once for each part of them; who changes letters meanwhile is not suspected:
//! what does not fit is looked at again, with what was written since.

mod story;

use std::collections::HashMap;
use std::fmt;

use uuid::Uuid;

pub use self::story::LetterFlaw;
use self::story::{Log, PAGE, Part, Story};
use crate::store::StoreError;
use crate::store::dead_letters::{DeadLetterStore, Letter, LetterFilter, LetterHead, LetterPage};

/// Whole letters read at once, and bytes of their bodies.
const WHOLE: usize = 50;
const WHOLE_BYTES: u64 = 32 * 1024 * 1024;

/// A letter that is not as the audit log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFinding {
    /// Which.
    pub letter: Uuid,
    /// What is wrong.
    pub flaw: LetterFlaw,
}

impl fmt::Display for LetterFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dead letter {}: {}", self.letter, self.flaw)
    }
}

/// What was looked at, and found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Letters {
    /// Letters that there are.
    pub letters: u64,
    /// Those that don't fit.
    pub flawed: u64,
}

/// Reads all letters and tells `see` which of them are not as the audit log says. Whether the log itself
/// is what was written is another question.
///
/// # Errors
/// The database's.
pub async fn letters(
    store: &dyn DeadLetterStore,
    mut see: impl FnMut(LetterFinding),
) -> Result<Letters, StoreError> {
    let mut total = Letters::default();
    let mut parts = vec![Part { of: 1, number: 0 }];
    while let Some(part) = parts.pop() {
        let Some(log) = Log::read(store, part).await? else {
            parts.extend(part.halves());
            continue;
        };
        let (read, suspects) = compare(store, part, log, &mut see).await?;
        total.letters += read.letters;
        total.flawed += read.flawed;
        for some in suspects.stories.chunks(WHOLE) {
            total.flawed += look_again(store, some, suspects.read_to, &mut see).await?;
        }
    }
    Ok(total)
}

/// Letters that don't seem to fit, with what the log said of them.
struct Suspects {
    stories: Vec<(Uuid, Option<Story>)>,
    read_to: u64,
}

/// Reads a part's letters beside what the log says of them.
async fn compare(
    store: &dyn DeadLetterStore,
    part: Part,
    mut log: Log,
    see: &mut impl FnMut(LetterFinding),
) -> Result<(Letters, Suspects), StoreError> {
    let (mut read, mut suspects) = (Letters::default(), Vec::new());
    let mut page = LetterPage {
        after: None,
        oldest_first: true,
        limit: PAGE,
    };
    let (mut whole, mut bytes) = (HashMap::new(), 0);
    loop {
        let heads = store.letters(&LetterFilter::default(), &page).await?;
        for head in heads.iter().filter(|head| part.has(head.id)) {
            read.letters += 1;
            let said = log.stories.remove(&head.id);
            if said.unwrap_or_default().differs(head).is_some() {
                suspects.push((head.id, said));
                continue;
            }
            bytes += head.body_bytes;
            whole.insert(head.id, said.unwrap_or_default());
            if whole.len() >= WHOLE || bytes >= WHOLE_BYTES {
                read.flawed += contents(store, std::mem::take(&mut whole), see).await?;
                bytes = 0;
            }
        }
        match heads.last() {
            Some(last) if heads.len() == PAGE => page.after = Some((last.at, last.id)),
            _ => break,
        }
    }
    read.flawed += contents(store, whole, see).await?;
    let gone = log.stories.into_iter();
    suspects.extend(gone.map(|(letter, story)| (letter, Some(story))));
    suspects.sort_by_key(|(letter, _)| *letter);
    let read_to = log.read_to;
    let stories = suspects;
    Ok((read, Suspects { stories, read_to }))
}

/// Tells of letters whose message is not the one that was taken in; it never changes.
async fn contents(
    store: &dyn DeadLetterStore,
    stories: HashMap<Uuid, Story>,
    see: &mut impl FnMut(LetterFinding),
) -> Result<u64, StoreError> {
    let mut ids: Vec<Uuid> = stories.keys().copied().collect();
    ids.sort_unstable();
    let mut flawed = 0;
    for letter in whole(store, &ids).await? {
        let (id, flaw) = match letter {
            Ok(letter) if stories[&letter.head.id].is_of_another(&letter) => {
                (letter.head.id, LetterFlaw::Content)
            }
            Ok(_) => continue,
            Err((id, why)) => (id, LetterFlaw::Unreadable(why)),
        };
        flawed += 1;
        see(LetterFinding { letter: id, flaw });
    }
    Ok(flawed)
}

type Read = Result<Letter, (Uuid, String)>;

/// Whole letters; one that can't be read is told apart from its neighbours.
async fn whole(store: &dyn DeadLetterStore, ids: &[Uuid]) -> Result<Vec<Read>, StoreError> {
    match store.load_letters(ids).await {
        Ok(letters) => return Ok(letters.into_iter().map(Ok).collect()),
        Err(StoreError::Corrupt { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut read = Vec::with_capacity(ids.len());
    for id in ids {
        match store.load_letters(&[*id]).await {
            Ok(letters) => read.extend(letters.into_iter().map(Ok)),
            Err(StoreError::Corrupt { why, .. }) => read.push(Err((*id, why))),
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Looks at suspects once more, with what was written since the log was read. Whoever is changed at this
/// very moment is let go: the next check sees it.
async fn look_again(
    store: &dyn DeadLetterStore,
    suspects: &[(Uuid, Option<Story>)],
    read_to: u64,
    see: &mut impl FnMut(LetterFinding),
) -> Result<u64, StoreError> {
    let ids: Vec<Uuid> = suspects.iter().map(|(letter, _)| *letter).collect();
    let before = heads(store, &ids).await?;
    let known = suspects
        .iter()
        .filter_map(|(id, story)| Some((*id, (*story)?)));
    let mut log = Log {
        stories: known.collect(),
        read_to,
    };
    loop {
        let page = store.letter_audit(None, log.read_to, PAGE).await?;
        for entry in &page {
            log.note(entry, |letter| ids.binary_search(&letter).is_ok());
        }
        if page.len() < PAGE {
            break;
        }
    }
    let after = heads(store, &ids).await?;
    let mut flawed = 0;
    for (letter, _) in suspects {
        let version = |heads: &HashMap<Uuid, LetterHead>| heads.get(letter).map(|it| it.version);
        if version(&before) != version(&after) {
            continue;
        }
        let said = log.stories.get(letter).copied();
        let flaw = match (after.get(letter), said) {
            (Some(head), said) => said.unwrap_or_default().differs(head),
            (None, Some(_)) => Some(LetterFlaw::Gone),
            (None, None) => None,
        };
        if let Some(flaw) = flaw {
            flawed += 1;
            see(LetterFinding {
                letter: *letter,
                flaw,
            });
        }
    }
    Ok(flawed)
}

async fn heads(
    store: &dyn DeadLetterStore,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, LetterHead>, StoreError> {
    let letters = whole(store, ids).await?.into_iter().flatten();
    Ok(letters.map(|it| (it.head.id, it.head)).collect())
}

#[cfg(test)]
mod tests;
