//! Finding definition files and reading them all at once.
//!
//! A file that can't be read is a problem of that file, among those of the others: whoever checks
//! a directory is told of everything in it, and nothing is left out unsaid.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::exit::Failure;
use super::output;
use crate::definition::{Definition, Problems, Rule, SOURCE_BYTES_MAX, parse, parse_all};

/// The definition that the program brings along, for those who have none yet.
pub(super) const SHIPPED: (&str, &str) = (
    "sagas/place-order.yaml",
    include_str!("../../sagas/place-order.yaml"),
);

/// Files with these endings in a directory are definitions.
const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// Definition files.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Names and texts of those that could be read.
    texts: Vec<(String, String)>,
    /// Why the others could not be.
    unreadable: Vec<Problems>,
}

impl Sources {
    /// Texts that came some other way.
    fn of(texts: &[(&str, &str)]) -> Self {
        let texts = texts.iter();
        let owned = texts.map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        Self {
            texts: owned.collect(),
            ..Self::default()
        }
    }

    /// How many files there are, readable or not.
    pub(super) fn len(&self) -> usize {
        self.texts.len() + self.unreadable.len()
    }

    /// Whether there is no file at all.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks all of them.
    pub(super) fn check(&self) -> Result<Vec<Definition>, Vec<Problems>> {
        let checked = parse_all(&self.texts);
        if self.unreadable.is_empty() {
            return checked;
        }
        let mut refused = checked.err().unwrap_or_default();
        // One that can't be read may be the one that defines what others run.
        for problems in &mut refused {
            problems.0.retain(|one| one.code != Rule::UnknownSaga);
        }
        refused.retain(|problems| !problems.0.is_empty());
        refused.extend(self.unreadable.iter().cloned());
        Err(refused)
    }

    /// Those that are sound on their own, whatever the others are.
    pub(super) fn sound(&self) -> Vec<Definition> {
        let texts = self.texts.iter();
        texts
            .filter_map(|(file, source)| parse(source, file).ok())
            .collect()
    }

    /// All of them, or a failure after their problems were printed as `check` does.
    pub(super) fn parse(&self) -> Result<Vec<Definition>, Failure> {
        self.check().map_err(|refused| {
            output::remark(format_args!("{}", report(&refused)));
            let (wrong, all) = (refused.len(), self.len());
            Failure::problems(format!("{wrong} of {all} definitions have problems"))
        })
    }

    fn read(&mut self, path: &Path, listed: bool) {
        let name = path.display().to_string();
        // A pipe that lies in a directory would never end; one that is named is meant.
        let is_odd = listed && fs::metadata(path).is_ok_and(|it| !it.is_file());
        let read = if is_odd {
            Err(Problems::of_file(&name, Rule::Unreadable, "not a file"))
        } else {
            text_of(path, &name)
        };
        match read {
            Ok(text) => self.texts.push((name, text)),
            Err(problems) => self.unreadable.push(problems),
        }
    }
}

/// Reads all definitions at these paths: files, or directories that hold some (not theirs).
pub(super) fn sources(paths: &[PathBuf]) -> Result<Sources, Failure> {
    let mut sources = Sources::default();
    for path in paths {
        if path.is_dir() {
            for file in listed(path)? {
                sources.read(&file, true);
            }
        } else {
            sources.read(path, false);
        }
    }
    Ok(sources)
}

/// Reads and checks the definitions of a directory; problems are printed as `check` does.
pub(super) fn load(directory: &Path) -> Result<Vec<Definition>, Failure> {
    if !directory.is_dir() {
        return Err(Failure::problems(format!(
            "there is no directory {} with saga definitions; name another one with --sagas",
            directory.display()
        )));
    }
    let sources = sources(&[directory.to_owned()])?;
    if sources.is_empty() {
        return Err(Failure::problems(format!(
            "there is no definition (*.yaml) in {}",
            directory.display()
        )));
    }
    sources.parse()
}

/// The definition that the program brings along.
pub(super) fn shipped() -> Result<Vec<Definition>, Failure> {
    Sources::of(&[SHIPPED]).parse()
}

/// Problems with their lines, a blank line between two.
pub(super) fn report(refused: &[Problems]) -> String {
    let reports: Vec<String> = refused.iter().map(ToString::to_string).collect();
    reports.join("\n")
}

/// The files of a directory that should be definitions, whether or not they can be read.
fn listed(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let wrong = |error| Failure::problems(format!("can't read {}: {error}", directory.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn text_of(path: &Path, name: &str) -> Result<String, Problems> {
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that too much is noticed and not cut.
    let read = fs::File::open(path).and_then(|file| {
        file.take(SOURCE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        let message = format!("can't read it: {error}");
        return Err(Problems::of_file(name, Rule::Unreadable, &message));
    }
    if bytes.len() > SOURCE_BYTES_MAX {
        let message = format!(
            "a definition has at most {SOURCE_BYTES_MAX} bytes; split it, or let a participant do part of it"
        );
        return Err(Problems::of_file(name, Rule::TooLarge, &message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        Problems::not_text(name, error.as_bytes(), valid)
    })
}
