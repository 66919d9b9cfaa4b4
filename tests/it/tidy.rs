//! The rules of the house, as tests: who may use what, how long files get, what is never called.
//!
//! They read the sources as text. Test code inside `src/` (a `#[cfg(test)]` block at the end of a
//! file, `tests.rs`, `tests/`, `*_tests.rs`) is exempt where a rule is about production code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use backstitch::error::CODES;

/// Longest Rust file, in lines: past it there is a second idea inside.
const FILE_LINES_MAX: usize = 500;

/// The layers of DESIGN §12 as they came to stand: each may use those before it, and itself.
const LAYERS: &[&str] = &[
    "id",
    "error",
    "environment",
    "address",
    "metric",
    "limits",
    "numeral",
    "canonical",
    "message",
    "definition",
    "saga",
    "store",
    "verify",
    "broker",
    "engine",
    "participant",
    "projection",
    "aggregates",
    "dead_letters",
    "proof",
    "view",
    "sim",
    "access",
    "http",
    "cli",
];

/// Layers that `sim` may not use although they stand elsewhere; everything else it may.
const BESIDE_SIM: &[&str] = &["http", "cli"];

/// Words that production code may use only in some places.
struct Rule {
    words: &'static [&'static str],
    /// Where the rule holds; empty for everywhere in `src/`.
    within: &'static [&'static str],
    /// Where it does not.
    except: &'static [&'static str],
    because: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["sqlx::"],
        within: &[],
        except: &["src/store/"],
        because: "SQL lives beside the store that runs it",
    },
    Rule {
        words: &["eprintln!", "println!", "eprint!", "print!"],
        within: &["src/cli/"],
        except: &["src/cli/output.rs"],
        because: "what commands print goes through one place, which makes control characters visible",
    },
    Rule {
        words: &["lapin::"],
        within: &[],
        // The log's filter names a target of the library's.
        except: &["src/broker/rabbitmq", "src/cli/logging.rs"],
        because: "everyone else speaks to the Broker trait",
    },
    Rule {
        words: &["backoff::"],
        within: &[],
        except: &["src/broker/pace.rs"],
        because: "it is unmaintained (deny.toml): one module paces reconnects with it",
    },
    Rule {
        words: &["tokio::", "async fn", "tracing::", "metrics::"],
        within: &["src/definition/", "src/saga/"],
        except: &[],
        because: "the core is pure: no runtime, no I/O, no logging",
    },
    Rule {
        words: &[
            "tokio::spawn",
            "tokio::task",
            "tokio::time",
            "thread::spawn",
        ],
        within: &[
            "src/engine/",
            "src/participant/",
            "src/projection/",
            "src/aggregates/",
            "src/dead_letters/",
        ],
        except: &[],
        because: "clock, sleep and tasks come from the Environment, so that the simulator can run this",
    },
    Rule {
        words: &["SystemTime::now"],
        within: &[],
        except: &["src/environment.rs", "src/cli/"],
        because: "the time is an argument, or the Environment's",
    },
    Rule {
        words: &[
            "Instant::now",
            "Timestamp::now",
            "Uuid::new_v4",
            "Uuid::now_v7",
            "rand::",
            "fastrand::",
        ],
        within: &[
            "src/definition/",
            "src/saga/",
            "src/engine/",
            "src/participant/",
            "src/projection/",
            "src/aggregates/",
            "src/dead_letters/",
        ],
        except: &[],
        because: "the same inputs give the same bytes",
    },
];

#[test]
fn each_layer_uses_only_what_it_may() {
    let mut broken = Vec::new();
    for file in rust_files("src") {
        let code = production_code(&file);
        for rule in RULES.iter().filter(|rule| rule.holds_in(&file.path)) {
            for (line, text) in &code {
                if let Some(word) = rule.words.iter().find(|word| has_word(text, word)) {
                    let because = rule.because;
                    broken.push(format!("{}:{line}: `{word}`: {because}", file.path));
                }
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn modules_depend_only_on_those_above_them() {
    let mut broken = Vec::new();
    for file in rust_files("src") {
        let Some(layer) = layer_of(&file.path) else {
            continue;
        };
        let Some(place) = LAYERS.iter().position(|name| *name == layer) else {
            broken.push(format!("{}: give `{layer}` its place in LAYERS", file.path));
            continue;
        };
        for (line, text) in production_code(&file) {
            for used in crate_modules_in(&text) {
                let allowed = match LAYERS.iter().position(|name| *name == used) {
                    None => true, // an item of the crate's root
                    Some(_) if layer == "sim" => !BESIDE_SIM.contains(&used),
                    Some(used_place) => used_place <= place,
                };
                if !allowed {
                    broken.push(format!("{}:{line}: `{layer}` uses `{used}`", file.path));
                }
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn files_stay_short_enough_to_hold_one_idea() {
    let broken: Vec<String> = rust_files("src")
        .into_iter()
        .chain(rust_files("tests"))
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"))
        .collect();
    assert_none(&broken);
}

#[test]
fn file_names_say_what_is_inside() {
    const EMPTY: &[&str] = &[
        "common", "helper", "helpers", "manager", "misc", "util", "utils",
    ];
    let broken: Vec<String> = rust_files("src")
        .into_iter()
        .chain(rust_files("tests"))
        .filter(|file| {
            Path::new(&file.path)
                .iter()
                .any(|part| EMPTY.contains(&part.to_string_lossy().trim_end_matches(".rs")))
        })
        .map(|file| file.path)
        .collect();
    assert_none(&broken);
}

#[test]
fn tests_wait_for_conditions_and_not_for_time_to_pass() {
    let mut broken = Vec::new();
    for file in rust_files("tests") {
        for (line, text) in uncommented(&file.text) {
            if has_word(&text, concat!("sle", "ep(")) {
                broken.push(format!("{}:{line}: wait with `eventually`", file.path));
            }
        }
    }
    for file in rust_files("src") {
        let production: BTreeSet<usize> = lines_of(production_code(&file));
        for (line, text) in uncommented(&file.text) {
            let in_test = !production.contains(&line);
            let words = ["thread::sleep", "time::sleep"];
            if in_test && words.iter().any(|word| text.contains(word)) {
                broken.push(format!("{}:{line}: wait for the condition", file.path));
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    let homes = ["work", "farm", "root", "home"].map(|name| format!("/{name}/"));
    let mut broken = Vec::new();
    for root in [
        "src",
        "tests",
        "docs",
        "examples",
        "sagas",
        "migrations",
        ".ci",
        ".",
    ] {
        for file in text_files(root, root != ".") {
            if file.path == "./.git" {
                continue; // where a git worktree has its repository
            }
            for (number, line) in file.text.lines().enumerate() {
                if homes.iter().any(|home| starts_path(line, home)) {
                    broken.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
                }
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn every_error_code_has_a_page_with_cause_check_and_cure() {
    let page = fs::read_to_string(at("docs/errors.md")).unwrap();
    let sections: Vec<(&str, &str)> = page
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .collect();
    let mut broken = Vec::new();
    for (code, title) in CODES {
        let heading = format!("{code}: {title}");
        match sections.iter().find(|(found, _)| *found == heading) {
            None => broken.push(format!("no section `## {heading}`")),
            Some((_, body)) => {
                for part in ["**Cause.**", "**Check.**", "**Cure.**"] {
                    if !body.contains(part) {
                        broken.push(format!("`{heading}` lacks {part}"));
                    }
                }
            }
        }
    }
    for (heading, _) in &sections {
        if !CODES
            .iter()
            .any(|(code, _)| heading.starts_with(&code.to_string()))
        {
            broken.push(format!("`{heading}` is about no code in src/error.rs"));
        }
    }
    let numbers: BTreeSet<_> = CODES.iter().map(|(code, _)| code).collect();
    assert_eq!(numbers.len(), CODES.len(), "a code is listed twice");
    let source = fs::read_to_string(at("src/error.rs")).unwrap();
    let defined = source.matches(": Code = Code(").count();
    assert_eq!(
        defined,
        CODES.len(),
        "each code of `mod code` stands in CODES"
    );
    assert_none(&broken);
}

// ---------------------------------------------------------------- reading the sources

struct File {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

impl Rule {
    fn holds_in(&self, path: &str) -> bool {
        let under = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        (self.within.is_empty() || under(self.within)) && !under(self.except)
    }
}

fn at(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn rust_files(root: &str) -> Vec<File> {
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
fn text_files(root: &str, recursive: bool) -> Vec<File> {
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
fn uncommented(text: &str) -> Vec<(usize, String)> {
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
fn production_code(file: &File) -> Vec<(usize, String)> {
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

fn lines_of(code: Vec<(usize, String)>) -> BTreeSet<usize> {
    code.into_iter().map(|(number, _)| number).collect()
}

/// The module a file belongs to; `None` for the crate's root files.
fn layer_of(path: &str) -> Option<String> {
    let inside = path.strip_prefix("src/")?;
    let layer = inside.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&layer)).then(|| layer.to_owned())
}

/// The names that follow `crate::` in a line, also in `use crate::{a, b::C}` on one line.
fn crate_modules_in(line: &str) -> Vec<&str> {
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

fn first_name(text: &str) -> &str {
    let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    &text[..end]
}

/// Whether `word` stands in `line` and is not the end of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(start, _)| !line[..start].ends_with(is_name))
}

/// Whether an absolute path with this beginning stands in `line`.
fn starts_path(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(start, _)| {
        let inside = |c: char| is_name(c) || ['.', '/', '}', '-', '~'].contains(&c);
        let goes_on = line[start + home.len()..].starts_with(|c: char| is_name(c) || c == '.');
        goes_on && !line[..start].ends_with(inside)
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[track_caller]
fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

// ---------------------------------------------------------------- the rules can fail

#[test]
fn what_the_rules_look_for_is_found() {
    let file = File {
        path: "src/saga/x.rs".to_owned(),
        text: "// sqlx::a\n#[cfg(test)]\nmod tests;\nlet a = sqlx::b;\n#[cfg(test)]\nmod t {\nlapin::c\n}"
            .to_owned(),
    };
    let code = production_code(&file);
    assert!(
        code.iter()
            .any(|(line, text)| *line == 4 && has_word(text, "sqlx::"))
    );
    assert!(!code.iter().any(|(_, text)| has_word(text, "lapin::")));
    assert!(
        !code
            .iter()
            .any(|(line, text)| *line == 1 && has_word(text, "sqlx::"))
    );
    assert!(!has_word("fastrand::u8()", "rand::"));
    assert_eq!(
        crate_modules_in("use crate::{http::Api, id}; crate::cli::run()"),
        ["http", "id", "cli"]
    );
    let machine_path = ["cd /", "work/main"].concat();
    assert!(starts_path(&machine_path, &["/", "work/"].concat()));
    let relative = ["see ./", "work/main"].concat();
    assert!(!starts_path(&relative, &["/", "work/"].concat()));
}
