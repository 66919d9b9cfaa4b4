//! The driver's process: started on a free port, killed when dropped, and the browser with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use crate::fixture::{Command, PATIENCE, setting};

/// Names the driver; `none` leaves the tests of the page out.
pub const CHROMEDRIVER: &str = "BACKSTITCH_TEST_CHROMEDRIVER";
/// What the driver says when it is ready, before its port.
const READY: &str = "was started successfully on port ";

/// A running driver.
pub struct Driver {
    /// Where it listens.
    pub url: String,
    child: Child,
}

impl Driver {
    /// Starts one, and waits until it is ready.
    pub fn start() -> Self {
        let program = setting(CHROMEDRIVER);
        let mut child = Command::program(&program, ["--port=0"])
            .build()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (ready, port) = mpsc::channel();
        // Reads to the end, so that the driver never waits for somebody to read.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, port)) = line.split_once(READY) {
                    // Nobody may be waiting any more.
                    let _ = ready.send(port.trim_end_matches('.').to_owned());
                }
            }
        });
        let port = port.recv_timeout(PATIENCE);
        let port = port.unwrap_or_else(|_| panic!("{program} does not say its port"));
        Self {
            url: format!("http://127.0.0.1:{port}"),
            child,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
