//! Talking to a node over HTTP.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

use super::exit::Failure;
use crate::address;

/// How long to wait for one answer; longer than a node takes for any.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);

/// Which node.
#[derive(Debug, Args)]
pub(super) struct NodeUrl {
    /// The node to talk to.
    #[arg(long, env = "BACKSTITCH_URL", default_value = "http://127.0.0.1:7474")]
    url: String,
}

/// A node.
pub(super) struct Client {
    agent: Agent,
    base: String,
}

/// What a node answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Value,
}

impl NodeUrl {
    /// A client for it.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        if !self.url.starts_with("http://") {
            return Err(Failure::problems(format!(
                "`{}` is not the URL of a node; it begins with http:// (for https, go through a proxy on this machine)",
                address::shown(&self.url)
            )));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_TIME_MAX))
            .build();
        Ok(Client {
            agent: config.into(),
            base: self.url.trim_end_matches('/').to_owned(),
        })
    }
}

impl Client {
    /// Reads.
    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.read(self.agent.get(format!("{}{path}", self.base)).call())
    }

    /// Changes.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.read(request.send_json(body))
    }

    /// Changes, with headers beside what is sent.
    pub(super) fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Answer, Failure> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.read(request.send_json(body))
    }

    fn read(&self, response: Result<Response<ureq::Body>, ureq::Error>) -> Result<Answer, Failure> {
        let base = address::shown(&self.base);
        let mut response = response.map_err(|error| {
            Failure::new(format!(
                "no answer from a node at {base}: {error}. Start one with `backstitch dev` or `backstitch serve`, or name another with --url"
            ))
        })?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_json().map_err(|error| {
            Failure::new(format!(
                "what answers at {base} is not a Backstitch node: {error}"
            ))
        })?;
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// A field's text.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.body.get(field).and_then(Value::as_str)
    }

    /// The refusal in words, for a status that is none of success.
    pub(super) fn refusal(&self) -> String {
        let reason = self.text("reason").unwrap_or("no reason given");
        match self.text("code") {
            Some(code) => format!("{reason} ({code})"),
            None => format!("{reason} (HTTP {})", self.status),
        }
    }
}

/// A path segment, escaped.
pub(super) fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
