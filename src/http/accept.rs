//! Taking connections: how many, how slow, by TLS or not.
//!
//! Separate from the routes because a connection costs something before there is a request. Bounded
//! are: the number of connections (see `seats`), the time for a TLS handshake, for the head of a
//! request (which is the time that a connection may be idle, too) and for a client to take what is
//! sent; the head's size. Bodies and requests have limits of their own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use super::seats::{Seated, Seats};
use super::tls::Tls;
use crate::environment::Shutdown;

/// Most connections at once: a process commonly may have 1,024 files open, and needs some for
/// databases and brokers.
pub(super) const CONNECTIONS_MAX: usize = 512;
/// Longest time for the head of a request, from the connection's beginning or the end of the request
/// before.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time for a TLS handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time in which a client takes nothing of its answer.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long to wait when the system can't give a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The client's certificate, which was verified, in DER.
#[derive(Clone)]
pub(super) struct ClientCertificate(pub(super) Arc<Vec<u8>>);

/// Answers requests until `stop`, then lets those under way come to their end.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    stop: Shutdown,
) -> io::Result<()> {
    let fresh = tls.clone().map(|tls| {
        let stop = stop.clone();
        tokio::spawn(async move { tls.keep_fresh(stop).await })
    });
    let seats = Seats::new(CONNECTIONS_MAX);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.requested() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_of_the_client(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken just now");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Some(seated) = seats.take(Instant::now()) else {
            tracing::warn!("{CONNECTIONS_MAX} connections are at work; another one was closed");
            continue;
        };
        let connection = Connection {
            seated,
            router: router.clone(),
            watcher: graceful.watcher(),
        };
        tokio::spawn(begin(stream, tls.clone(), connection));
    }
    drop(listener);
    graceful.shutdown().await;
    if let Some(fresh) = fresh {
        fresh.abort();
    }
    Ok(())
}

/// Whether it was the client who broke the connection off before it was taken.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// What a connection needs.
struct Connection {
    seated: Seated,
    router: Router,
    watcher: Watcher,
}

async fn begin(stream: TcpStream, tls: Option<Arc<Tls>>, connection: Connection) {
    // Answers are written whole.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME_MAX));
    let stream = Box::pin(stream);
    let Some(tls) = tls else {
        return answer(stream, None, connection).await;
    };
    let handshake = tls.acceptor().accept(stream);
    let handshake = tokio::select! {
        () = connection.seated.must_leave() => return,
        ended = tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake) => ended,
    };
    // Scanners and clients that don't trust us are everyday things.
    let Ok(Ok(stream)) = handshake else {
        return tracing::debug!("a TLS handshake failed");
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| chain.first());
    let certificate = certificate.map(|der| ClientCertificate(Arc::new(der.to_vec())));
    answer(stream, certificate, connection).await;
}

async fn answer<S>(stream: S, certificate: Option<ClientCertificate>, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Connection {
        seated,
        router,
        watcher,
    } = connection;
    let seat = seated.seat();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let at_work = seat.begin();
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        let answered = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answered.await;
            drop(at_work);
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // What ends a connection is the client's business.
        _ = watcher.watch(serving) => {}
        () = seated.must_leave() => {}
    }
}
