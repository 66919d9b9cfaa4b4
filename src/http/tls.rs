//! TLS for the API: certificate and key from files, read again when they change.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::access::trust;
use crate::environment::Shutdown;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Authorities whose clients' certificates are taken, in PEM. A client may also come without one.
    pub client_authorities: Option<PathBuf>,
}

/// The TLS side of the listener.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, String> {
        let current = RwLock::new(load(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// For one connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }

    /// Reads the files again whenever one of them has changed, until `stop`. What can't be used is
    /// said, and the certificate before goes on.
    pub(super) async fn keep_fresh(&self, stop: Shutdown) {
        let mut seen = self.changed();
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let now = self.changed();
            if now != seen {
                seen = now;
                self.reload();
            }
        }
    }

    /// Reads the files again.
    pub(super) fn reload(&self) {
        match load(&self.files) {
            Ok(fresh) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                tracing::info!("the certificate was read again");
            }
            Err(why) => {
                tracing::warn!(%why, "the new certificate can't be used; the one before goes on");
            }
        }
    }

    fn changed(&self) -> Vec<Option<SystemTime>> {
        let files = &self.files;
        [
            Some(&files.certificate),
            Some(&files.key),
            files.client_authorities.as_ref(),
        ]
        .into_iter()
        .map(|path| std::fs::metadata(path?).ok()?.modified().ok())
        .collect()
    }
}

fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let provider = trust::provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in trust::certificates(path)? {
                let added = roots.add(authority);
                added.map_err(|error| format!("{}: {error}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| format!("{}: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = trust::certificates(&files.certificate)?;
    let key = trust::key(&files.key)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        format!("{certificate} and {key} can't be used: {error}")
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
