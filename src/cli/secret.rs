//! Secrets that are given in files: as orchestrators of containers hand them over, where no list of
//! processes and no dump of an environment shows them.

use std::path::Path;

use super::exit::Failure;
use crate::file;

/// Largest file with a secret, in bytes.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// The first line of a file, without the end of the line.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let failed =
        |why: String| Failure::problems(format!("can't read the secret in {shown}: {why}"));
    let text = file::read_text(path, SECRET_BYTES_MAX).map_err(failed)?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.to_owned()),
        (None, _) => Err(failed("it is empty".to_owned())),
        (Some(_), Some(_)) => Err(failed("it has more than one line".to_owned())),
    }
}

/// What is said in one of two ways: outright, or in a file. Nothing said is nothing.
pub(super) fn either(
    said: Option<&str>,
    file: Option<&Path>,
    name: &str,
) -> Result<Option<String>, Failure> {
    let said = said.map(str::trim).filter(|text| !text.is_empty());
    match (said, file.filter(|path| !path.as_os_str().is_empty())) {
        (Some(_), Some(_)) => Err(Failure::problems(format!(
            "both {name} and {name}_FILE are set; set one of them"
        ))),
        (Some(text), None) => Ok(Some(text.to_owned())),
        (None, Some(path)) => read(path).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_one_line_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let given = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            either(None, Some(file.path()), "X")
        };
        assert_eq!(given("secret\n").unwrap().as_deref(), Some("secret"));
        assert_eq!(
            given("\n  secret\r\n\n").unwrap().as_deref(),
            Some("secret")
        );
        for (text, word) in [("", "empty"), ("a\nb", "more than one line")] {
            let why = given(text).unwrap_err().message;
            assert!(why.contains(word), "{why}");
        }
        let both = either(Some("a"), Some(file.path()), "X").unwrap_err();
        assert!(both.message.contains("X_FILE"));
        assert!(read(Path::new("/nonexistent")).is_err());
        assert!(either(Some(" "), None, "X").unwrap().is_none());
    }
}
