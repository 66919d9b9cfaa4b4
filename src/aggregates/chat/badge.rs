//! How many messages a customer has not read.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::messages::{self, ChatMessages};
use super::read_marks::{self, ReadMarks};
use crate::participant::{Aggregate, CommandSpec, Participant};
use crate::projection::{Key, Projection, ReadCommand, ReadModel, Recorded};

/// Unread messages of a chat that are known by their ids; older ones are only counted.
const KNOWN_MAX: usize = 500;

/// A customer's badge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Badge {
    /// The number on it.
    pub unread: u64,
    /// What it is made of, by chat; chats in which all is read are left out.
    pub chats: BTreeMap<String, Unread>,
}

/// What is unread in a chat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// How many messages.
    pub count: u64,
    /// The newest of them, the newest last.
    pub newest: VecDeque<String>,
}

/// The projection, by customer.
pub struct UnreadBadge;

impl Projection for UnreadBadge {
    type Document = Badge;

    const NAME: &'static str = "unread-badge";
    const KINDS: &'static [&'static str] = &[ChatMessages::KIND, ReadMarks::KIND];
    const KEY: Key = Key::Event(customer_of);

    fn apply(badge: &mut Badge, event: &Recorded<'_>) {
        match event.of::<ChatMessages>() {
            Some(messages::Event::Posted(posted)) => {
                let chat = badge.chats.entry(posted.chat).or_default();
                chat.count += 1;
                chat.newest.push_back(event.id().to_owned());
                if chat.newest.len() > KNOWN_MAX {
                    chat.newest.pop_front();
                }
            }
            Some(messages::Event::Withdrawn { chat, .. }) => {
                if let Some(chat) = badge.chats.get_mut(&chat) {
                    let known = chat.newest.len();
                    chat.newest.retain(|message| message != event.id());
                    chat.count -= (known - chat.newest.len()) as u64;
                }
            }
            None => {}
        }
        if let Some(read_marks::Event::Read { chat, upto }) = event.of::<ReadMarks>()
            && let Some(chat) = badge.chats.get_mut(&chat)
            && let Some(last) = chat.newest.iter().position(|message| *message == upto)
        {
            chat.newest.drain(..=last);
            chat.count = chat.newest.len() as u64;
        }
        badge.chats.retain(|_, chat| chat.count > 0);
        badge.unread = badge.chats.values().map(|chat| chat.count).sum();
    }
}

fn customer_of(event: &Recorded<'_>) -> Option<String> {
    match event.of::<ChatMessages>() {
        Some(messages::Event::Posted(posted)) => Some(posted.to),
        Some(messages::Event::Withdrawn { to, .. }) => Some(to),
        None => (event.kind() == ReadMarks::KIND).then(|| event.id().to_owned()),
    }
}

/// The participant that tells a saga what is on a customer's badge.
pub fn badges(model: ReadModel) -> Participant {
    const COMMANDS: &[CommandSpec] = &[CommandSpec::new("badges.read")];
    Participant::new("badges").handler(ReadCommand::new::<UnreadBadge>(model, COMMANDS, "customer"))
}
