//! Which file imports which, and the circles among them.
//!
//! What a file names after `crate::`, `super::` or `self::` is followed to the file that has it, as far as
//! paths tell: what is re-exported counts for the file that re-exports it.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{File, production_code};

/// A module's path, from the crate's root.
type Module = Vec<String>;

/// For each of these files, the others that it imports.
pub(super) struct Imports<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Imports<'a> {
    /// Test code is left out.
    pub(super) fn of(files: &'a [File]) -> Self {
        let read: Vec<(&File, String)> = files.iter().map(|file| (file, code(file))).collect();
        let modules: BTreeMap<Module, &str> = read
            .iter()
            .map(|(file, _)| (module_of(&file.path), file.path.as_str()))
            .collect();
        let imports = read.iter().map(|(file, code)| {
            let own = module_of(&file.path);
            let named = paths_in(code, &own, &modules);
            let found = named.iter().filter_map(|path| file_of(path, &modules));
            let others = found.filter(|path| *path != file.path).collect();
            (file.path.as_str(), others)
        });
        Self(imports.collect())
    }

    /// A shortest circle through each file that is in one, in words; each circle once.
    pub(super) fn circles(&self) -> BTreeSet<String> {
        let circles = self.0.keys().filter_map(|file| self.way_back_to(file));
        circles
            .map(|mut circle| {
                let first = (0..circle.len()).min_by_key(|at| circle[*at]);
                circle.rotate_left(first.unwrap_or(0));
                circle.push(circle[0]);
                circle.join(" -> ")
            })
            .collect()
    }

    fn way_back_to(&self, start: &'a str) -> Option<Vec<&'a str>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut now = vec![start];
        while !now.is_empty() {
            let mut next = Vec::new();
            for file in now {
                for other in self.0.get(file).into_iter().flatten() {
                    if *other == start {
                        let mut way = vec![file];
                        while let Some(before) = came_from.get(way[0]) {
                            way.insert(0, before);
                        }
                        return Some(way);
                    }
                    if !came_from.contains_key(other) {
                        came_from.insert(other, file);
                        next.push(*other);
                    }
                }
            }
            now = next;
        }
        None
    }
}

/// `src/saga/decide/mod.rs` is `saga::decide`.
fn module_of(path: &str) -> Module {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Module = inside.split('/').map(str::to_owned).collect();
    module.pop_if(|last| last == "mod");
    module
}

/// The production code. What a module inside of the file names by way of the file is the file's own.
fn code(file: &File) -> String {
    let mut inside = false;
    let lines = production_code(file).into_iter().map(|(_, line)| {
        let opens = line.trim_start_matches("pub ").starts_with("mod ") && line.ends_with('{');
        inside = (inside || opens) && line != "}";
        if inside {
            line.replace("super::", "self::")
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// All that is named by a path, as paths from the crate's root.
fn paths_in(code: &str, own: &Module, modules: &BTreeMap<Module, &str>) -> Vec<Module> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = &code[..at];
            // Who may see an item is no import.
            let is_scope = before.ends_with("(in ");
            if !is_scope && !before.ends_with(|c: char| is_name(c) || c == ':') {
                branches(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    // A module's own children are named without a root.
    for (at, found_use) in code.match_indices("use ") {
        let rest = &code[at + found_use.len()..];
        let mut child = own.clone();
        child.push(name_in(rest).to_owned());
        if modules.contains_key(&child) {
            branches(rest, &mut vec!["self".to_owned()], &mut found);
        }
    }
    found.iter().map(|path| from_root(path, own)).collect()
}

/// Takes the paths at the beginning of a text apart: `a::{b, c::D}` is `a::b` and `a::c::D`. Returns what
/// follows.
fn branches<'t>(text: &'t str, before: &mut Module, found: &mut Vec<Module>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        loop {
            list = list.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            match list.strip_prefix('}') {
                Some(rest) => return rest,
                None if list.is_empty() => return list,
                None => {
                    let rest = branches(list, &mut before.clone(), found);
                    // Whatever this is, it is no list of names.
                    list = if rest.len() < list.len() { rest } else { "" };
                }
            }
        }
    }
    let name = name_in(text);
    let mut rest = &text[name.len()..];
    if name.is_empty() {
        rest = rest.strip_prefix('*').unwrap_or(rest);
    } else {
        before.push(name.to_owned());
    }
    if let Some(deeper) = rest.strip_prefix("::") {
        return branches(deeper, before, found);
    }
    found.push(before.clone());
    match rest.strip_prefix(" as ") {
        Some(renamed) => &renamed[name_in(renamed).len()..],
        None => rest,
    }
}

fn from_root(path: &Module, own: &Module) -> Module {
    let mut module = own.clone();
    let mut names = path.iter();
    for name in names.by_ref() {
        match name.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => drop(module.pop()),
            _ => {
                module.push(name.clone());
                break;
            }
        }
    }
    module.extend(names.cloned());
    module
}

/// The file of the innermost module that a path leads through.
fn file_of<'a>(path: &Module, modules: &BTreeMap<Module, &'a str>) -> Option<&'a str> {
    let lengths = (1..=path.len()).rev();
    lengths
        .into_iter()
        .find_map(|length| modules.get(&path[..length]).copied())
}

fn name_in(text: &str) -> &str {
    &text[..text.find(|c: char| !is_name(c)).unwrap_or(text.len())]
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let files = [
        file("src/a/mod.rs", "mod b;\npub use b::{B, Thing as Other};"),
        file(
            "src/a/b.rs",
            "use super::{c::{C}, d};\nfn f() { crate::a::e::g() }",
        ),
        file("src/a/c.rs", "use crate::a::d::{\n    D,\n};"),
        file(
            "src/a/d.rs",
            "fn f() -> super::b::B { x }\nmod inner {\n    use super::X;\n}",
        ),
        file(
            "src/a/e.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::a::b::B;\n}",
        ),
        file("src/a/f.rs", "use super::g::G;\npub(in crate::a) fn f() {}"),
        file("src/a/g.rs", "// use super::f::F;"),
    ];
    let circles = Imports::of(&files).circles();
    let expected = [
        "src/a/b.rs -> src/a/c.rs -> src/a/d.rs -> src/a/b.rs",
        "src/a/b.rs -> src/a/d.rs -> src/a/b.rs",
    ];
    assert_eq!(circles.into_iter().collect::<Vec<_>>(), expected);
    let files = [
        file("src/a/mod.rs", "pub use b::B;"),
        file("src/a/b.rs", "use super::Thing;"),
    ];
    let circles = Imports::of(&files).circles();
    assert_eq!(
        circles.into_iter().collect::<Vec<_>>(),
        ["src/a/b.rs -> src/a/mod.rs -> src/a/b.rs"]
    );
}
