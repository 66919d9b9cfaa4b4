//! The access file: which provider's JWTs and which client certificates are let in.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::certificate::CertificateRule;
use super::jwt::OidcOptions;
use super::rights::Rights;
use crate::file;

/// Largest access file, in bytes.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// What an access file says.
#[derive(Debug, Clone, Default)]
pub struct AccessFile {
    /// Whose JWTs are taken.
    pub oidc: Option<OidcOptions>,
    /// Whose certificates are taken.
    pub certificates: Vec<CertificateRule>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    oidc: Option<WrittenOidc>,
    #[serde(default)]
    certificates: Vec<WrittenRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenOidc {
    issuer: String,
    audience: String,
    jwks: String,
    #[serde(default = "scope")]
    claim: String,
    #[serde(default)]
    map: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    name: String,
    scopes: Vec<String>,
}

fn scope() -> String {
    "scope".to_owned()
}

impl AccessFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let about = |why: String| format!("the access file {shown}: {why}");
        let text = file::read_text(path, FILE_BYTES_MAX).map_err(about)?;
        Self::parse(&text).map_err(about)
    }

    /// Reads what one says.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if written.oidc.is_none() && written.certificates.is_empty() {
            return Err("it lets nobody in: give `oidc`, `certificates` or both".to_owned());
        }
        let oidc = written.oidc.map(WrittenOidc::checked).transpose()?;
        let rule = |rule: WrittenRule| {
            let WrittenRule { name, scopes } = rule;
            if !CertificateRule::is_name(&name) {
                return Err(format!(
                    "certificates: `{name}` is neither a DNS name nor an IP address"
                ));
            }
            let rights = rights(&scopes).map_err(|why| format!("certificates: {name}: {why}"))?;
            Ok(CertificateRule { name, rights })
        };
        let certificates = written.certificates.into_iter().map(rule);
        Ok(Self {
            oidc,
            certificates: certificates.collect::<Result<_, String>>()?,
        })
    }
}

impl WrittenOidc {
    fn checked(self) -> Result<OidcOptions, String> {
        if self.issuer.is_empty() || self.audience.is_empty() {
            return Err("oidc: `issuer` and `audience` must say something".to_owned());
        }
        if self.jwks.starts_with("http://") {
            return Err(
                "oidc: `jwks` must be a file or begin with https://: whoever can change the keys on their way can sign in as anybody"
                    .to_owned(),
            );
        }
        let map = self.map.into_iter().map(|(value, scopes)| {
            let rights = rights(&scopes).map_err(|why| format!("oidc: map: {value}: {why}"))?;
            Ok((value, rights))
        });
        Ok(OidcOptions {
            map: map.collect::<Result<_, String>>()?,
            issuer: self.issuer,
            audience: self.audience,
            jwks: self.jwks,
            claim: self.claim,
        })
    }
}

fn rights(scopes: &[String]) -> Result<Rights, String> {
    let rights: Rights = scopes.join(" ").parse()?;
    if rights.is_empty() {
        return Err("no scope is given".to_owned());
    }
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_says_what_is_wrong() {
        let file = AccessFile::parse(
            "oidc:\n  issuer: https://login.example\n  audience: backstitch\n  jwks: keys.json\n  map:\n    night-shift: [sagas:read, sagas:operate]\ncertificates:\n  - name: starter.example\n    scopes: [sagas:start@place-order]\n",
        )
        .unwrap();
        let oidc = file.oidc.unwrap();
        assert_eq!(oidc.claim, "scope");
        assert_eq!(
            oidc.map["night-shift"].to_string(),
            "sagas:read sagas:operate"
        );
        assert_eq!(file.certificates[0].name, "starter.example");
        for (text, word) in [
            ("{}", "nobody"),
            ("certificates: []", "nobody"),
            ("certificates: [{name: a b, scopes: [admin]}]", "a b"),
            ("certificates: [{name: a, scopes: []}]", "no scope"),
            ("certificates: [{name: a, scopes: [all]}]", "`all`"),
            ("certificate: []", "certificate"),
            (
                "oidc: {issuer: a, audience: b, jwks: 'http://keys'}",
                "https",
            ),
            ("oidc: {issuer: '', audience: b, jwks: k}", "issuer"),
            ("oidc: {issuer: a, jwks: k}", "audience"),
        ] {
            let why = AccessFile::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
