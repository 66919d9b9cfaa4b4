//! The correlation id of a command: `<saga id>/<step path>/<phase>/<mac>`.
//!
//! The `mac` is a keyed hash over the rest (HMAC-SHA-256, RFC 2104, truncated to 128 bits as
//! RFC 2104 §5 allows), so that knowing a saga's id is not enough to forge a reply.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::id::{Phase, SagaId, StepPath};

/// Bytes of the MAC that travel, of the 32 that HMAC-SHA-256 gives.
const MAC_BYTES: usize = 16;

/// The key that all nodes of one database share; kept in the database, never printed.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From the bytes that the store keeps.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The MAC of a text, in hexadecimal.
    pub(super) fn sign(&self, text: &str) -> String {
        let mac = self.mac(text).finalize().into_bytes();
        hex::encode(&mac[..MAC_BYTES])
    }

    /// Whether that is the text's MAC. Takes as long for any wrong one.
    pub(super) fn has_signed(&self, text: &str, mac: &str) -> bool {
        hex::decode(mac)
            .ok()
            .filter(|bytes| bytes.len() == MAC_BYTES)
            .is_some_and(|bytes| self.mac(text).verify_truncated_left(&bytes).is_ok())
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        // HMAC takes keys of any length, so this can't fail.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key length");
        mac.update(text.as_bytes());
        mac
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a command was, as its reply gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correlation {
    /// The saga that sent the command.
    pub saga: SagaId,
    /// The step it belongs to.
    pub step: StepPath,
    /// Which of the step's commands it was.
    pub phase: Phase,
}

/// Why a correlation id can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorrelationError {
    /// Not of the form we issue.
    #[error(
        "correlation id `{0}` is not `<saga id>/<step>/<phase>/<mac>`; copy it from the command unchanged"
    )]
    Malformed(String),
    /// Of the right form, but the MAC is not ours.
    #[error("correlation id `{0}` was not issued by this orchestrator")]
    Forged(String),
}

impl Correlation {
    /// The text that travels.
    pub fn sign(&self, secret: &Secret) -> String {
        let plain = format!("{}/{}/{}", self.saga, self.step, self.phase);
        let mac = secret.sign(&plain);
        format!("{plain}/{mac}")
    }

    /// Reads without checking the MAC: what a participant may do, as it has no secret.
    pub fn parse(text: &str) -> Result<Self, CorrelationError> {
        Self::split(text).map(|(correlation, _, _)| correlation)
    }

    /// Reads and checks that we issued it.
    pub fn verify(text: &str, secret: &Secret) -> Result<Self, CorrelationError> {
        let (correlation, plain, mac) = Self::split(text)?;
        if secret.has_signed(plain, mac) {
            Ok(correlation)
        } else {
            Err(CorrelationError::Forged(clip(text)))
        }
    }

    fn split(text: &str) -> Result<(Self, &str, &str), CorrelationError> {
        let bad = || CorrelationError::Malformed(clip(text));
        let (plain, mac) = text.rsplit_once('/').ok_or_else(bad)?;
        let mut parts = plain.splitn(3, '/');
        let (Some(saga), Some(step), Some(phase)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let correlation = Self {
            saga: saga.parse().map_err(|_| bad())?,
            step: step.parse().map_err(|_| bad())?,
            phase: phase.parse().map_err(|_| bad())?,
        };
        Ok((correlation, plain, mac))
    }
}

/// For errors, which people read: without the mac, which may be good elsewhere.
fn clip(text: &str) -> String {
    super::mask::text(text).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn correlation() -> Correlation {
        Correlation {
            saga: SagaId(Uuid::from_u128(42)),
            step: "stock[2]".parse().unwrap(),
            phase: Phase::Reserve,
        }
    }

    #[test]
    fn what_was_signed_is_verified() {
        let secret = Secret::new([7; 32]);
        let text = correlation().sign(&secret);
        assert_eq!(Correlation::verify(&text, &secret), Ok(correlation()));
        assert_eq!(Correlation::parse(&text), Ok(correlation()));
    }

    #[test]
    fn what_another_secret_signed_or_someone_changed_is_forged() {
        let text = correlation().sign(&Secret::new([7; 32]));
        let secret = Secret::new([8; 32]);
        assert!(matches!(
            Correlation::verify(&text, &secret),
            Err(CorrelationError::Forged(_))
        ));
        let changed = text.replace("reserve", "confirm");
        let secret = Secret::new([7; 32]);
        assert!(matches!(
            Correlation::verify(&changed, &secret),
            Err(CorrelationError::Forged(_))
        ));
        let shortened = &text[..text.len() - 2];
        assert!(matches!(
            Correlation::verify(shortened, &secret),
            Err(CorrelationError::Forged(_))
        ));
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in ["", "x", "a/b/c/d", "////", "é/é/é/é"] {
            let result = Correlation::verify(text, &Secret::new([7; 32]));
            assert!(
                matches!(result, Err(CorrelationError::Malformed(_))),
                "{text}"
            );
        }
    }
}
