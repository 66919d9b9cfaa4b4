//! A network between the client and the server that breaks on demand.
//!
//! It passes bytes on, and knows just enough of AMQP framing to put a frame of its own between
//! two of the server's. So outages, alarms and bad bytes need no rights on the server.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Sent through the proxy, this text becomes bytes that are no text.
pub const UNREADABLE: &str = "\u{1}\u{2}becomes unreadable\u{2}\u{1}";

/// In the name of the connection that publishes; alarms are for that one.
const PUBLISHING: &[u8] = b"(publishing)";
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Passes connections on to the server until told otherwise.
pub struct Proxy {
    /// The server's URL, by way of the proxy.
    pub url: String,
    control: watch::Sender<Control>,
    refused: watch::Receiver<u32>,
}

#[derive(Clone, Default)]
struct Control {
    /// Connections accepted before the newest cut are closed.
    cuts: u32,
    /// New connections are closed at once.
    refusing: bool,
    /// Why publishers are blocked.
    blocked: Option<String>,
}

impl Proxy {
    pub async fn start(server: &str) -> Self {
        let (_, after) = server
            .split_once('@')
            .expect("the URL has user and password");
        let target = after.split('/').next().unwrap_or(after).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let url = server.replace(&target, &address);
        let (control, told) = watch::channel(Control::default());
        let (refusals, refused) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if told.borrow().refusing {
                    refusals.send_modify(|count| *count += 1);
                    continue;
                }
                tokio::spawn(connection(client, target.clone(), told.clone()));
            }
        });
        Self {
            url,
            control,
            refused,
        }
    }

    /// Cuts all connections, in the middle of whatever they carry.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }

    /// Cuts all connections and refuses new ones, or lets them through again.
    pub fn refuse(&self, refusing: bool) {
        self.control.send_modify(|control| {
            control.cuts += 1;
            control.refusing = refusing;
        });
    }

    /// Waits until somebody was refused.
    pub async fn refused_one(&self) {
        let mut refused = self.refused.clone();
        let wait = refused.wait_for(|count| *count > 0);
        tokio::time::timeout(WAIT_MAX, wait).await.unwrap().unwrap();
    }

    /// Tells publishers what the server tells them when it runs short of something.
    pub fn block(&self, why: &str) {
        let why = Some(why.to_owned());
        self.control.send_modify(|control| control.blocked = why);
    }

    /// Tells them that it is over.
    pub fn unblock(&self) {
        self.control.send_modify(|control| control.blocked = None);
    }
}

async fn connection(client: TcpStream, target: String, mut told: watch::Receiver<Control>) {
    let cuts = told.borrow().cuts;
    let Ok(server) = TcpStream::connect(&target).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (publishing, publishes) = watch::channel(false);
    tokio::select! {
        () = up(from_client, to_server, publishing) => {}
        () = down(from_server, to_client, told.clone(), publishes) => {}
        _ = told.wait_for(|control| control.cuts > cuts) => {}
    }
}

/// What the client says.
async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, publishing: watch::Sender<bool>) {
    let mut chunk = vec![0; 256 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let bytes = &mut chunk[..length];
        if find(bytes, PUBLISHING).is_some() {
            publishing.send_replace(true);
        }
        while let Some(at) = find(bytes, UNREADABLE.as_bytes()) {
            bytes[at..at + UNREADABLE.len()].fill(0xff);
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// What the server says, frame by frame, and what we say in its name.
async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut told: watch::Receiver<Control>,
    publishes: watch::Receiver<bool>,
) {
    let mut blocked = None;
    let mut received = Vec::new();
    loop {
        while let Some(length) = frame_length(&received) {
            let frame: Vec<u8> = received.drain(..length).collect();
            if to.write_all(&frame).await.is_err() {
                return;
            }
        }
        let wanted = told.borrow_and_update().blocked.clone();
        if wanted != blocked && *publishes.borrow() {
            if to.write_all(&alarm(wanted.as_deref())).await.is_err() {
                return;
            }
            blocked = wanted;
        }
        tokio::select! {
            read = from.read_buf(&mut received) => if !matches!(read, Ok(1..)) {
                return;
            },
            changed = told.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Length of the first frame, if it is there whole.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let size = u32::from_be_bytes(bytes.get(3..7)?.try_into().ok()?);
    let length = usize::try_from(size).ok()? + 8;
    (bytes.len() >= length).then_some(length)
}

/// `connection.blocked` with a reason, or `connection.unblocked`.
fn alarm(why: Option<&str>) -> Vec<u8> {
    let mut payload = vec![0, 10, 0, if why.is_some() { 60 } else { 61 }];
    if let Some(why) = why {
        payload.push(u8::try_from(why.len()).unwrap());
        payload.extend(why.as_bytes());
    }
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}
