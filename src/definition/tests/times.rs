//! Whether the times of a definition fit into one another.

use super::soundness::{behind_pivot, check};

#[test]
fn a_deadline_behind_the_sagas_own_timeout_is_refused() {
    let reserve = |more: &str| format!("- {{ step: s, reserve: p.r, compensate: p.c, {more} }}");
    check(&[
        (
            "timeout: 10s",
            &reserve("timeout: 5s, retry: { first: 2s }"),
            &[],
        ),
        ("timeout: 3s", &reserve("timeout: 5s"), &["1 deadline"]),
        (
            "timeout: 1s",
            &reserve("timeout: 5s, retry: { first: 2s }"),
            &["1 deadline", "1 deadline"],
        ),
        // What is not written can't be wrong.
        ("timeout: 1s", &reserve("suspend_after: 3"), &[]),
        (
            "timeout: 1s|defaults: { timeout: 5s }",
            &reserve("suspend_after: 3"),
            &["0 deadline"],
        ),
        (
            "timeout: 10d",
            "- { wait: w, timeout: 11d }",
            &["1 deadline"],
        ),
        ("timeout: 10d", "- { wait: w, timeout: 10d }", &[]),
        ("timeout: 10d", "- { sleep: w, for: 2w }", &["1 deadline"]),
        (
            "timeout: 1h",
            "- { saga: w, run: other, timeout: 2h }",
            &["1 deadline"],
        ),
        // Behind the pivot the saga's timeout means nothing.
        (
            "timeout: 10d",
            &behind_pivot("- { sleep: w, for: 2w }"),
            &[],
        ),
        (
            "timeout: 3s",
            "- { step: s, confirm: p.f, timeout: 5s, retry: { first: 4s } }",
            &[],
        ),
        // Sleeps that surely come before count.
        (
            "timeout: 10d",
            "- { sleep: a, for: 6d }\n- { wait: b, timeout: 5d }",
            &["2 deadline"],
        ),
        (
            "timeout: 10d",
            "- { sleep: a, for: 6d, when: \"${ input.x }\" }\n- { wait: b, timeout: 5d }",
            &[],
        ),
        (
            "timeout: 10d",
            "- { parallel: [ { sleep: a, for: 6d }, { wait: b, timeout: 5d } ] }",
            &[],
        ),
        (
            "timeout: 10d",
            "- { parallel: [ { sleep: a, for: 6d } ] }\n- { sleep: c, for: 5d }",
            &["2 deadline"],
        ),
        (
            "timeout: 10d",
            "- { sleep: a, for: 4d, for_each: 3 }\n- { sleep: b, for: 6d }",
            &[],
        ),
        (
            "timeout: 10d",
            "- { sleep: a, for: 4d, for_each: 3, sequential: true }\n- { wait: b, timeout: 1s }",
            &["2 deadline"],
        ),
        (
            "timeout: 10d",
            "- { sleep: a, for: \"${ input.x }\" }\n- { wait: b, timeout: \"${ input.y }\" }",
            &[],
        ),
        ("", "- { sleep: a, for: 3660d }", &[]),
        ("", "- { sleep: a, for: 3661d }", &["1 out-of-range"]),
    ]);
}

#[test]
fn a_reservation_must_hold_until_the_pivot() {
    let held = |lease: &str, then: &str| {
        let retry = "timeout: 10s, retry: { attempts: 2, first: 5s }";
        format!(
            "- {{ step: s, reserve: p.r, compensate: p.c, {retry}, expires_in: {lease} }}\n{then}"
        )
    };
    check(&[
        // Two attempts of ten seconds and five between them.
        ("", &held("25s", ""), &[]),
        ("", &held("24s", ""), &["1 lease"]),
        ("", &held("15m", "- { sleep: n, for: 14m }"), &[]),
        ("", &held("15m", "- { sleep: n, for: 15m }"), &["1 lease"]),
        // The saga's own timeout bounds it all.
        (
            "timeout: 15m",
            &held("15m", "- { wait: n, timeout: none }"),
            &[],
        ),
        (
            "timeout: 16m",
            &held("15m", "- { wait: n, timeout: none }"),
            &["1 lease"],
        ),
        (
            "",
            &held("15m", "- { wait: n, timeout: none }"),
            &["1 lease"],
        ),
        (
            "",
            &held("15m", "- { wait: n, timeout: \"${ input.t }\" }"),
            &["1 lease"],
        ),
        // What runs behind the pivot does not count.
        (
            "",
            &held("15m", "- { step: c, confirm: p.f, timeout: 1d }"),
            &[],
        ),
        (
            "",
            &format!(
                "{}- {{ sleep: n, for: 1d }}",
                held("15m", "- { sleep: m, for: 1m, pivot: true }\n")
            ),
            &[],
        ),
        (
            "",
            "- { parallel: [ { sleep: n, for: 1d }, { step: s, reserve: p.r, compensate: p.c, expires_in: 1h } ] }",
            &["1 lease"],
        ),
        (
            "",
            "- steps: [ { step: s, reserve: p.r, compensate: p.c, expires_in: 1h }, { sleep: n, for: 2m } ]\n  for_each: 40\n  sequential: true",
            &["1 lease"],
        ),
        (
            "",
            "- { step: s, action: p.a, compensate: p.c, expires_in: 1h }",
            &["1 contradiction"],
        ),
    ]);
}
