//! Why a saga has not ended: what it waits for, in one sentence.
//!
//! Separate from the steps' views because it answers what a person asks first, and because it speaks of
//! what no journal knows: who takes from the queue, and which dead letters are open. That is looked at
//! elsewhere and told with [`WhyView::see`]; nothing here asks anybody.
//!
//! Deliberately absent: what is waited for; `wait` finds that out.

use serde::Serialize;

use super::head::SpotView;
use crate::id::SagaId;

/// What a live saga waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// A participant's answer.
    Reply,
    /// The time of the next attempt.
    Retry,
    /// A signal.
    Signal,
    /// The end of a `sleep`.
    Time,
    /// A saga that it runs.
    SubSaga,
    /// The saga that runs it.
    Parent,
    /// A person who decides about a suspended step.
    Person,
    /// A person who lets it go on after a pause.
    Resume,
    /// Nothing: a node is about to go on with it.
    Node,
}

/// What a live saga waits for, and what is known about that.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WhyView {
    /// The whole of it in one sentence.
    pub text: String,
    /// What it waits for.
    pub r#for: WaitKind,
    /// Where.
    #[serde(flatten)]
    pub spot: Option<SpotView>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// When the answer, the next attempt or the end is due.
    pub until: Option<String>,
    /// How often the command was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// After how many attempts something else happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The signal's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The sub-saga, or the saga that runs this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_saga: Option<SagaId>,
    /// The newest trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Whether its command is still in the outbox, although the answer was due.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsent: bool,
    /// Where the command goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueView>,
    /// How many dead letters of this saga are open, if that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_letters: Option<u64>,
    /// How many other steps wait besides.
    pub others: usize,
}

/// A queue, and what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// What was seen; none if nobody could look.
    #[serde(flatten)]
    pub seen: Option<QueueSeen>,
}

/// What was seen of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QueueSeen {
    /// Whether there is one.
    pub exists: bool,
    /// Messages that wait in it.
    pub waiting: u64,
    /// Who takes from it, if that is known.
    pub consumers: Option<u64>,
}

/// What there is around a saga.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The queue, if it could be looked at.
    pub queue: Option<QueueSeen>,
    /// Open dead letters of the saga, if they could be counted.
    pub open_letters: Option<u64>,
}

impl WhyView {
    /// Of this kind, nothing more being known.
    pub(super) fn blank(kind: WaitKind) -> Self {
        Self {
            text: String::new(),
            r#for: kind,
            spot: None,
            since: None,
            until: None,
            attempt: None,
            attempts_max: None,
            command: None,
            signal: None,
            other_saga: None,
            trouble: None,
            unsent: false,
            queue: None,
            open_letters: None,
            others: 0,
        }
    }

    /// Takes in what was seen around the saga.
    pub fn see(&mut self, around: &Surroundings) {
        if let Some(queue) = &mut self.queue {
            queue.seen = around.queue;
        }
        self.open_letters = around.open_letters;
        self.text = self.sentence();
    }

    /// All that is known, in words.
    pub(super) fn sentence(&self) -> String {
        let mut text = self.main_clause();
        let mut add = |clause: String| {
            text.push_str("; ");
            text.push_str(&clause);
        };
        let is_told = matches!(self.r#for, WaitKind::Resume | WaitKind::Person);
        if let Some(trouble) = self.trouble.as_deref().filter(|_| !is_told) {
            add(format!("the last trouble was: {trouble}"));
        }
        if self.unsent {
            add("the command is still in the outbox: no node could publish it".to_owned());
        }
        if let Some(QueueView { name, seen }) = &self.queue
            && let Some(seen) = seen
        {
            add(of_queue(name, seen));
        }
        match self.open_letters {
            None | Some(0) => {}
            Some(1) => add("one dead letter of it is open".to_owned()),
            Some(many) => add(format!("{many} dead letters of it are open")),
        }
        match self.others {
            0 => {}
            1 => add("one other step waits, too".to_owned()),
            others => add(format!("{others} other steps wait, too")),
        }
        text
    }

    fn main_clause(&self) -> String {
        let since = self.since.as_deref().map(whole_seconds);
        let since = since.map_or_else(String::new, |since| format!(" since {since}"));
        let until = self.until.as_deref().map(whole_seconds);
        let by = until.as_ref().map(|until| format!(", due by {until}"));
        let by = by.unwrap_or_default();
        let place = self.place();
        let command = self.command.as_deref().map(|name| format!("`{name}`"));
        let command = command.unwrap_or_else(|| "its command".to_owned());
        let saga = self.other_saga.map(|id| id.to_string()).unwrap_or_default();
        let trouble = self.trouble.as_deref().unwrap_or("no reason given");
        let until = until.unwrap_or_default();
        match self.r#for {
            WaitKind::Reply => format!("waits{since} for the answer to {command}{place}{by}"),
            WaitKind::Retry => format!("has tried {command}{since}{place}, next at {until}"),
            WaitKind::SubSaga => format!("waits{since} for its sub-saga {saga}{place}{by}"),
            WaitKind::Signal => {
                let signal = self.signal.as_deref().unwrap_or("?");
                let until = if until.is_empty() {
                    "for as long as it takes".to_owned()
                } else {
                    format!("until {until}")
                };
                format!("waits{since} for the signal `{signal}`{place}, {until}")
            }
            WaitKind::Time => format!("sleeps{since}{place} until {until}"),
            WaitKind::Parent => {
                format!("is prepared{since} and waits for saga {saga}, which runs it, to say on")
            }
            WaitKind::Person => {
                format!("waits{since} for a person to retry or skip {command}{place}: {trouble}")
            }
            WaitKind::Resume => format!("is paused{since} until a person resumes it: {trouble}"),
            WaitKind::Node => format!("waits{since} for nothing: a node is about to go on with it"),
        }
    }

    /// Which step, phase and attempt.
    fn place(&self) -> String {
        let Some(SpotView { step, phase }) = &self.spot else {
            return String::new();
        };
        if matches!(self.r#for, WaitKind::Signal | WaitKind::Time) {
            return format!(" ({step})");
        }
        let attempt = match (self.attempt, self.attempts_max) {
            (None | Some(0), _) => String::new(),
            (Some(attempt), Some(most)) => format!(", attempt {attempt} of {most}"),
            (Some(attempt), None) => format!(", attempt {attempt}"),
        };
        format!(" ({step} {phase}{attempt})")
    }
}

fn of_queue(name: &str, seen: &QueueSeen) -> String {
    let QueueSeen {
        exists,
        waiting,
        consumers,
    } = *seen;
    let messages = match waiting {
        0 => "no message waits".to_owned(),
        1 => "1 message waits".to_owned(),
        many => format!("{many} messages wait"),
    };
    match consumers {
        _ if !exists => format!("its queue `{name}` does not exist: start its participant"),
        Some(0) => format!("nobody takes from its queue `{name}`, where {messages}"),
        Some(1) => format!("its queue `{name}` has one consumer, and {messages} there"),
        Some(many) => format!("its queue `{name}` has {many} consumers, and {messages} there"),
        None => format!("in its queue `{name}` {messages}"),
    }
}

/// A time for people, who don't count its microseconds.
fn whole_seconds(rfc_3339: &str) -> String {
    match rfc_3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc_3339.to_owned(),
    }
}

#[cfg(test)]
mod tests;
