//! What `deploy/` names is what the program has, and each alert has its page in the runbook.

use std::fs;

use backstitch::metric::DESCRIPTIONS;

#[test]
fn what_is_watched_exists_and_each_alert_has_its_page() {
    let read = |path: &str| fs::read_to_string(path).expect("it is in the repository");
    let alerts = read("deploy/prometheus/alerts.yaml");
    let mut broken = Vec::new();
    for (file, text) in [
        ("deploy/prometheus/alerts.yaml", &alerts),
        (
            "deploy/grafana/backstitch.json",
            &read("deploy/grafana/backstitch.json"),
        ),
    ] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("backstitch_")) {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            if !DESCRIPTIONS.iter().any(|(known, _)| *known == name) {
                broken.push(format!("{file}: there is no metric `{word}`"));
            }
        }
    }
    let runbook = read("docs/runbook.md");
    let linked = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook: docs/runbook.md#"));
    for page in linked {
        let found = runbook.lines().filter_map(|line| line.strip_prefix("## "));
        if !found.into_iter().any(|title| title.to_lowercase() == page) {
            broken.push(format!("docs/runbook.md has no section `{page}`"));
        }
    }
    let count = |word: &str| alerts.matches(word).count();
    if count("- alert: ") != count("runbook: ") {
        broken.push("an alert has no runbook".to_owned());
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
