//! The seal on a command to a sub-saga.
//!
//! Commands to sub-sagas travel through the start queue, where anybody may ask for a saga. What
//! sets them apart is a keyed hash over what they say: the saga to run, how deep it is, and for
//! which step of which saga it is asked what (the correlation id). The correlation id's own MAC
//! would not do: each participant is given one, and could then start a saga that waits for ever for
//! a parent who does not know of it.

use super::correlation::{Correlation, Secret};
use super::{HEADER_CHILD_DEPTH, HEADER_CHILD_SEAL, Message};

/// What sets a command to a sub-saga apart from a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildCommand {
    /// The definition to run.
    pub name: String,
    /// How many sagas are above the one that it is for.
    pub depth: u32,
    /// Which step of which saga asks, and for what.
    pub correlation: Correlation,
}

impl ChildCommand {
    /// Whether a message says that it is one.
    pub fn is_meant(message: &Message) -> bool {
        message.properties.headers.contains_key(HEADER_CHILD_SEAL)
    }

    /// The seal.
    pub fn seal(&self, secret: &Secret) -> String {
        secret.sign(&self.plain())
    }

    /// Reads a message that says it is one; `None` if it is not, or was changed.
    pub fn verify(message: &Message, secret: &Secret) -> Option<Self> {
        let properties = &message.properties;
        let correlation = properties.correlation_id.as_deref()?;
        let depth = properties.headers.get(HEADER_CHILD_DEPTH)?.as_u64()?;
        let command = Self {
            name: properties.kind.clone()?,
            depth: u32::try_from(depth).ok()?,
            correlation: Correlation::verify(correlation, secret).ok()?,
        };
        let seal = message.header(HEADER_CHILD_SEAL)?;
        secret.has_signed(&command.plain(), seal).then_some(command)
    }

    fn plain(&self) -> String {
        let Self {
            name,
            depth,
            correlation: Correlation { saga, step, phase },
        } = self;
        format!("child/{name}/{depth}/{saga}/{step}/{phase}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Phase, SagaId};
    use crate::message::Properties;
    use serde_json::json;
    use uuid::Uuid;

    fn message(command: &ChildCommand, seal: String) -> Message {
        let properties = Properties {
            kind: Some(command.name.clone()),
            correlation_id: Some(command.correlation.sign(&secret())),
            headers: [
                (HEADER_CHILD_DEPTH.to_owned(), json!(command.depth)),
                (HEADER_CHILD_SEAL.to_owned(), json!(seal)),
            ]
            .into(),
            ..Properties::default()
        };
        Message {
            properties,
            ..Message::default()
        }
    }

    fn secret() -> Secret {
        Secret::new([7; 32])
    }

    fn command() -> ChildCommand {
        ChildCommand {
            name: "book-hotel".to_owned(),
            depth: 1,
            correlation: Correlation {
                saga: SagaId(Uuid::from_u128(42)),
                step: "hotel[2]".parse().unwrap(),
                phase: Phase::Reserve,
            },
        }
    }

    #[test]
    fn what_was_sealed_is_verified() {
        let message = message(&command(), command().seal(&secret()));
        assert!(ChildCommand::is_meant(&message));
        assert_eq!(ChildCommand::verify(&message, &secret()), Some(command()));
        assert!(!ChildCommand::is_meant(&Message::default()));
    }

    #[test]
    fn what_a_participant_could_make_is_not() {
        let seal = command().seal(&secret());
        // The MAC of its own command is all it knows.
        let own = command().correlation.sign(&secret());
        let mac = own.rsplit_once('/').unwrap().1.to_owned();
        let another_saga = ChildCommand {
            name: "pay-me".to_owned(),
            ..command()
        };
        let another_depth = ChildCommand {
            depth: 0,
            ..command()
        };
        let mut another_phase = command();
        another_phase.correlation.phase = Phase::Confirm;
        for forged in [
            message(&command(), mac),
            message(&command(), String::new()),
            message(&command(), "ü".to_owned()),
            message(&another_saga, seal.clone()),
            message(&another_depth, seal.clone()),
            message(&another_phase, seal.clone()),
        ] {
            assert_eq!(ChildCommand::verify(&forged, &secret()), None, "{forged:?}");
        }
        let other = Secret::new([8; 32]);
        let message = message(&command(), seal);
        assert_eq!(ChildCommand::verify(&message, &other), None);
    }
}
