//! Whom this program trusts when it connects by TLS itself: the system's certificate authorities, or
//! those of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::file;

/// Largest file of certificates, in bytes.
const PEM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The one cryptography of this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// How an HTTP client trusts a server, and what it shows of itself: certificate and key.
pub fn client(
    authorities: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<TlsConfig, String> {
    let roots = match authorities {
        Some(path) => certificates(path)?,
        // What can't be read of the system's store is missed when it is needed.
        None => rustls_native_certs::load_native_certs().certs,
    };
    let roots: Vec<_> = roots.iter().map(owned).collect();
    let identity = identity.map(|(chain, key)| {
        let chain: Vec<_> = certificates(chain)?.iter().map(owned).collect();
        Ok::<_, String>(ClientCert::new_with_certs(&chain, client_key(key)?))
    });
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(identity.transpose()?)
        .unversioned_rustls_crypto_provider(provider())
        .build())
}

fn owned(certificate: &CertificateDer<'_>) -> Certificate<'static> {
    Certificate::from_der(certificate).to_owned()
}

fn client_key(path: &Path) -> Result<PrivateKey<'static>, String> {
    let text = read(path)?;
    PrivateKey::from_pem(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The certificates of a PEM file; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| format!("{}: {error}", path.display()))?;
    if found.is_empty() {
        let shown = path.display();
        return Err(format!("{shown} has no certificate in PEM"));
    }
    Ok(found)
}

/// The private key of a PEM file.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| format!("{} has no private key in PEM", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    file::read(path, PEM_BYTES_MAX).map_err(|why| format!("can't read {}: {why}", path.display()))
}
