//! Dead letters: by cause, and one by one; what is looked for stands in the address.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::RawQuery;
use axum::response::Response;
use serde::Deserialize;

use super::address::segment;
use super::api::{Answer, Reader};
use super::sagas::Query;
use super::shell::{Refusal, Shell, page};
use super::text::{Text, When};

/// Letters of a page.
const LETTERS_SHOWN: usize = 50;
/// Causes that are shown; a filter finds the others.
const GROUPS_SHOWN: usize = 20;
/// Parameters that say which page of a list and what was done, not which letters.
const OF_THE_PAGE: [&str; 6] = ["after", "order", "limit", "done", "sent", "refused"];
/// What may become of a letter.
const STATUSES: [&str; 4] = ["open", "replaying", "replayed", "discarded"];
/// Fields of the form, and what they are about.
const FIELDS: [(&str, &str, &str); 8] = [
    ("queue", "Queue", "payments"),
    ("type", "Message type", "payments.charge"),
    ("reason", "Reason contains", "timed out"),
    ("body", "Body contains", "4711"),
    ("message_id", "Message id", ""),
    ("saga", "Saga's id", ""),
    ("since", "Recorded since (UTC)", "2026-01-31T12:00:00Z"),
    ("until", "Recorded before (UTC)", "2026-02-01T00:00:00Z"),
];

/// A letter in a list.
#[derive(Debug, Deserialize)]
pub(super) struct Letter {
    pub(super) id: Text,
    pub(super) at: When,
    pub(super) queue: Text,
    pub(super) status: Text,
    pub(super) code: Text,
    pub(super) reason: Text,
    #[serde(rename = "type")]
    pub(super) kind: Text,
    pub(super) message_id: Text,
    pub(super) fingerprint: Text,
    pub(super) saga_id: Text,
    pub(super) step: Text,
    pub(super) replays: u64,
    pub(super) came_back_from: Text,
    pub(super) seen_again: u64,
    pub(super) edits: u64,
    pub(super) body_bytes: u64,
    pub(super) handled_at: When,
}

impl Letter {
    /// Where it is shown.
    pub(super) fn address(&self) -> String {
        address_of(&self.id)
    }

    /// Where its saga is shown.
    pub(super) fn saga_address(&self) -> String {
        format!("/ui/sagas/{}", segment(self.saga_id.as_str()))
    }

    /// Where the letters of the same cause are listed.
    pub(super) fn group_address(&self) -> String {
        format!(
            "/ui/letters?fingerprint={}",
            segment(self.fingerprint.as_str())
        )
    }
}

/// Where a letter is shown.
pub(super) fn address_of(id: &Text) -> String {
    format!("/ui/letters/{}", segment(id.as_str()))
}

#[derive(Debug, Default, Deserialize)]
struct List {
    dead_letters: Vec<Letter>,
    next: Option<String>,
}

/// Letters of one cause.
#[derive(Debug, Deserialize)]
pub(super) struct Group {
    pub(super) count: u64,
    pub(super) open: u64,
    first_at: When,
    last_at: When,
    newest: Letter,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Groups {
    pub(super) groups: Vec<Group>,
}

/// The sagas of some letters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Sagas {
    sagas: Vec<Head>,
}

/// A saga's head.
#[derive(Debug, Deserialize)]
struct Head {
    saga_id: Text,
    key: Text,
    status: Text,
    ended_at: When,
}

impl Sagas {
    /// Those of some letters, as far as the reader may see them.
    pub(super) async fn of(reader: &Reader, letters: &[Letter]) -> Self {
        let named = letters.iter().filter(|letter| !letter.saga_id.is_empty());
        let ids: BTreeSet<&str> = named.map(|letter| letter.saga_id.as_str()).collect();
        if ids.is_empty() {
            return Self::default();
        }
        let asked = ids
            .iter()
            .fold(Query::default(), |query, id| query.with("id", id));
        let path = format!("/sagas?{}&limit={}", asked.text(), ids.len());
        reader.get(&path).await.unwrap_or_default()
    }

    /// The saga's key, as it is called where there is one.
    pub(super) fn key(&self, letter: &Letter) -> Text {
        let known = self.saga(letter).map(|saga| saga.key.short());
        known.unwrap_or_else(|| letter.saga_id.clone())
    }

    /// How the letter's saga has ended: then nobody waits for the message any more.
    pub(super) fn ended(&self, letter: &Letter) -> Option<&Text> {
        let saga = self.saga(letter)?;
        (!saga.ended_at.is_none()).then_some(&saga.status)
    }

    fn saga(&self, letter: &Letter) -> Option<&Head> {
        let mut all = self.sagas.iter();
        all.find(|saga| !letter.saga_id.is_empty() && saga.saga_id == letter.saga_id)
    }
}

#[derive(Template)]
#[template(path = "letters.html")]
struct LettersPage {
    shell: Shell,
    query: Query,
    groups: Answer<Groups>,
    list: List,
    sagas: Sagas,
}

impl LettersPage {
    fn following(&self) -> Option<String> {
        let next = self.list.next.as_deref()?;
        let query = self.query.without(&["after", "done", "sent", "refused"]);
        Some(format!("/ui/letters?{}", query.with("after", next).text()))
    }

    fn first(&self) -> Option<String> {
        let query = self.query.without(&["after", "done", "sent", "refused"]);
        (!self.query.get("after").is_empty()).then(|| format!("/ui/letters?{}", query.text()))
    }

    /// Where the letters of a group are listed, the other conditions being kept.
    fn group_address(&self, group: &Group) -> String {
        let query = filter(&self.query).without(&["fingerprint"]);
        let query = query.with("fingerprint", group.newest.fingerprint.as_str());
        format!("/ui/letters?{}", query.text())
    }

    fn filter_text(&self) -> String {
        filter(&self.query).text()
    }

    fn field(&self, name: &str) -> Text {
        Text::from(self.query.get(name))
    }

    fn more_is_set(&self) -> bool {
        let mut fields = FIELDS[2..].iter();
        fields.any(|(name, ..)| !self.query.get(name).is_empty())
    }
}

/// Which letters, without which page of them.
pub(super) fn filter(query: &Query) -> Query {
    query.without(&OF_THE_PAGE)
}

/// `GET /ui/letters`.
pub(super) async fn view(reader: Reader, RawQuery(asked): RawQuery) -> Result<Response, Refusal> {
    let query = Query::read(asked.as_deref());
    let of_list = query.without(&["done", "sent", "refused", "limit"]);
    let of_list = of_list.with("limit", &LETTERS_SHOWN.to_string());
    let of_groups = filter(&query).with("limit", &GROUPS_SHOWN.to_string());
    let (list, groups) = (
        format!("/dead-letters?{}", of_list.text()),
        format!("/dead-letters/groups?{}", of_groups.text()),
    );
    let (list, groups) = tokio::join!(reader.get::<List>(&list), reader.get(&groups));
    let mut shell = Shell::new("Dead letters", "/ui/letters", &reader);
    shell.done = done(&query);
    let list = match list {
        Ok(list) => list,
        // Of what is wrong with the filter, the form beside it is the place.
        Err(failure) if failure.status == 400 => {
            shell.failure = Some(failure);
            List::default()
        }
        Err(failure) => return Err(Refusal::new(&reader, failure)),
    };
    let sagas = Sagas::of(&reader, &list.dead_letters).await;
    Ok(page(&LettersPage {
        shell,
        query,
        groups,
        list,
        sagas,
    }))
}

/// What was done, in words of ours: the address is anybody's.
pub(super) fn done(query: &Query) -> Option<Text> {
    let number = |name: &str| query.get(name).parse::<u64>().unwrap_or(0);
    let (sent, refused) = (number("sent"), number("refused"));
    let all = |count: u64| match count {
        1 => "1 letter is".to_owned(),
        _ => format!("{count} letters are"),
    };
    let refused = match refused {
        0 => String::new(),
        _ => format!(" {} left as before.", all(refused)),
    };
    match query.get("done") {
        "replay" => Some(Text::from(format!("{} sent again.{refused}", all(sent)))),
        "discard" => Some(Text::from(format!("{} discarded.{refused}", all(sent)))),
        "edit" => Some(Text::from(
            "A replay sends the changed message from now on.",
        )),
        _ => None,
    }
}
