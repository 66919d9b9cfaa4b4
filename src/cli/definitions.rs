//! Finding definition files and reading them all at once.

use std::fs;
use std::path::{Path, PathBuf};

use super::exit::Failure;
use crate::definition::{Definition, Problems, SOURCE_BYTES_MAX, parse_all};

/// The definition that the program brings along, for those who have none yet.
pub(super) const SHIPPED: (&str, &str) = (
    "sagas/place-order.yaml",
    include_str!("../../sagas/place-order.yaml"),
);

/// Files with these endings in a directory are definitions.
const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// Reads all definitions at these paths: files, or directories that hold some (not theirs).
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(listed(path)?);
        } else {
            files.push(path.clone());
        }
    }
    files.iter().map(|path| read(path)).collect()
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
    parse(&sources)
}

/// Checks definitions that were read.
pub(super) fn parse(sources: &[(String, String)]) -> Result<Vec<Definition>, Failure> {
    parse_all(sources).map_err(|refused| {
        let files = refused.len();
        eprintln!("{}", report(&refused));
        Failure::problems(format!(
            "{files} of {} definitions have problems",
            sources.len()
        ))
    })
}

/// Problems with their lines, a blank line between two.
pub(super) fn report(refused: &[Problems]) -> String {
    let reports: Vec<String> = refused.iter().map(ToString::to_string).collect();
    reports.join("\n")
}

fn listed(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let wrong = |error| Failure::problems(format!("can't read {}: {error}", directory.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<(String, String), Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::problems(format!("can't read {}: {error}", path.display()))
    };
    let size = fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if size > SOURCE_BYTES_MAX as u64 {
        return Err(wrong(&format!(
            "it has {size} bytes, a definition at most {SOURCE_BYTES_MAX}"
        )));
    }
    let source = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    Ok((path.display().to_string(), source))
}
