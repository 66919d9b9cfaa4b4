//! Signatures and randomness by `ring`, which TLS brings along anyway.
//!
//! `jsonwebtoken` takes its cryptography from whoever provides it; its own two choices would add a
//! C library or some twenty crates. Only what providers of identities sign with can be verified:
//! asymmetric algorithms. Nothing here signs.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SecureRandom;
use ring::signature as with;

/// Algorithms whose signatures are verified: none that shares a secret with the provider.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Has JWTs verified by `ring` from now on; calling it again changes nothing.
pub(super) fn install() {
    // Fails only if it was done before.
    let _ = PROVIDER.install_default();
}

/// Fills with random bytes.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), String> {
    let source = ring::rand::SystemRandom::new();
    let filled = source.fill(bytes);
    filled.map_err(|_| "the system gives no random numbers".to_owned())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library's signature")]
fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library's signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let family = key.family();
    let fits = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => family == AlgorithmFamily::Ec,
        Algorithm::EdDSA => family == AlgorithmFamily::Ed,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => false,
        _ => family == AlgorithmFamily::Rsa,
    };
    if !fits {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Verified {
        algorithm: *algorithm,
        key: key.clone(),
    }))
}

/// A key, and the algorithm it is used with.
struct Verified {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Verified {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Verified {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let wrong = |_| signature::Error::new();
        if let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() {
            let key = with::RsaPublicKeyComponents { n, e };
            let parameters = rsa(self.algorithm).ok_or_else(signature::Error::new)?;
            return key.verify(parameters, message, signature).map_err(wrong);
        }
        let bytes = self.key.try_get_as_bytes();
        let bytes = bytes.map_err(|_| signature::Error::new())?;
        let how: &'static dyn with::VerificationAlgorithm = match self.algorithm {
            Algorithm::ES256 => &with::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &with::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &with::ED25519,
            other => rsa(other).ok_or_else(signature::Error::new)?,
        };
        let key = with::UnparsedPublicKey::new(how, bytes);
        key.verify(message, signature).map_err(wrong)
    }
}

/// How RSA signatures are verified; keys of less than 2,048 bits are refused.
fn rsa(algorithm: Algorithm) -> Option<&'static with::RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &with::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &with::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &with::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &with::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &with::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &with::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
