//! Pictures of what the browser shows, for whoever wants to look.

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Browser;

/// Names the directory for pictures; without it none are taken.
const PICTURES: &str = "BACKSTITCH_TEST_SCREENSHOTS";

impl Browser {
    /// Takes a picture of the whole page, if pictures are wanted.
    pub fn picture(&self, name: &str) {
        let Some(directory) = std::env::var_os(PICTURES).map(PathBuf::from) else {
            return;
        };
        let taken = self.devtools(
            "Page.captureScreenshot",
            &json!({ "format": "png", "captureBeyondViewport": true }),
        );
        let bytes = STANDARD.decode(taken["data"].as_str().expect("a picture"));
        fs::create_dir_all(&directory).expect("a directory for pictures");
        let path = directory.join(format!("{name}.png"));
        fs::write(&path, bytes.expect("base64"))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
