//! The repository's files, read as text: what is production code in them, and which names stand there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A file of the repository.
pub(super) struct File {
    /// From the repository's root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

pub(super) fn at(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(super) fn rust_files(root: &str) -> Vec<File> {
    let mut files = text_files(root, true);
    files.retain(|file| {
        Path::new(&file.path)
            .extension()
            .is_some_and(|end| end == "rs")
    });
    assert!(!files.is_empty(), "no Rust files under {root}");
    files
}

/// Readable files under `root`; what is not text is left out.
pub(super) fn text_files(root: &str, recursive: bool) -> Vec<File> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(at(root)) else {
        return files;
    };
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{root}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            if recursive {
                files.extend(text_files(&path, true));
            }
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            files.push(File { path, text });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Lines with their numbers, without comments.
pub(super) fn uncommented(text: &str) -> Vec<(usize, String)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            let comment = line
                .match_indices("//")
                .find(|(start, _)| !line[..*start].ends_with(':'))
                .map_or(line.len(), |(start, _)| start);
            (index + 1, line[..comment].to_owned())
        })
        .collect()
}

/// Uncommented lines outside test code. A `#[cfg(test)]` block stands at the end of its file.
pub(super) fn production_code(file: &File) -> Vec<(usize, String)> {
    let path = file.path.as_str();
    if path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let lines = uncommented(&file.text);
    let mut code = Vec::new();
    let mut rest = lines.into_iter().peekable();
    while let Some((number, line)) = rest.next() {
        if line.trim() == "#[cfg(test)]" {
            match rest.next() {
                Some((_, declaration)) if declaration.trim_end().ends_with(';') => continue,
                _ => break,
            }
        }
        code.push((number, line));
    }
    code
}

pub(super) fn lines_of(code: Vec<(usize, String)>) -> BTreeSet<usize> {
    code.into_iter().map(|(number, _)| number).collect()
}

/// The module a file belongs to; `None` for the crate's root files.
pub(super) fn layer_of(path: &str) -> Option<String> {
    let inside = path.strip_prefix("src/")?;
    let layer = inside.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&layer)).then(|| layer.to_owned())
}

/// The names that follow `crate::` in a line, also in `use crate::{a, b::C}` on one line.
pub(super) fn crate_modules_in(line: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (start, found) in line.match_indices("crate::") {
        let rest = &line[start + found.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(list.split(',').map(|item| first_name(item.trim()))),
            None => names.push(first_name(rest)),
        }
    }
    names
}

pub(super) fn first_name(text: &str) -> &str {
    let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    &text[..end]
}

/// Whether `word` stands in `line` and is not the end of a longer name.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(start, _)| !line[..start].ends_with(is_name))
}

/// Whether an absolute path with this beginning stands in `line`.
pub(super) fn starts_path(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(start, _)| {
        let inside = |c: char| is_name(c) || ['.', '/', '}', '-', '~'].contains(&c);
        let goes_on = line[start + home.len()..].starts_with(|c: char| is_name(c) || c == '.');
        goes_on && !line[..start].ends_with(inside)
    })
}

pub(super) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
