//! One window of a browser: where it goes, what is clicked and filled in, what is read.

use std::time::Duration;

use fantoccini::elements::{Element, ElementRef};
use fantoccini::error::CmdError;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::driver::Driver;
use crate::fixture::{PATIENCE, eventually, post};

/// Longest wait for the browser to do one thing.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// What `WebDriver` calls an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The link, button or fold that says `arguments[0]`, the first that is to be seen.
const CLICKABLE: &str = "
const said = (element) => (element.innerText || element.value || element.ariaLabel || '').trim();
return [...document.querySelectorAll('a, button, summary, input[type=submit]')]
  .find((element) => said(element) === arguments[0] && element.checkVisibility()) || null;";

/// The control whose label says `arguments[0]`, the first that is to be seen.
const CONTROL: &str = "
const own = (label) => {
  const copy = label.cloneNode(true);
  copy.querySelectorAll('input, select, textarea').forEach((control) => control.remove());
  return copy.textContent.replace(/\\s+/g, ' ').trim();
};
return [...document.querySelectorAll('input, select, textarea')].find((control) =>
  ([...(control.labels || [])].some((label) => own(label) === arguments[0]) || control.ariaLabel === arguments[0])
  && control.checkVisibility()) || null;";

/// How a browser shows pages.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// The window's width.
    pub width: u32,
    /// The window's height.
    pub height: u32,
    /// Whether the reader wants dark colours.
    pub dark: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            width: 1024,
            height: 800,
            dark: false,
        }
    }
}

/// A browser. Dropping it closes it.
pub struct Browser {
    runtime: Runtime,
    /// Always there, until it is dropped.
    client: Option<Client>,
    /// Where commands of the session go that the client does not know.
    session: String,
    // In the order of their end: the browser writes to its directory until it is gone.
    _driver: Driver,
    _profile: TempDir,
}

impl Browser {
    /// Starts one.
    pub fn open(look: Look) -> Self {
        let driver = Driver::start();
        let profile = tempfile::tempdir().expect("a temporary directory");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let (client, id) = runtime.block_on(async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities(&profile));
            let connecting = tokio::time::timeout(PATIENCE, builder.connect(&driver.url));
            let client = connecting.await.expect("the browser starts in time");
            let client = client.expect("the browser starts");
            let id = client.session_id().await.expect("the driver answers");
            (client, id.expect("a session"))
        });
        let browser = Self {
            runtime,
            client: Some(client),
            session: format!("{}/session/{id}", driver.url),
            _driver: driver,
            _profile: profile,
        };
        browser.look(look);
        browser
    }

    /// Shows pages in another way from now on.
    pub fn look(&self, look: Look) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": false }),
        );
        let scheme = if look.dark { "dark" } else { "light" };
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
    }

    /// Goes to an address.
    #[track_caller]
    pub fn goto(&self, url: &str) {
        let gone = self.within(self.client().goto(url));
        gone.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// Where it is.
    pub fn address(&self) -> String {
        let url = self.within(self.client().current_url());
        url.expect("it is somewhere").to_string()
    }

    /// What a reader sees.
    pub fn text(&self) -> String {
        let text = self.run("return document.body.innerText");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a text is to be seen.
    #[track_caller]
    pub fn sees(&self, text: &str) {
        self.waits_for(text, || self.text().contains(text).then_some(()));
    }

    /// Waits for something on the page, and shows the page if it doesn't come.
    #[track_caller]
    pub fn waits_for<T>(&self, what: &str, condition: impl Fn() -> Option<T>) -> T {
        let started = std::time::Instant::now();
        eventually(what, PATIENCE * 2, || {
            let found = condition();
            assert!(
                found.is_some() || started.elapsed() < PATIENCE,
                "no `{what}` at {}:\n{}",
                self.address(),
                self.text()
            );
            found
        })
    }

    /// Clicks on the link, button or fold that says this.
    #[track_caller]
    pub fn click(&self, said: &str) {
        // A part of the page that is made anew meanwhile takes its links along.
        self.waits_for(said, || {
            let element = self.element(CLICKABLE, said)?;
            self.within(element.click()).ok()
        });
    }

    /// Types into the field with this label.
    #[track_caller]
    pub fn fill(&self, label: &str, value: &str) {
        let field = self.control(label);
        let filled = self.within(async {
            field.clear().await?;
            field.send_keys(value).await
        });
        filled.unwrap_or_else(|error| panic!("`{label}`: {error}"));
    }

    /// Chooses from the list with this label.
    #[track_caller]
    pub fn choose(&self, label: &str, option: &str) {
        let list = self.control(label);
        let chosen = self.within(list.select_by_label(option));
        chosen.unwrap_or_else(|error| panic!("`{label}`: {error}"));
    }

    /// Ticks the box with this label.
    #[track_caller]
    pub fn tick(&self, label: &str) {
        let ticked = self.within(self.control(label).click());
        ticked.unwrap_or_else(|error| panic!("`{label}`: {error}"));
    }

    /// What the field with this label holds.
    #[track_caller]
    pub fn value(&self, label: &str) -> String {
        let value = self.within(self.control(label).prop("value"));
        value.expect("it has one").unwrap_or_default()
    }

    /// Runs a script of the test's on the page.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        let answer = self.within(self.client().execute(script, Vec::new()));
        answer.unwrap_or_else(|error| panic!("a script of the test: {error}"))
    }

    /// Sends the browser a command of its own protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.command("goog/cdp/execute", &body)
    }

    /// Sends the driver a command about this session.
    #[track_caller]
    pub(super) fn command(&self, path: &str, body: &Value) -> Value {
        match post(&format!("{}/{path}", self.session), body) {
            Ok((200, mut answer)) => answer["value"].take(),
            other => panic!("{path}: {other:?}"),
        }
    }

    pub(super) fn client(&self) -> &Client {
        self.client.as_ref().expect("it is open")
    }

    /// Has the browser do one thing.
    #[track_caller]
    pub(super) fn within<T>(
        &self,
        work: impl Future<Output = Result<T, CmdError>>,
    ) -> Result<T, CmdError> {
        let done = async { tokio::time::timeout(COMMAND_TIMEOUT, work).await };
        let done = self.runtime.block_on(done);
        done.expect("the browser answers in time")
    }

    #[track_caller]
    fn control(&self, label: &str) -> Element {
        self.waits_for(label, || self.element(CONTROL, label))
    }

    fn element(&self, finder: &str, said: &str) -> Option<Element> {
        let found = self.within(self.client().execute(finder, vec![json!(said)]));
        // A page that is being left has none.
        let id = found.ok()?[ELEMENT].as_str()?.to_owned();
        let client = self.client().clone();
        Some(Element::from_element_id(client, ElementRef::from(id)))
    }
}

fn capabilities(profile: &TempDir) -> serde_json::Map<String, Value> {
    let arguments = [
        "--headless=new".to_owned(),
        format!("--user-data-dir={}", profile.path().display()),
        // Then it ends with its driver, however that ends.
        "--remote-debugging-pipe".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--disable-gpu".to_owned(),
        "--hide-scrollbars".to_owned(),
        "--lang=en".to_owned(),
        // As root, and in most containers, it does not start with its sandbox; the pages are our own.
        "--no-sandbox".to_owned(),
    ];
    let mut options = json!({ "args": arguments });
    if let Ok(chromium) = std::env::var("BACKSTITCH_TEST_CHROMIUM") {
        options["binary"] = json!(chromium);
    }
    let capabilities = json!({
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL" },
        // An alert stays, and is found.
        "unhandledPromptBehavior": "ignore",
    });
    capabilities.as_object().cloned().unwrap_or_default()
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let closing = async { tokio::time::timeout(COMMAND_TIMEOUT, client.close()).await };
            // What is left of it goes with the driver.
            drop(self.runtime.block_on(closing));
        }
    }
}
