//! A condition on a label: `customer=alice`, `amount>=100`, `due<2026-02-01T00:00:00Z`.

use std::fmt;
use std::str::FromStr;

use crate::definition::{Label, LabelValue, check_name};
use crate::id::Timestamp;
use crate::store::labels::encoded;

/// A condition on one label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelCondition {
    /// The label.
    pub name: String,
    /// How it stands to the value.
    pub relation: Relation,
    /// The value as written.
    pub text: String,
}

/// How a label stands to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is the same.
    Equal,
    /// It is less.
    Less,
    /// It is less, or the same.
    LessOrEqual,
    /// It is more.
    More,
    /// It is more, or the same.
    MoreOrEqual,
}

impl Relation {
    /// Longer ones first, so that each is found whole.
    const ALL: [(Self, &str); 5] = [
        (Self::LessOrEqual, "<="),
        (Self::MoreOrEqual, ">="),
        (Self::Equal, "="),
        (Self::Less, "<"),
        (Self::More, ">"),
    ];

    /// As it is written, here and in SQL.
    pub fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(relation, _)| *relation == self);
        found.map_or("=", |(_, text)| text)
    }
}

impl LabelCondition {
    /// What the label's column is compared with: texts that have one type each. To be equal it may be of
    /// any type that the text can be read as; to be more or less, of the narrowest.
    pub(in crate::store) fn values(&self) -> Vec<String> {
        let text = LabelValue::Text(self.text.clone());
        let number = self.text.parse::<f64>().ok();
        let number = number.filter(|number| number.is_finite());
        let time = self.text.parse::<Timestamp>().ok();
        let narrow = number
            .map(LabelValue::Number)
            .or(time.map(LabelValue::Time));
        let mut values: Vec<LabelValue> = narrow.into_iter().collect();
        if values.is_empty() || self.relation == Relation::Equal {
            values.push(text);
        }
        values.iter().map(encoded).collect()
    }

    /// Where a range must end so that it keeps to one type: the first letter of a value is its type.
    pub(in crate::store) fn bound(&self) -> Option<String> {
        let first = self.values().first()?.as_bytes().first().copied()?;
        match self.relation {
            Relation::Equal => None,
            Relation::Less | Relation::LessOrEqual => Some(char::from(first).to_string()),
            Relation::More | Relation::MoreOrEqual => Some(char::from(first + 1).to_string()),
        }
    }

    pub(super) fn holds(&self, labels: &[Label]) -> bool {
        let Some(label) = labels.iter().find(|label| label.name == self.name) else {
            return false;
        };
        let value = encoded(&label.value);
        let values = self.values();
        let (Some(wanted), bound) = (values.first(), self.bound().unwrap_or_default()) else {
            return false;
        };
        match self.relation {
            Relation::Equal => values.contains(&value),
            Relation::Less => value < *wanted && value >= bound,
            Relation::LessOrEqual => value <= *wanted && value >= bound,
            Relation::More => value > *wanted && value < bound,
            Relation::MoreOrEqual => value >= *wanted && value < bound,
        }
    }
}

impl fmt::Display for LabelCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, self.relation.as_str(), self.text)
    }
}

impl FromStr for LabelCondition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            "a label and what it must be, as in customer=alice or amount>=100 (=, <, <=, >, >=)"
                .to_owned()
        };
        let end = text.find(['=', '<', '>']).ok_or_else(wrong)?;
        let (name, rest) = text.split_at(end);
        check_name(name).map_err(|_| wrong())?;
        let mut all = Relation::ALL.into_iter();
        let (relation, written) = all
            .find(|(_, written)| rest.starts_with(written))
            .ok_or_else(wrong)?;
        Ok(Self {
            name: name.to_owned(),
            relation,
            text: rest[written.len()..].to_owned(),
        })
    }
}
