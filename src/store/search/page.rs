//! Which part of what fits: an order, and where the page before ended.

use std::fmt;
use std::str::FromStr;

use crate::id::{SagaId, Timestamp};
use crate::store::SagaHead;

/// In which order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SearchOrder {
    /// By id, which is by the time of the start.
    #[default]
    Started,
    /// By the time of the end; only sagas that have ended.
    Ended,
    /// By key; only sagas that hold theirs. Of one definition.
    Key,
}

/// Which part of the sagas that fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPage {
    /// In which order.
    pub order: SearchOrder,
    /// From the small to the large, the old to the new.
    pub ascending: bool,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Only smaller ids than this one, whatever the order.
    pub below: Option<SagaId>,
    /// At most this many.
    pub limit: usize,
}

/// A place in an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// By id.
    Started(SagaId),
    /// By end.
    Ended(Timestamp, SagaId),
    /// By key.
    Key(String),
}

impl SearchPage {
    /// The newest sagas first.
    pub fn newest(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Reads an order: `started`, `ended` or `key`, with `-` before it for the other direction.
    pub fn sorted(mut self, text: &str) -> Result<Self, String> {
        let (name, ascending) = match text.strip_prefix('-') {
            Some(name) => (name, false),
            None => (text, true),
        };
        self.ascending = ascending;
        self.order = match name {
            "started" => SearchOrder::Started,
            "ended" => SearchOrder::Ended,
            "key" => SearchOrder::Key,
            _ => {
                return Err(format!(
                    "`sort` can't be `{}`: started, ended or key; with `-` before it, the largest first",
                    text.chars().take(60).collect::<String>()
                ));
            }
        };
        Ok(self)
    }

    /// Reads where the page before ended.
    pub fn following(mut self, text: &str) -> Result<Self, String> {
        let wrong = || "`after` is the `next` of the page before, in the same order".to_owned();
        self.after = Some(match self.order {
            SearchOrder::Started => Cursor::Started(text.parse().map_err(|_| wrong())?),
            SearchOrder::Key => Cursor::Key(text.to_owned()),
            SearchOrder::Ended => {
                let (at, id) = text.split_once(',').ok_or_else(wrong)?;
                let micros = i64::from_str(at).map_err(|_| wrong())?;
                Cursor::Ended(
                    Timestamp::from_micros(micros),
                    id.parse().map_err(|_| wrong())?,
                )
            }
        });
        Ok(self)
    }

    /// The place of a saga.
    pub fn place(&self, head: &SagaHead) -> Cursor {
        match self.order {
            SearchOrder::Started => Cursor::Started(head.id),
            SearchOrder::Ended => Cursor::Ended(head.ended_at.unwrap_or_default(), head.id),
            SearchOrder::Key => Cursor::Key(head.key.clone()),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(id) => id.fmt(f),
            Self::Ended(at, id) => write!(f, "{},{id}", at.as_micros()),
            Self::Key(key) => f.write_str(key),
        }
    }
}
