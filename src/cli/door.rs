//! The door of a node: where it listens, by TLS or not, and whom it asks who they are.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;

use super::exit::Failure;
use crate::access::Access;
use crate::access::file::AccessFile;
use crate::environment::Environment;
use crate::http::{self, Tls, TlsFiles};
use crate::store::TokenStore;

/// Where a node answers, and whom.
#[derive(Debug, Clone, Args)]
pub(super) struct DoorArguments {
    /// Where to answer HTTP requests. An address that other machines reach needs a token
    /// (`backstitch token create`), an access file, or --insecure-no-auth.
    #[arg(
        long,
        env = "BACKSTITCH_LISTEN",
        default_value = "127.0.0.1:7474",
        value_name = "ADDRESS"
    )]
    listen: String,
    /// Whose JWTs and client certificates are let in, in YAML; see docs/security.md.
    #[arg(long, env = "BACKSTITCH_ACCESS", value_name = "FILE")]
    access: Option<PathBuf>,
    /// Ask nobody who they are, wherever this node can be reached from, also when there are tokens.
    #[arg(long, env = "BACKSTITCH_INSECURE_NO_AUTH", conflicts_with = "access")]
    insecure_no_auth: bool,
    /// The certificate for HTTPS, and those between it and its authority, in PEM. Read again when it
    /// changes.
    #[arg(
        long,
        env = "BACKSTITCH_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(
        long,
        env = "BACKSTITCH_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    tls_key: Option<PathBuf>,
    /// Authorities whose clients' certificates are taken, in PEM; what each may do says the access file.
    #[arg(
        long,
        env = "BACKSTITCH_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_certificate",
        requires = "access"
    )]
    tls_client_ca: Option<PathBuf>,
}

/// An open door.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) access: Arc<Access>,
}

impl DoorArguments {
    /// Listens, if that is safe.
    pub(super) async fn open(
        &self,
        environment: &Arc<dyn Environment>,
        tokens: Arc<dyn TokenStore>,
    ) -> Result<Door, Failure> {
        let file = self.access.as_deref().map(AccessFile::read);
        let file = file.transpose().map_err(Failure::problems)?;
        let tls = self.files().map(Tls::open);
        let tls = tls.transpose().map_err(Failure::problems)?;
        let listener = self.listener().await?;
        let address = listener
            .local_addr()
            .map_err(|error| self.unusable(&error))?;
        let mut access = Access::new(Arc::clone(environment), tokens, file);
        if self.insecure_no_auth {
            tracing::warn!(
                "--insecure-no-auth: whoever reaches {address} can start sagas, read their data and end them by force"
            );
            access = access.open_to_all();
        } else if !http::is_loopback(&address) {
            if !access.is_asked_for().await.map_err(Failure::new)? {
                return Err(Failure::problems(format!(
                    "{address} can be reached from other machines, and nobody would be asked who they are. Make a token first (`backstitch token create --name NAME --scope admin`), name an access file (--access), listen on 127.0.0.1 behind a proxy, or say --insecure-no-auth"
                )));
            }
            // Should the database be exchanged for one without tokens, the door stays shut.
            access = access.closed();
            if tls.is_none() {
                tracing::warn!(
                    "{address} can be reached from other machines without TLS: whoever is on the way can read tokens and data; see --tls-certificate"
                );
            }
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!(
            "answering HTTP requests on {scheme}://{address}; the page is at {scheme}://{address}/ui"
        );
        Ok(Door {
            listener,
            tls,
            access: Arc::new(access),
        })
    }

    fn files(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_certificate.clone()?,
            key: self.tls_key.clone()?,
            client_authorities: self.tls_client_ca.clone(),
        })
    }

    async fn listener(&self) -> Result<TcpListener, Failure> {
        let bound = TcpListener::bind(&self.listen).await;
        bound.map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, error: &std::io::Error) -> Failure {
        let listen = &self.listen;
        Failure::new(format!(
            "can't listen on {listen}: {error}; choose another address with --listen"
        ))
    }
}
