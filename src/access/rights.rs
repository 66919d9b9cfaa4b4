//! What a caller may do: scopes, each for all sagas or for some by name.
//!
//! As text, rights are scopes with spaces between them, as OAuth 2.0 writes them (RFC 6749, section
//! 3.3); `@` and names behind one limit it: `sagas:read sagas:start@place-order,refund`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Most names behind one scope.
const NAMES_MAX: usize = 100;
/// Longest text of rights, in bytes.
pub const RIGHTS_BYTES_MAX: usize = 10_000;

/// One kind of thing that can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// See sagas: lists, steps, payloads, schedules.
    SagasRead,
    /// Start sagas.
    SagasStart,
    /// Send signals to sagas.
    SignalsSend,
    /// Cancel, retry, skip, pause and resume sagas; set schedules.
    SagasOperate,
    /// End sagas by force, whatever is still open.
    SagasForce,
    /// See aggregates, their events and projections.
    AggregatesRead,
    /// See dead letters and the audit log.
    LettersRead,
    /// Edit, replay, discard, import and purge dead letters.
    LettersWrite,
    /// Read metrics.
    MetricsRead,
    /// Everything.
    Admin,
}

/// Every scope, with its text and what it allows.
pub const SCOPES: &[(Scope, &str, &str)] = &[
    (Scope::SagasRead, "sagas:read", "see sagas and schedules"),
    (Scope::SagasStart, "sagas:start", "start sagas"),
    (Scope::SignalsSend, "signals:send", "send signals"),
    (
        Scope::SagasOperate,
        "sagas:operate",
        "cancel, retry, skip, pause, resume; set schedules",
    ),
    (Scope::SagasForce, "sagas:force", "end sagas by force"),
    (
        Scope::AggregatesRead,
        "aggregates:read",
        "see aggregates, their events and projections",
    ),
    (
        Scope::LettersRead,
        "letters:read",
        "see dead letters and the audit log",
    ),
    (
        Scope::LettersWrite,
        "letters:write",
        "edit, replay, discard, import, purge dead letters",
    ),
    (Scope::MetricsRead, "metrics:read", "read /metrics"),
    (Scope::Admin, "admin", "everything"),
];

impl Scope {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        let found = SCOPES.iter().find(|(scope, ..)| *scope == self);
        found.map_or("", |(_, text, _)| text)
    }

    /// Whether it can be limited to sagas of some names.
    fn is_about_sagas(self) -> bool {
        matches!(
            self,
            Self::SagasRead
                | Self::SagasStart
                | Self::SignalsSend
                | Self::SagasOperate
                | Self::SagasForce
        )
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = SCOPES.iter().find(|(_, known, _)| *known == text);
        found.map(|(scope, ..)| *scope).ok_or_else(|| {
            let known: Vec<&str> = SCOPES.iter().map(|(_, known, _)| *known).collect();
            let text: String = text.chars().take(40).collect();
            format!("`{text}` is no scope; there are {}", known.join(", "))
        })
    }
}

/// How far a scope reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Not at all.
    Nothing,
    /// To sagas of these names.
    Named(BTreeSet<String>),
    /// To everything.
    All,
}

impl Reach {
    /// Whether it reaches to sagas of a name.
    pub fn holds(&self, saga: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Named(names) => names.contains(saga),
            Self::All => true,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (Self::Named(mut names), Self::Named(more)) => {
                names.extend(more);
                Self::Named(names)
            }
        }
    }
}

/// What somebody may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights(Vec<(Scope, Reach)>);

impl Rights {
    /// What nobody may take away.
    pub fn everything() -> Self {
        Self(vec![(Scope::Admin, Reach::All)])
    }

    /// Adds a scope; `names` limit it, unless there are none.
    pub fn add(&mut self, scope: Scope, names: BTreeSet<String>) -> Result<(), String> {
        if names.is_empty() {
            self.0.push((scope, Reach::All));
            return Ok(());
        }
        if !scope.is_about_sagas() {
            return Err(format!("`{scope}` can't be limited to sagas of some names"));
        }
        if names.len() > NAMES_MAX {
            return Err(format!("`{scope}` has more than {NAMES_MAX} names"));
        }
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            let name: String = name.chars().take(40).collect();
            return Err(format!("`{name}` can't be the name of a saga"));
        }
        self.0.push((scope, Reach::Named(names)));
        Ok(())
    }

    /// Adds all of others.
    pub fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().cloned());
    }

    /// How far a scope reaches.
    pub fn reach(&self, scope: Scope) -> Reach {
        let held = self.0.iter();
        held.filter(|(held, _)| *held == scope || *held == Scope::Admin)
            .fold(Reach::Nothing, |reach, (_, more)| reach.and(more.clone()))
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains([',', '@']) && !text.contains(char::is_whitespace)
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (scope, reach)) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{scope}")?;
            if let Reach::Named(names) = reach {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                write!(f, "@{}", names.join(","))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Rights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > RIGHTS_BYTES_MAX {
            return Err(format!("rights of more than {RIGHTS_BYTES_MAX} bytes"));
        }
        let mut rights = Self::default();
        for part in text.split_whitespace() {
            let (scope, names) = part
                .split_once('@')
                .map_or((part, None), |(scope, names)| (scope, Some(names)));
            let scope: Scope = scope.parse()?;
            let names = match names {
                None => BTreeSet::new(),
                // Nothing behind the `@` must not mean everything.
                Some("") => return Err(format!("no name follows `{scope}@`")),
                Some(names) => names.split(',').map(str::to_owned).collect(),
            };
            rights.add(scope, names)?;
        }
        Ok(rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(text: &str) -> Rights {
        text.parse().unwrap()
    }

    #[test]
    fn rights_are_read_as_they_are_written() {
        for text in [
            "sagas:read",
            "sagas:read sagas:start@place-order",
            "sagas:operate@a,b letters:read",
            "admin",
            "",
        ] {
            assert_eq!(rights(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_right_is_refused_and_says_which() {
        for (text, word) in [
            ("sagas:raed", "sagas:raed"),
            ("sagas", "sagas"),
            ("letters:read@place-order", "letters:read"),
            ("admin@place-order", "admin"),
            ("sagas:start@", "no name"),
            ("sagas:start@a,,b", "name of a saga"),
            ("sagas:start@a@b", "name of a saga"),
        ] {
            let why = text.parse::<Rights>().unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }

    #[test]
    fn a_scope_reaches_as_far_as_all_its_grants_together() {
        let some = rights("sagas:read@a sagas:read@b sagas:start");
        assert!(some.reach(Scope::SagasRead).holds("a"));
        assert!(some.reach(Scope::SagasRead).holds("b"));
        assert!(!some.reach(Scope::SagasRead).holds("c"));
        assert_eq!(some.reach(Scope::SagasStart), Reach::All);
        assert_eq!(some.reach(Scope::SagasForce), Reach::Nothing);
        for (scope, ..) in SCOPES {
            assert_eq!(rights("admin").reach(*scope), Reach::All);
            assert_eq!(rights("").reach(*scope), Reach::Nothing);
        }
    }
}
