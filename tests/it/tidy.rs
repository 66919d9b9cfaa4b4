//! The rules of the house, as tests: who may use what, how long files get, what is never called.
//!
//! They read the sources as text. Test code inside `src/` (a `#[cfg(test)]` block at the end of a
//! file, `tests.rs`, `tests/`, `*_tests.rs`) is exempt where a rule is about production code.

mod circles;
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use backstitch::error::CODES;

use self::circles::Imports;
use self::sources::{
    File, at, crate_modules_in, first_name, has_word, layer_of, lines_of, production_code,
    rust_files, starts_path, text_files, uncommented,
};

/// Longest Rust file, in lines: past it there is a second idea inside.
const FILE_LINES_MAX: usize = 500;

/// The layers, as in the table of `docs/ARCHITECTURE.md`: each may use those before it, and itself.
const LAYERS: &[&str] = &[
    "id",
    "error",
    "environment",
    "address",
    "file",
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
    "jobs",
    "sim",
    "access",
    "http",
    "page",
    "cli",
];

/// Modules in which no files import each other in a circle, so that each can be read after those before it.
const WITHOUT_CIRCLES: &[&str] = &[
    "limits",
    "message",
    "definition",
    "saga",
    "verify",
    "broker",
    "participant",
    "projection",
    "aggregates",
    "dead_letters",
    "proof",
    "view",
    "sim",
    "access",
    "page",
    "cli",
];

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
fn no_files_of_a_module_import_each_other_in_a_circle() {
    let files = rust_files("src");
    let circles = Imports::of(&files).circles();
    let mut broken: Vec<String> = circles.into_iter().collect();
    broken.retain(|circle| {
        let layers = circle.split(" -> ").filter_map(layer_of);
        WITHOUT_CIRCLES
            .iter()
            .any(|name| layers.clone().all(|layer| layer == *name))
    });
    assert_none(&broken);
}

#[test]
fn the_architecture_page_lists_the_modules_in_their_order() {
    let page = fs::read_to_string(at("docs/ARCHITECTURE.md")).unwrap();
    let (_, table) = page.split_once("\n| --- |").unwrap();
    let rows = table.lines().skip(1);
    let first_cells = rows.map_while(|row| row.strip_prefix("| ")?.split(" | ").next());
    let listed: Vec<&str> = first_cells
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    assert_eq!(listed, LAYERS);
}

#[test]
fn what_is_said_to_be_typed_after_test_is_a_command_of_it() {
    let script = fs::read_to_string(at("test")).unwrap();
    let known: BTreeSet<&str> = script
        .lines()
        .filter_map(|line| line.trim().split_once(") "))
        .flat_map(|(names, _)| names.split(" | "))
        .collect();
    assert!(known.contains("it"), "{known:?}");
    let named = concat!("./te", "st ");
    let mut broken = Vec::new();
    for file in ["src", "tests", "docs", "."]
        .iter()
        .flat_map(|root| text_files(root, *root != "."))
    {
        for (number, line) in file.text.lines().enumerate() {
            for (start, _) in line.match_indices(named) {
                let command = first_name(&line[start + named.len()..]);
                if !command.is_empty() && !known.contains(command) {
                    broken.push(format!("{}:{}: {named}{command}", file.path, number + 1));
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

impl Rule {
    fn holds_in(&self, path: &str) -> bool {
        let under = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        (self.within.is_empty() || under(self.within)) && !under(self.except)
    }
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
