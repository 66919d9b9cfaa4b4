//! Who sent a request, or why that is nobody.

use super::rights::Rights;
use crate::store::StoreError;

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name to put down as `by`; none for who was asked for nothing.
    pub name: Option<String>,
    /// What it may do.
    pub rights: Rights,
}

impl Caller {
    /// One who was asked for nothing, because nothing is set up: may do everything.
    pub fn anyone() -> Self {
        Self {
            name: None,
            rights: Rights::everything(),
        }
    }

    /// Who does it, as it is put down: whoever is signed in, and for whom they say they do it.
    /// `None` if nobody is named.
    pub fn author(&self, on_behalf_of: Option<&str>) -> Option<String> {
        match (&self.name, on_behalf_of) {
            (Some(name), Some(other)) if name != other => {
                Some(format!("{name} (on behalf of {other})"))
            }
            (Some(name), _) => Some(name.clone()),
            (None, said) => said.map(str::to_owned),
        }
    }
}

/// Why a request is nobody's. The text is for its sender, who must learn nothing from it.
#[derive(Debug, thiserror::Error)]
pub enum Stranger {
    /// It came with nothing.
    #[error(
        "this node asks who you are: send `Authorization: Bearer TOKEN` (`backstitch token create` makes one; the commands take --token-file or BACKSTITCH_TOKEN)"
    )]
    Nothing,
    /// What it came with opens nothing (any more). The reason is for the log.
    #[error("the token is not valid, has expired or was revoked")]
    Invalid(String),
    /// It can't be looked up now.
    #[error("who you are can't be looked up now: {0}")]
    Unavailable(String),
}

impl From<StoreError> for Stranger {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
