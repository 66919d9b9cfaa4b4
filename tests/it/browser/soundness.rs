//! What must hold of every page, whatever is on it.

use serde_json::json;

use super::Browser;

/// How far the page reaches past the window, in pixels, and what reaches furthest.
const OVERFLOW: &str = "
const over = document.documentElement.scrollWidth - innerWidth;
if (over <= 0) return null;
const [widest] = [...document.querySelectorAll('main *, header *')]
  .sort((a, b) => b.getBoundingClientRect().right - a.getBoundingClientRect().right);
return over + ' px: ' + widest.outerHTML.slice(0, 200);";

impl Browser {
    /// Asserts that the page which is open can be used by all: nothing forbidden was tried and no script
    /// failed, axe finds nothing grave, and nothing reaches past the window. Takes a picture.
    #[track_caller]
    pub fn is_sound(&self, name: &str) {
        self.picture(name);
        let at = self.address();
        assert_eq!(self.alert(), None, "{at}");
        assert_eq!(self.console(), Vec::<String>::new(), "{at}");
        assert_eq!(self.run(OVERFLOW), json!(null), "{at}");
        let faults = self.accessibility();
        assert!(faults.is_empty(), "{at}:\n{}", faults.join("\n"));
    }
}
