//! Connections that cost without asking for anything, and TLS.

use std::path::Path;

use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::access::trust;

/// A server that answers `done`.
struct Bundle {
    address: std::net::SocketAddr,
    stop: Shutdown,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Bundle {
    async fn start(tls: Option<Arc<Tls>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "done" }));
        let stop = Shutdown::default();
        let serving = tokio::spawn(serve(listener, tls, router, stop.clone()));
        Self {
            address,
            stop,
            serving,
        }
    }

    async fn plain(&self) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A TLS server sends an alert and goes.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn stop(self) {
        self.stop.request();
        self.serving.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_half_sent_requests_keep_nobody_out() {
    let bundle = Bundle::start(None).await;
    let mut held = Vec::new();
    for number in 0..accept::CONNECTIONS_MAX + 50 {
        let mut stream = TcpStream::connect(bundle.address).await.unwrap();
        if number % 2 == 0 {
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: lo")
                .await
                .unwrap();
        }
        held.push(stream);
    }
    assert!(bundle.plain().await.ends_with("done"));
    // The first ones have given way.
    let mut byte = [0];
    assert_eq!(held[0].read(&mut byte).await.unwrap_or(0), 0);
    bundle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let bundle = Bundle::start(None).await;
    let mut stream = TcpStream::connect(bundle.address).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    // The server may close before all is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = [0; 100];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
    assert!(bundle.plain().await.ends_with("done"));
    bundle.stop().await;
}

/// An authority of our own, and the files it makes.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn issue(&self, file: &str, name: &str, is_expired: bool) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if is_expired {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn server(&self, file: &str) -> Arc<Tls> {
        Tls::open(TlsFiles {
            certificate: self.file(&format!("{file}.pem")),
            key: self.file(&format!("{file}.key")),
            client_authorities: Some(self.file("ca.pem")),
        })
        .unwrap()
    }
}

/// What a client hears who trusts `authority` and shows `identity`.
async fn https(
    port: u16,
    authority: &Path,
    identity: Option<(&Path, &Path)>,
) -> Result<String, String> {
    let tls = trust::client(Some(authority), identity).unwrap();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    let call = move || {
        let url = format!("https://localhost:{port}/");
        let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
        answer
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())
    };
    tokio::task::spawn_blocking(call).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_a_new_certificate_taken_up() {
    let authority = Authority::new();
    let ca = authority.file("ca.pem");
    authority.issue("good", "localhost", false);
    let tls = authority.server("good");
    let bundle = Bundle::start(Some(Arc::clone(&tls))).await;
    let port = bundle.address.port();
    assert_eq!(https(port, &ca, None).await.as_deref(), Ok("done"));
    let stranger = Authority::new();
    assert!(https(port, &stranger.file("ca.pem"), None).await.is_err());
    assert!(
        !bundle.plain().await.contains("done"),
        "nothing without TLS"
    );
    // A certificate for another name, then an expired one, then rubbish: the clients refuse the first
    // two, the server the last.
    authority.issue("good", "other.example", false);
    tls.reload();
    assert!(https(port, &ca, None).await.is_err());
    authority.issue("good", "localhost", true);
    tls.reload();
    assert!(https(port, &ca, None).await.is_err());
    authority.issue("good", "localhost", false);
    tls.reload();
    std::fs::write(authority.file("good.key"), "rubbish").unwrap();
    tls.reload();
    assert_eq!(https(port, &ca, None).await.as_deref(), Ok("done"));
    bundle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_certificate_must_be_of_the_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = authority.file("ca.pem");
    authority.issue("server", "localhost", false);
    authority.issue("client", "starter.example", false);
    authority.issue("old", "starter.example", true);
    stranger.issue("client", "starter.example", false);
    let bundle = Bundle::start(Some(authority.server("server"))).await;
    let port = bundle.address.port();
    let with = async |from: &Authority, file: &str| {
        let (chain, key) = (
            from.file(&format!("{file}.pem")),
            from.file(&format!("{file}.key")),
        );
        https(port, &ca, Some((&chain, &key))).await
    };
    assert_eq!(with(&authority, "client").await.as_deref(), Ok("done"));
    assert!(with(&authority, "old").await.is_err());
    assert!(with(&stranger, "client").await.is_err());
    bundle.stop().await;
}
