//! Definitions written to hang or kill the one who reads them, given to the program itself, so that
//! its time and its memory are measured and not guessed.
//!
//! A second and 200 MiB where the program is optimised (`tests/hostile` runs that); where it is not,
//! the time is generous.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The largest file that is read, and one that is not.
const MIB: usize = 1024 * 1024;

/// What one file may cost.
fn bounds() -> (Duration, u64) {
    if cfg!(debug_assertions) {
        (Duration::from_secs(20), 200)
    } else {
        (Duration::from_secs(1), 200)
    }
}

fn with_steps(steps: &str) -> String {
    format!("saga: s\nversion: 1\nkey: ${{ input.id }}\nsteps:\n{steps}")
}

fn with_expression(expression: &str) -> String {
    with_steps(&format!(
        "  - step: a\n    confirm: p.f\n    with: ${{ {expression} }}\n"
    ))
}

fn laughs() -> String {
    let levels = (1..12).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{}, ", n - 1).repeat(9)));
    let levels: Vec<String> = levels.collect();
    format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{}", levels.concat())
}

/// 900 steps whose expressions are as long as they may be, in what an expression may cost.
fn long_expressions() -> String {
    let sum = vec!["input.a + input.b * 2"; 40].join(" + ");
    let steps =
        (0..900).map(|n| format!("  - {{ step: s{n}, confirm: p.f, with: \"${{ {sum} }}\" }}\n"));
    with_steps(&steps.collect::<Vec<_>>().concat())
}

/// As many steps as there may be, each with as much of everything as is allowed.
fn full() -> String {
    let steps = (0..900).map(|n| {
        format!("  - {{ step: s{n}, reserve: p.r, compensate: p.c, with: {{ a: \"${{ input.a }}\", b: \"${{ input.b + {n} }}\" }} }}\n")
    });
    with_steps(&steps.collect::<Vec<_>>().concat())
}

#[test]
fn hostile_files_are_judged_within_bounds_of_time_and_memory() {
    let nested = "input.l.map(a, input.l.map(b, input.l.map(c, input.l.map(d, 1))))";
    let cases = [
        ("bomb", laughs(), false),
        (
            "2000-terms",
            with_expression(&("1+".repeat(2_000) + "1")),
            false,
        ),
        (
            "100k-parentheses",
            with_expression(&"(".repeat(100_000)),
            false,
        ),
        ("four-comprehensions", with_expression(nested), false),
        ("5-mb", "#".repeat(5 * MIB), false),
        (
            "1-mb-of-steps",
            with_steps(&"  - { step: a, confirm: p.f }\n".repeat(30_000)),
            false,
        ),
        (
            "1-mb-of-text",
            format!("a: \"{}\"", "x".repeat(MIB - 10)),
            false,
        ),
        ("900-long-expressions", long_expressions(), false),
        ("900-steps", full(), true),
    ];
    let directory = tempfile::tempdir().unwrap();
    let (most_time, most_mib) = bounds();
    for (name, source, accepted) in cases {
        let path = directory.path().join(format!("{name}.yaml"));
        fs::write(&path, source).unwrap();
        let (code, took, mib) = check(&path);
        println!("{name}: {took:?}, {mib} MiB");
        // Anything else is a crash.
        assert_eq!(code, Some(if accepted { 0 } else { 2 }), "{name}");
        assert!(took < most_time, "{name} took {took:?}");
        assert!(mib < most_mib, "{name} took {mib} MiB");
    }
}

/// Runs `backstitch check` and watches the most memory that it comes to use.
fn check(path: &Path) -> (Option<i32>, Duration, u64) {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_backstitch"))
        .arg("check")
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        if let Ok(text) = fs::read_to_string(&status) {
            most = most.max(peak_mib(&text));
        }
        if let Some(ended) = child.try_wait().unwrap() {
            return (ended.code(), started.elapsed(), most);
        }
        std::thread::yield_now();
    }
}

/// The high-water mark, as Linux keeps it; elsewhere nothing is measured.
fn peak_mib(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
