//! Accessibility, as axe sees it.

use std::fs;

use serde_json::{Value, json};

use super::Browser;
use crate::fixture::setting;

/// Runs axe, and calls back with what it found.
const RUN: &str = "
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ['violations'] }).then(
  (found) => done(found.violations.map((rule) => ({
    id: rule.id, impact: rule.impact, help: rule.help,
    nodes: rule.nodes.map((node) => node.html.slice(0, 200) + ' ' + node.failureSummary),
  }))),
  (error) => done([{ id: 'axe', impact: 'critical', help: String(error), nodes: [] }]),
);";

impl Browser {
    /// What is seriously or critically wrong with the page for those who can't see it, or not well: a line
    /// for each rule, its name first.
    pub fn accessibility(&self) -> Vec<String> {
        let path = setting("BACKSTITCH_TEST_AXE");
        let axe = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.run(&axe);
        let found = self.within(self.client().execute_async(RUN, Vec::new()));
        let found = found.expect("axe runs");
        let found = found.as_array().cloned().unwrap_or_default();
        let is_grave = |rule: &&Value| {
            let impact = &rule["impact"];
            *impact == json!("serious") || *impact == json!("critical")
        };
        let grave = found.iter().filter(is_grave);
        grave
            .map(|rule| {
                format!(
                    "{}: {}: {:#}",
                    rule["id"].as_str().unwrap_or_default(),
                    rule["help"],
                    rule["nodes"]
                )
            })
            .collect()
    }
}
