//! JWTs of an OpenID Connect provider: verified by its published keys, their claim made into rights.
//!
//! Asked of a JWT (RFC 8725): an asymmetric algorithm, a key of the provider's set, our audience, its
//! issuer, a subject, and a time that has come and not passed. The keys (JWKS, RFC 7517) are read when
//! they are first needed, once an hour, and when a JWT names one that is not among them, at most once a
//! minute: a provider may change them at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use tokio::sync::Mutex;

use super::caller::{Caller, Stranger};
use super::rights::Rights;
use super::{ring, trust};
use crate::file;
use crate::id::Timestamp;

/// After how long keys are read again.
const KEYS_TIME_MAX: Duration = Duration::from_hours(1);
/// How long after they were read, or reading failed, they may be read again for one that is missing.
const KEYS_TIME_MIN: Duration = Duration::from_mins(1);
/// How long after reading failed the first keys are tried again: requests meanwhile are answered at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Longest time that a provider may take to send them.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);
/// Largest set of keys, in bytes.
const KEYS_BYTES_MAX: usize = 1024 * 1024;
/// Longest JWT, in bytes.
const JWT_BYTES_MAX: usize = 16 * 1024;
/// By how much clocks may differ, in seconds.
const LEEWAY_SECONDS: u64 = 30;
/// Longest subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 255;

/// Whose JWTs are taken, and what they allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcOptions {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be or contain.
    pub audience: String,
    /// Where the provider's keys are: a file, or an address that begins with `https://`.
    pub jwks: String,
    /// The claim that says what its bearer may do; with dots, a path.
    pub claim: String,
    /// What each of the claim's values stands for, beside scopes of ours as they are.
    pub map: BTreeMap<String, Rights>,
}

/// A provider, and its keys.
pub(super) struct Oidc {
    options: OidcOptions,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    set: Option<JwkSet>,
    /// When they were last read, or reading last failed.
    read_at: Option<Timestamp>,
    /// Why the last reading failed.
    failed: Option<String>,
}

impl Oidc {
    pub(super) fn new(options: OidcOptions) -> Self {
        ring::install();
        Self {
            options,
            keys: Mutex::default(),
        }
    }

    /// Whose JWT it is.
    pub(super) async fn caller(&self, text: &str, now: Timestamp) -> Result<Caller, Stranger> {
        let invalid = |why: &dyn std::fmt::Display| Stranger::Invalid(format!("JWT: {why}"));
        if text.len() > JWT_BYTES_MAX {
            return Err(invalid(&format!("longer than {JWT_BYTES_MAX} bytes")));
        }
        let header = decode_header(text).map_err(|error| invalid(&error))?;
        if !ring::ALGORITHMS.contains(&header.alg) {
            return Err(invalid(&format!("{:?} is not taken", header.alg)));
        }
        let key = self.key(header.kid.as_deref(), now).await?;
        let stated = key.common.key_algorithm.map(|it| it.to_string());
        if stated.is_some_and(|stated| stated != format!("{:?}", header.alg)) {
            return Err(invalid(&"its key is for another algorithm"));
        }
        let key = DecodingKey::from_jwk(&key).map_err(|error| invalid(&error))?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&[&self.options.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let decoded = decode::<Value>(text, &key, &validation);
        let claims = decoded.map_err(|error| invalid(&error))?.claims;
        let subject = claims["sub"].as_str().unwrap_or_default();
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
            return Err(invalid(&"its subject is empty or too long"));
        }
        Ok(Caller {
            name: Some(subject.to_owned()),
            rights: self.options.rights(&claims),
        })
    }

    /// The provider's key of a name, or its only one.
    async fn key(&self, id: Option<&str>, now: Timestamp) -> Result<Jwk, Stranger> {
        // Whoever comes meanwhile waits: the keys are read once for all.
        let mut keys = self.keys.lock().await;
        let age = keys.read_at.map(|at| now.since(at));
        if let Keys {
            set: None,
            failed: Some(why),
            ..
        } = &*keys
            && age.is_some_and(|age| age < PAUSE_AFTER_FAILURE)
        {
            return Err(unreadable(why));
        }
        let mut found = keys.set.as_ref().and_then(|set| find(set, id));
        let is_old = keys.set.is_none() || age.is_none_or(|age| age >= KEYS_TIME_MAX);
        let is_missed = found.is_none() && age.is_none_or(|age| age >= KEYS_TIME_MIN);
        if is_old || is_missed {
            keys.read_at = Some(now);
            match read(self.options.jwks.clone()).await {
                Ok(set) => {
                    found = find(&set, id);
                    (keys.set, keys.failed) = (Some(set), None);
                }
                // Those that are known go on being good.
                Err(why) => {
                    let jwks = &self.options.jwks;
                    tracing::warn!(%jwks, %why, "the provider's keys can't be read");
                    let failed = unreadable(&why);
                    keys.failed = Some(why);
                    if keys.set.is_none() {
                        return Err(failed);
                    }
                }
            }
        }
        found.ok_or_else(|| Stranger::Invalid("JWT: its key is none of the provider's".to_owned()))
    }
}

fn unreadable(why: &str) -> Stranger {
    Stranger::Unavailable(format!("the provider's keys can't be read: {why}"))
}

/// Without a name, the only key there is.
fn find(set: &JwkSet, id: Option<&str>) -> Option<Jwk> {
    let usable = |key: &&Jwk| {
        let stated = key.common.public_key_use.as_ref();
        stated.is_none_or(|stated| *stated == PublicKeyUse::Signature)
    };
    let mut keys = set.keys.iter().filter(usable);
    match id {
        Some(id) => keys
            .find(|key| key.common.key_id.as_deref() == Some(id))
            .cloned(),
        None => {
            let only = keys.next()?;
            keys.next().is_none().then(|| only.clone())
        }
    }
}

impl OidcOptions {
    /// What a JWT's claims allow. Values that mean nothing to us are others' business.
    fn rights(&self, claims: &Value) -> Rights {
        let by_path = || {
            let mut parts = self.claim.split('.');
            parts.try_fold(claims, |value, part| value.get(part))
        };
        let values = claims.get(&self.claim).or_else(by_path);
        let values: Vec<&str> = match values {
            Some(Value::String(text)) => text.split_whitespace().collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mut rights = Rights::default();
        for value in values {
            if let Some(mapped) = self.map.get(value) {
                rights.extend(mapped);
            } else if let Ok(scopes) = value.parse() {
                rights.extend(&scopes);
            }
        }
        rights
    }
}

async fn read(place: String) -> Result<JwkSet, String> {
    let reading = tokio::task::spawn_blocking(move || {
        let text = if place.starts_with("https://") {
            fetch(&place)?
        } else {
            file::read_text(place.as_ref(), KEYS_BYTES_MAX)?
        };
        serde_json::from_str(&text).map_err(|error| format!("they are no JWKS: {error}"))
    });
    reading.await.map_err(|error| error.to_string())?
}

fn fetch(url: &str) -> Result<String, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_TIME_MAX))
        .https_only(true)
        .tls_config(trust::client(None, None)?)
        .build()
        .into();
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(KEYS_BYTES_MAX as u64);
    body.read_to_string().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
