//! Talking to a node over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, RequestBuilder};

use super::exit::Failure;
use super::secret;
use crate::access::trust;
use crate::address;

/// Where the token is taken from if no file is named.
const TOKEN_VARIABLE: &str = "BACKSTITCH_TOKEN";
/// How long to wait for one answer; longer than a node takes for any.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);

/// Largest file with a token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Which node, and how to sign in.
#[derive(Debug, Args)]
pub(super) struct NodeUrl {
    /// The node to talk to: `http://…` or `https://…`.
    #[arg(long, env = "BACKSTITCH_URL", default_value = "http://127.0.0.1:7474")]
    url: String,
    /// The file with the token to sign in with; without it, what `BACKSTITCH_TOKEN` says.
    // There is no flag for the token itself: every user of a machine sees the arguments of all programs.
    #[arg(long, env = "BACKSTITCH_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authorities to trust for https, in PEM, instead of the system's.
    #[arg(long, env = "BACKSTITCH_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A certificate to sign in with, in PEM.
    #[arg(
        long,
        env = "BACKSTITCH_CLIENT_CERTIFICATE",
        value_name = "FILE",
        requires = "client_key"
    )]
    client_certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(
        long,
        env = "BACKSTITCH_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_certificate"
    )]
    client_key: Option<PathBuf>,
}

/// A node.
pub(super) struct Client {
    agent: Agent,
    base: String,
    /// The header `Authorization`.
    authorization: Option<String>,
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
        let is_https = self.url.starts_with("https://");
        if !is_https && !self.url.starts_with("http://") {
            return Err(Failure::problems(format!(
                "`{}` is not the URL of a node; it begins with http:// or https://",
                address::shown(&self.url)
            )));
        }
        let authorization = self.token()?.map(|token| format!("Bearer {token}"));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_TIME_MAX));
        if is_https {
            let identity = self
                .client_certificate
                .as_deref()
                .zip(self.client_key.as_deref());
            let tls = trust::client(self.ca.as_deref(), identity).map_err(Failure::problems)?;
            config = config.tls_config(tls);
        }
        Ok(Client {
            agent: config.build().into(),
            base: self.url.trim_end_matches('/').to_owned(),
            authorization,
        })
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let (text, from) = match &self.token_file {
            Some(path) => (secret::read(path)?, path.display().to_string()),
            None => match std::env::var(TOKEN_VARIABLE) {
                Ok(text) => (text, TOKEN_VARIABLE.to_owned()),
                Err(_) => return Ok(None),
            },
        };
        let token = text.trim();
        let fits = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
        if !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::problems(format!(
                "{from} has no token: one line as `backstitch token create` prints it, or a JWT"
            )));
        }
        Ok(Some(token.to_owned()))
    }
}

impl Client {
    /// Reads.
    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        self.read(self.signed(request).call())
    }

    /// Changes.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.post_with(path, &[], body)
    }

    /// Changes, with headers beside what is sent.
    pub(super) fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Answer, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let mut request = self.signed(request);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.read(request.send_json(body))
    }

    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
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
