//! Who may do what over HTTP: the caller of a request, and its rights.
//!
//! Three kinds of evidence are taken: a bearer token that `backstitch token create` made (the
//! database keeps its hash), a JWT of an OpenID Connect provider, and a client certificate. Whichever
//! it is, what comes out is a [`Caller`]: a name, which stands as `by` in journals and in the audit
//! log, and [`rights::Rights`].
//!
//! Where nothing of the kind is set up, a node takes requests of its own machine alone, and everyone
//! there may do everything. As soon as one token was ever made, or an access file is given, evidence
//! is asked for, also on that machine and also when all tokens have been revoked: what was once
//! locked does not open by itself.
//!
//! Separate from `http` because nothing here knows a path or a status. Deliberately absent: users and
//! passwords (that is the provider's business), and sessions.

mod caller;
pub mod certificate;
pub mod file;
pub mod jwt;
pub mod rights;
mod ring;
pub mod token;
pub mod trust;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::environment::Environment;
use crate::id::Timestamp;
use crate::store::{StoreError, TokenRow, TokenStore};
pub use caller::{Caller, Stranger};
use certificate::CertificateRule;
use file::AccessFile;
use jwt::Oidc;
use token::Hashed;

/// For how long a token that was looked up is not looked up again: so long may one still be used
/// after it was revoked.
pub const TOKEN_CACHE_TIME: Duration = Duration::from_secs(5);
/// Most tokens that are remembered, known and unknown ones.
const TOKENS_CACHED_MAX: usize = 1_000;
/// For how long what was last looked up goes on to hold while the database can't be asked: whoever
/// watches a node must see most when its database is away.
pub const OUTAGE_TIME_MAX: Duration = Duration::from_mins(5);
/// Longest time that a look into the database may take.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);
/// After a look that failed, requests are answered at once for so long, without another.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How precisely it is kept when a token was last used.
const USED_EVERY: Duration = Duration::from_mins(1);

/// What came with a request to say who sent it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// What follows `Bearer` in the header `Authorization`.
    pub bearer: Option<&'a str>,
    /// The client's certificate, which the TLS layer has verified, in DER.
    pub certificate: Option<&'a [u8]>,
}

/// What was found out about a token, and when.
#[derive(Clone)]
struct Known {
    row: Option<Arc<TokenRow>>,
    at: Duration,
}

/// Knows whom to let in.
pub struct Access {
    environment: Arc<dyn Environment>,
    tokens: Arc<dyn TokenStore>,
    oidc: Option<Oidc>,
    certificates: Vec<CertificateRule>,
    /// Evidence is asked for whatever the database says.
    always: bool,
    /// Nobody is asked for anything, whatever the database says.
    never: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<Hashed, Known>,
    /// Whether a token was ever made; once true, it stays so.
    asked: Option<(bool, Duration)>,
    /// When the database could not be asked, and why.
    failed: Option<(Duration, String)>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// Asks as the access file says, and for tokens.
    pub fn new(
        environment: Arc<dyn Environment>,
        tokens: Arc<dyn TokenStore>,
        file: Option<AccessFile>,
    ) -> Self {
        let always = file.is_some();
        let AccessFile { oidc, certificates } = file.unwrap_or_default();
        Self {
            environment,
            tokens,
            oidc: oidc.map(Oidc::new),
            certificates,
            always,
            never: false,
            state: Mutex::default(),
        }
    }

    /// Asks nobody, also when there are tokens.
    #[must_use]
    pub fn open_to_all(mut self) -> Self {
        self.never = true;
        self
    }

    /// Asks everybody, also before the first token was made.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.always = true;
        self
    }

    /// Whether requests must say whose they are.
    pub async fn is_asked_for(&self) -> Result<bool, StoreError> {
        if self.never || self.always {
            return Ok(self.always && !self.never);
        }
        let now = self.environment.elapsed();
        if let Some((asked, at)) = self.state().asked
            && (asked || now.saturating_sub(at) < TOKEN_CACHE_TIME)
        {
            return Ok(asked);
        }
        match self.look(self.tokens.any_token()).await {
            Ok(any) => {
                self.state().asked = Some((any, now));
                Ok(any)
            }
            Err(error) => match self.state().asked {
                Some((asked, at)) if now.saturating_sub(at) < OUTAGE_TIME_MAX => Ok(asked),
                _ => Err(error),
            },
        }
    }

    /// Asks the database, which may be away.
    async fn look<T>(
        &self,
        asking: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let now = self.environment.elapsed();
        if let Some((at, why)) = &self.state().failed
            && now.saturating_sub(*at) < PAUSE_AFTER_FAILURE
        {
            return Err(StoreError::Unavailable(why.clone().into()));
        }
        let found = tokio::select! {
            biased;
            found = asking => found,
            () = self.environment.sleep(LOOK_TIME_MAX) => {
                Err(StoreError::Unavailable("it did not answer in time".into()))
            }
        };
        self.state().failed = match &found {
            Err(StoreError::Unavailable(why) | StoreError::TooSlow(why)) => {
                Some((self.environment.elapsed(), why.to_string()))
            }
            _ => None,
        };
        found
    }

    /// Whose request it is.
    pub async fn caller(&self, evidence: Evidence<'_>) -> Result<Caller, Stranger> {
        if !self.is_asked_for().await? {
            return Ok(Caller::anyone());
        }
        match evidence.bearer {
            Some(text) if text.split('.').count() == 3 => self.by_jwt(text).await,
            Some(text) => self.by_token(text).await,
            None => self.by_certificate(evidence.certificate),
        }
    }

    fn by_certificate(&self, certificate: Option<&[u8]>) -> Result<Caller, Stranger> {
        let Some(der) = certificate else {
            return Err(Stranger::Nothing);
        };
        let rule = self.certificates.iter().find(|rule| rule.is_for(der));
        let rule = rule.ok_or_else(|| {
            Stranger::Invalid("no rule of the access file is for this client certificate".into())
        })?;
        Ok(Caller {
            name: Some(rule.name.clone()),
            rights: rule.rights.clone(),
        })
    }

    async fn by_jwt(&self, text: &str) -> Result<Caller, Stranger> {
        match &self.oidc {
            Some(oidc) => oidc.caller(text, self.environment.now()).await,
            None => Err(Stranger::Invalid(
                "it is a JWT, and no provider is set up in an access file".into(),
            )),
        }
    }

    async fn by_token(&self, text: &str) -> Result<Caller, Stranger> {
        let hash = token::hashed(text);
        let Some(row) = self.known(hash).await? else {
            return Err(Stranger::Invalid("there is no such token".into()));
        };
        let now = self.environment.now();
        let id = row.id;
        if row.revoked_at.is_some() {
            return Err(Stranger::Invalid(format!("token {id} was revoked")));
        }
        if row.expires_at.is_some_and(|at| at <= now) {
            return Err(Stranger::Invalid(format!("token {id} has expired")));
        }
        let rights = row.rights.parse().map_err(|why| {
            Stranger::Invalid(format!("the rights of token {id} can't be read: {why}"))
        })?;
        self.note_used(&row, hash, now).await;
        Ok(Caller {
            name: Some(row.name.clone()),
            rights,
        })
    }

    async fn known(&self, hash: Hashed) -> Result<Option<Arc<TokenRow>>, StoreError> {
        let now = self.environment.elapsed();
        let fresh = |known: &&Known| now.saturating_sub(known.at) < TOKEN_CACHE_TIME;
        if let Some(known) = self.state().known.get(&hash).filter(fresh) {
            return Ok(known.row.clone());
        }
        let found = self.look(self.tokens.token_by_hash(&hash)).await;
        let mut state = self.state();
        let row = match (found, state.known.get(&hash)) {
            (Ok(row), _) => row.map(Arc::new),
            (Err(_), Some(known)) if now.saturating_sub(known.at) < OUTAGE_TIME_MAX => {
                return Ok(known.row.clone());
            }
            (Err(error), _) => return Err(error),
        };
        if state.known.len() >= TOKENS_CACHED_MAX {
            state.known.clear();
        }
        let known = Known {
            row: row.clone(),
            at: now,
        };
        state.known.insert(hash, known);
        Ok(row)
    }

    /// Keeps that a token is in use; that it can't be kept harms nobody.
    async fn note_used(&self, row: &TokenRow, hash: Hashed, now: Timestamp) {
        if row.used_at.is_some_and(|at| now.since(at) < USED_EVERY) {
            return;
        }
        let marking = self.tokens.mark_token_used(row.id, now);
        if let Err(error) = self.look(marking).await {
            tracing::debug!(%error, "the use of a token was not noted");
        }
        let used = TokenRow {
            used_at: Some(now),
            ..row.clone()
        };
        if let Some(known) = self.state().known.get_mut(&hash) {
            known.row = Some(Arc::new(used));
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing under the lock leaves half a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
