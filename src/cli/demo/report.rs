//! What happened, for people and as JSON.

use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use serde::Serialize;

use super::arguments::Arguments;
use super::client::Outcome;
use super::faults::{FaultPlan, HANG, Injected};
use super::world::{DOWN_TIME, DemoWorld};
use crate::proof::Proof;

/// Clock ticks a second in `/proc`, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Everything there is to say about a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    backends: String,
    attached: bool,
    orders: u32,
    customers: u32,
    articles: u32,
    in_flight: u32,
    seed: u64,
    completed: u64,
    compensated: u64,
    /// Why they were compensated.
    reasons: Vec<Reason>,
    suspended: u64,
    unfinished: u64,
    /// Why starts were refused, if any were.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// Sagas that ended in a second while orders came in.
    sagas_per_second: f64,
    /// How long orders came in.
    starting_seconds: f64,
    /// From the first start to the last end; time-outs after faults may be most of it.
    elapsed_seconds: f64,
    latency_ms: Latency,
    /// Of this process, user and system.
    cpu_ms_per_saga: Option<f64>,
    /// What else used the processor for it.
    cpu_without: &'static str,
    faults: Injected,
    proofs: Vec<Proof>,
}

#[derive(Debug, Serialize)]
struct Reason {
    reason: String,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Report {
    /// Puts together what was seen.
    pub(super) fn new(
        arguments: &Arguments,
        world: &DemoWorld,
        outcome: Outcome,
        plan: &FaultPlan,
        cpu: Option<Duration>,
        proofs: Vec<Proof>,
    ) -> Self {
        let mut reasons: Vec<Reason> = outcome
            .compensated
            .into_iter()
            .map(|(reason, count)| Reason { reason, count })
            .collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        let starting_seconds = outcome.starting.as_secs_f64();
        let per_saga = |cpu: Duration| cpu.as_secs_f64() * 1_000.0 / f64::from(arguments.orders);
        Self {
            backends: world.backends.clone(),
            attached: arguments.attach,
            orders: arguments.orders,
            customers: arguments.customers,
            articles: arguments.articles,
            in_flight: arguments.in_flight,
            seed: arguments.seed,
            completed: outcome.completed,
            compensated: reasons.iter().map(|reason| reason.count).sum(),
            reasons,
            suspended: outcome.suspended,
            unfinished: outcome.unfinished,
            refused: outcome.refused,
            sagas_per_second: rate(outcome.ended_while_starting, starting_seconds),
            starting_seconds,
            elapsed_seconds: outcome.elapsed.as_secs_f64(),
            latency_ms: Latency {
                p50: percentile(&outcome.latencies, 50),
                p99: percentile(&outcome.latencies, 99),
                max: percentile(&outcome.latencies, 100),
            },
            cpu_ms_per_saga: cpu.map(per_saga),
            cpu_without: match (arguments.attach, world.has_servers()) {
                (true, _) => "nodes, participants, database and broker come on top",
                (false, true) => "database and broker come on top",
                (false, false) => "",
            },
            faults: plan.injected(),
            proofs,
        }
    }

    /// Whether every saga ended and every proof holds.
    pub(super) fn held(&self) -> bool {
        self.unfinished == 0 && self.proofs.iter().all(|proof| proof.held)
    }

    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<String> = self
            .reasons
            .iter()
            .map(|Reason { reason, count }| format!("{reason} {}", grouped(*count)))
            .collect();
        let reasons = reasons.join(", ");
        writeln!(f, "  completed    {:>8}", grouped(self.completed))?;
        writeln!(
            f,
            "  compensated  {:>8}   {reasons}",
            grouped(self.compensated)
        )?;
        writeln!(f, "  suspended    {:>8}", grouped(self.suspended))?;
        if self.unfinished > 0 {
            writeln!(f, "  UNFINISHED   {:>8}", grouped(self.unfinished))?;
        }
        match &self.refused {
            Some(reason) => writeln!(f, "  some starts were refused: {reason}"),
            None => Ok(()),
        }
    }

    fn write_speed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n  speed        {:>8.0}   sagas/s while orders came in ({:.1} s); the last one ended after {:.1} s",
            self.sagas_per_second, self.starting_seconds, self.elapsed_seconds
        )?;
        let Latency { p50, p99, max } = self.latency_ms;
        writeln!(
            f,
            "  latency      {p50:>8.0}   ms p50, {p99:.0} ms p99, {max:.0} ms at most, with {} sagas open",
            self.in_flight
        )?;
        let Some(cpu) = self.cpu_ms_per_saga else {
            return Ok(());
        };
        let without = if self.cpu_without.is_empty() {
            String::new()
        } else {
            format!("; {}", self.cpu_without)
        };
        writeln!(
            f,
            "  CPU          {cpu:>8.2}   ms a saga, in this process{without}"
        )
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = &self.faults;
        let (hang, down) = (HANG.as_secs_f64(), DOWN_TIME.as_secs_f64());
        let all = [
            (faults.starts_doubled, "starts sent twice".to_owned()),
            (
                faults.commands_doubled,
                "commands delivered twice".to_owned(),
            ),
            (faults.replies_doubled, "replies sent twice".to_owned()),
            (faults.replies_lost, "replies lost".to_owned()),
            (
                faults.silent_orders,
                "orders whose payment never answers".to_owned(),
            ),
            (
                faults.hangs,
                format!("time one of two `inventory` hung, for {hang:.1} s"),
            ),
            (
                faults.crashes,
                format!("time `payments` crashed, back after {down:.1} s"),
            ),
        ];
        writeln!(f, "\n  What went wrong on purpose")?;
        if all.iter().all(|(count, _)| *count == 0) {
            return writeln!(f, "           nothing");
        }
        all.iter()
            .filter(|(count, _)| *count > 0)
            .try_for_each(|(count, what)| writeln!(f, "    {:>6}  {what}", grouped(*count)))
    }

    fn write_proofs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paint = Paint::for_stdout();
        writeln!(f, "\n  Does it add up?")?;
        for Proof { name, held, detail } in &self.proofs {
            let mark = if *held {
                paint.good("✔")
            } else {
                paint.bad("✘")
            };
            writeln!(f, "  {mark} {name}\n      {}", paint.dim(detail))?;
        }
        let verdict = if self.held() {
            paint.good("Everything adds up.")
        } else {
            paint.bad("IT DOES NOT ADD UP.")
        };
        writeln!(f, "\n{verdict}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{} orders from {} customers over {} articles (seed {})\non {}\n",
            grouped(self.orders.into()),
            grouped(self.customers.into()),
            grouped(self.articles.into()),
            self.seed,
            self.backends
        )?;
        self.write_counts(f)?;
        self.write_speed(f)?;
        self.write_faults(f)?;
        self.write_proofs(f)
    }
}

/// Processor time of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu(Option<Duration>);

impl Cpu {
    /// So far; nothing where there is no `/proc`.
    pub(super) fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").ok();
        Self(stat.and_then(|stat| parse_stat(&stat)))
    }

    /// Since then.
    pub(super) fn since(self, earlier: Self) -> Option<Duration> {
        self.0?.checked_sub(earlier.0?)
    }
}

/// `utime` and `stime`: fields 14 and 15 of proc(5), counted behind the name in parentheses.
pub(super) fn parse_stat(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1_000 / TICKS_PER_SECOND,
    ))
}

/// The nearest-rank percentile of ascending values, in milliseconds.
pub(super) fn percentile(ascending: &[Duration], percent: usize) -> f64 {
    let rank = (ascending.len() * percent).div_ceil(100).max(1);
    let value = ascending.get(rank - 1);
    value.map_or(0.0, |value| value.as_secs_f64() * 1_000.0)
}

#[allow(clippy::cast_precision_loss)] // counts are far below 2^52
fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// With commas: 12,345.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Colours, where somebody sees them.
struct Paint(bool);

impl Paint {
    fn for_stdout() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    fn good(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
