//! The sieve between a connection, encrypted or not, and the library.
//!
//! The library takes a connection of one's own making if its type is the runtime's, so the runtime
//! that it is given is tokio with another type of connection.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::AsyncTcpStream;
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::uri::AMQPUri;

use super::gate::Gate;
use super::kept::Kept;
use super::sieve::Sieve;

/// Bytes read from the network at once.
const READ_BYTES: usize = 64 * 1024;

/// The runtime that the library is given.
pub(in crate::broker::rabbitmq) type Kit = RuntimeParts<Tokio, SievingTokio>;

type Tcp = <Tokio as Reactor>::TcpStream;

/// The current tokio, with connections that are sieved.
pub(in crate::broker::rabbitmq) fn runtime() -> Runtime<Kit> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), SievingTokio(tokio)))
}

/// Connects, with TLS if the URI says so. What is taken out of the stream is found in `kept`; nothing
/// is read while the gate is shut.
pub(in crate::broker::rabbitmq) async fn connect(
    uri: &AMQPUri,
    runtime: &Runtime<Tokio>,
    kept: Arc<Kept>,
    gate: Arc<Gate>,
) -> io::Result<AsyncTcpStream<Sieved>> {
    let tls = OwnedTLSConfig::default();
    let connected = uri.connect_with_config_async(tls.as_ref(), runtime).await?;
    Ok(AsyncTcpStream::Plain(Sieved::new(connected, kept, gate)))
}

/// A connection whose incoming bytes are sieved.
pub(in crate::broker::rabbitmq) struct Sieved {
    inner: AsyncTcpStream<Tcp>,
    sieve: Sieve,
    gate: Arc<Gate>,
    read: Box<[u8]>,
}

impl Sieved {
    fn new(inner: AsyncTcpStream<Tcp>, kept: Arc<Kept>, gate: Arc<Gate>) -> Self {
        Self {
            inner,
            sieve: Sieve::new(kept),
            gate,
            read: vec![0; READ_BYTES].into(),
        }
    }
}

impl fmt::Debug for Sieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sieved").finish_non_exhaustive()
    }
}

impl AsyncRead for Sieved {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.sieve.is_empty() {
            ready!(this.gate.poll(context))?;
            let read = Pin::new(&mut this.inner).poll_read(context, &mut this.read);
            match ready!(read)? {
                0 => return Poll::Ready(Ok(0)),
                count => this.sieve.put(&this.read[..count]),
            }
        }
        Poll::Ready(Ok(this.sieve.take(into)))
    }
}

impl AsyncWrite for Sieved {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(context)
    }
}

/// Tokio's timers and sockets, but for the type of its connections.
#[derive(Debug, Clone)]
pub(in crate::broker::rabbitmq) struct SievingTokio(Tokio);

impl Reactor for SievingTokio {
    type TcpStream = Sieved;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move {
            let plain = AsyncTcpStream::Plain(connecting.await?);
            Ok(Sieved::new(plain, Arc::default(), Arc::default()))
        }
    }
}
