//! Bearer tokens of ours: how one is made, and what is kept of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// What they begin with, so that one is recognized where it should not be: in a repository, a log.
pub const PREFIX: &str = "bst_";
/// Random bytes of one.
const SECRET_BYTES: usize = 32;

/// SHA-256 of a token. A plain hash is enough for 256 random bits: there is nothing to guess.
pub type Hashed = [u8; 32];

/// A new token, to be shown once. Fails if the system has no randomness.
pub fn fresh() -> Result<String, String> {
    let mut secret = [0; SECRET_BYTES];
    super::ring::random(&mut secret)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret)))
}

/// What is kept of a token.
pub fn hashed(token: &str) -> Hashed {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_have_256_bits() {
        let (one, other) = (fresh().unwrap(), fresh().unwrap());
        assert_ne!(one, other);
        let secret = one.strip_prefix(PREFIX).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap().len(), SECRET_BYTES);
        assert_ne!(hashed(&one), hashed(&other));
    }
}
