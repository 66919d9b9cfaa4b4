//! AMQP byte by byte: the client that puts into a message whatever a test likes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for the server.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// The server's usual limit.
const FRAME_MAX: u32 = 131_072;

/// A connection with one channel in confirm mode.
pub struct Client {
    stream: TcpStream,
    published: u64,
}

impl Client {
    /// Connects to `amqp://user:password@host:port/vhost`.
    pub fn connect(url: &str) -> Self {
        let (credentials, place) = url
            .trim_start_matches("amqp://")
            .split_once('@')
            .expect("a user");
        let (user, password) = credentials.split_once(':').expect("a password");
        let (host, vhost) = place.split_once('/').expect("a virtual host");
        let stream = TcpStream::connect(host).expect("the server is there");
        stream.set_read_timeout(Some(WAIT_MAX)).expect("a time-out");
        let mut client = Self {
            stream,
            published: 0,
        };
        client.write(b"AMQP\0\0\x09\x01");
        client.expect([0, 10, 0, 10]);
        let response = format!("\0{user}\0{password}");
        let start = [
            &[0, 10, 0, 11, 0, 0, 0, 0][..],
            &short(b"PLAIN"),
            &long(response.as_bytes()),
            &short(b"en_US"),
        ];
        client.method(0, &start.concat());
        client.expect([0, 10, 0, 30]);
        let tune = [
            &[0, 10, 0, 31, 0, 10][..],
            &FRAME_MAX.to_be_bytes(),
            &[0, 0],
        ];
        client.method(0, &tune.concat());
        let open = [&[0, 10, 0, 40][..], &short(vhost.as_bytes()), &[0, 0]];
        client.method(0, &open.concat());
        client.expect([0, 10, 0, 41]);
        client.method(1, &[0, 20, 0, 10, 0]);
        client.expect([0, 20, 0, 11]);
        client.method(1, &[0, 85, 0, 10, 0]);
        client.expect([0, 85, 0, 11]);
        client
    }

    /// Publishes a message with this list of properties, flags included.
    pub fn publish(&mut self, exchange: &[u8], routing_key: &[u8], list: &[u8], body: &[u8]) {
        let method = [
            &[0, 60, 0, 40, 0, 0][..],
            &short(exchange),
            &short(routing_key),
            &[0],
        ];
        let size = u64::try_from(body.len()).expect("a size");
        let header = [&[0, 60, 0, 0][..], &size.to_be_bytes(), list];
        let mut bytes = frame(1, 1, &method.concat());
        bytes.extend(frame(2, 1, &header.concat()));
        if !body.is_empty() {
            bytes.extend(frame(3, 1, body));
        }
        self.write(&bytes);
        self.published += 1;
    }

    /// Waits until the server has confirmed all that was published.
    pub fn confirmed(&mut self) {
        let mut confirmed = 0;
        let mut singly = 0;
        while confirmed + singly < self.published {
            let payload = self.expect([0, 60, 0, 80]);
            let tag = u64::from_be_bytes(payload[4..12].try_into().expect("a tag"));
            if payload[12] == 1 {
                confirmed = tag;
                singly = 0;
            } else if tag == confirmed + 1 {
                confirmed = tag;
            } else if tag > confirmed {
                singly += 1;
            }
        }
    }

    fn method(&mut self, channel: u16, payload: &[u8]) {
        self.write(&frame(1, channel, payload));
    }

    /// The next method, which must be this one.
    fn expect(&mut self, method: [u8; 4]) -> Vec<u8> {
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head).expect("a frame");
            let size = u32::from_be_bytes(head[3..].try_into().expect("a size"));
            let mut payload = vec![0; usize::try_from(size).expect("a size") + 1];
            self.stream.read_exact(&mut payload).expect("its payload");
            payload.pop();
            if head[0] == 8 {
                continue; // a heartbeat
            }
            let text = String::from_utf8_lossy(&payload).into_owned();
            assert_eq!(payload[..4], method, "{text}");
            return payload;
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server listens");
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("it fits");
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend(size.to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}

/// A short string.
pub fn short(bytes: &[u8]) -> Vec<u8> {
    let mut short = vec![u8::try_from(bytes.len()).expect("it is short")];
    short.extend(bytes);
    short
}

/// A long string, table or array.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).expect("it fits");
    let mut long = size.to_be_bytes().to_vec();
    long.extend(bytes);
    long
}
