//! A real browser in front of the page: headless Chromium, driven over `WebDriver`.
//!
//! Each test has a browser of its own, which ends with it. What the browser itself has to say is heard: its
//! console, which must be silent (a violation of the page's policy shows there), and axe's findings.

mod axe;
mod console;
mod driver;
mod pictures;
mod soundness;
mod window;

pub use window::{Browser, Look};

use serde_json::json;

use crate::fixture::setting;

/// Whether there is a browser to test with: none if whoever runs the tests has said so.
pub fn is_there() -> bool {
    let is_there = setting(driver::CHROMEDRIVER) != "none";
    if !is_there {
        eprintln!("SKIPPED: {} is none", driver::CHROMEDRIVER);
    }
    is_there
}

/// A page with a fault of each kind that is looked for.
const FAULTY: &str = "data:text/html,<!doctype html><html lang=en><title>faulty</title>\
    <meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">\
    <main><h1>Faulty</h1><img src=x><script>alert(1)</script>\
    <form><label>Name <input></label><label for=kind>Kind</label><select id=kind><option>one<option>two</select>\
    <label><input type=checkbox> Sure</label>\
    <details><summary>More</summary>hidden at first</details></form></main>";

#[test]
fn what_is_wrong_with_a_page_is_found() {
    if !is_there() {
        return;
    }
    let browser = Browser::open(Look::default());
    browser.goto(FAULTY);
    let found = browser.accessibility();
    assert!(
        found.iter().any(|fault| fault.starts_with("image-alt")),
        "{found:?}"
    );
    let console = browser.console();
    assert!(
        console.iter().any(|line| line.contains("inline script")),
        "{console:?}"
    );
    assert_eq!(browser.alert(), None, "the script did not run");
}

#[test]
fn a_page_is_read_and_filled_in_as_a_person_does_it() {
    if !is_there() {
        return;
    }
    let browser = Browser::open(Look {
        width: 360,
        dark: true,
        ..Look::default()
    });
    browser.goto(FAULTY);
    browser.fill("Name", "Ann");
    browser.choose("Kind", "two");
    browser.tick("Sure");
    browser.picture("a-form");
    assert_eq!(
        browser.run("return document.querySelector('[type=checkbox]').checked"),
        json!(true)
    );
    assert_eq!(browser.value("Name"), "Ann");
    assert_eq!(browser.value("Kind"), "two");
    assert!(!browser.text().contains("hidden at first"));
    browser.click("More");
    browser.sees("hidden at first");
    assert_eq!(
        browser.run("return [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]"),
        json!([360, true])
    );
}
