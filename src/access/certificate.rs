//! Client certificates: which name one is valid for, and what that name may do.
//!
//! That a certificate is genuine and its holder has the key was verified when TLS began; here its
//! names (`subjectAltName`) are looked at alone. A name of no rule opens nothing.

use rustls::pki_types::{CertificateDer, ServerName};
use webpki::EndEntityCert;

use super::rights::Rights;

/// What the holder of a certificate may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRule {
    /// A DNS name or IP address that the certificate must be valid for; put down as `by`.
    pub name: String,
    /// What its holder may do.
    pub rights: Rights,
}

impl CertificateRule {
    /// Whether it is for a certificate, given in DER.
    pub fn is_for(&self, der: &[u8]) -> bool {
        let der = CertificateDer::from(der);
        let Ok(certificate) = EndEntityCert::try_from(&der) else {
            return false;
        };
        let Ok(name) = ServerName::try_from(self.name.as_str()) else {
            return false;
        };
        certificate.verify_is_valid_for_subject_name(&name).is_ok()
    }

    /// Whether a name can stand in a certificate at all.
    pub fn is_name(name: &str) -> bool {
        ServerName::try_from(name).is_ok()
    }
}
