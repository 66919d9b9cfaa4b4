//! What the browser has to say about a page.

use serde_json::json;

use super::Browser;

impl Browser {
    /// What has gone wrong since this was asked last: errors of scripts, what the page's policy forbade,
    /// answers that were not there. The answer to a form that is refused is no fault of a page.
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let wrong = entries.iter().filter(|entry| {
            let message = entry["message"].as_str().unwrap_or_default();
            let is_answer =
                entry["source"] == "network" && message.contains("the server responded");
            entry["level"] == "SEVERE" && !is_answer
        });
        wrong
            .map(|entry| format!("{}: {}", entry["source"], entry["message"]))
            .collect()
    }

    /// What a script has put up in front of the page.
    pub fn alert(&self) -> Option<String> {
        self.within(self.client().get_alert_text()).ok()
    }
}
