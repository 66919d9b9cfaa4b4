//! `backstitch verify`: is every saga's history still what was written, and every dead letter?

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::backends::{DatabaseArguments, OpenStore};
use super::exit::{Exit, Failure};
use super::output;
use crate::dead_letters::Desk;
use crate::environment::{Environment, TokioEnvironment};
use crate::verify::checkpoint::{CheckpointError, Reader};
use crate::verify::{self, Finding, LetterFinding, Scan, Summary, VerifyError, scan};

/// Findings that are printed one by one; the rest is counted.
const FINDINGS_MAX: usize = 100;

/// What to check against, and what to write.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write the checkpoint to this file: every chain's head, under one Merkle root.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Check against this earlier checkpoint: finds sagas that were deleted, replaced or cut.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The root that was noted when the earlier checkpoint was made.
    #[arg(long, value_name = "HEX", requires = "against")]
    root: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let against = arguments.against.as_deref().map(open).transpose()?;
    let store = arguments.database.database()?.open_to_read().await?;
    let draft = arguments.checkpoint.as_deref().map(Draft::create);
    let draft = draft.transpose()?;
    let mut findings = Vec::new();
    let plan = Scan {
        against,
        checkpoint: draft.as_ref().map(|draft| BufWriter::new(&draft.file)),
        now: TokioEnvironment.now(),
    };
    let sagas = store.sagas();
    let scanned = scan(&*sagas, plan, |finding| note(&mut findings, finding)).await;
    let mut summary = scanned.map_err(failed)?;
    let strays = verify::strays(&*sagas, |finding| note(&mut findings, finding)).await;
    summary.flawed += strays.map_err(Failure::new)?;
    let letters = check_letters(&store).await?;
    store.close().await;
    if let (Some(root), Some(seal)) = (&arguments.root, &summary.against)
        && !root.eq_ignore_ascii_case(&seal.root)
    {
        return Err(failed(VerifyError::Checkpoint(CheckpointError::Root {
            found: seal.root.clone(),
            stated: root.clone(),
        })));
    }
    // A checkpoint vouches for what is there; of what is broken there is none.
    let sound = summary.flawed == 0;
    if let Some(draft) = draft {
        draft.close(sound)?;
    }
    let file = arguments.checkpoint.as_deref().filter(|_| sound);
    tell(&summary, &findings, &letters, file, arguments.json)?;
    if summary.flawed == 0 && letters.are_sound() {
        return Ok(Exit::Done);
    }
    Err(Failure::new(
        "this is not what was written; keep a copy of the database, and find out who could write to it",
    ))
}

/// Keeps the first findings; the rest is counted.
fn note<F>(findings: &mut Vec<F>, finding: F) {
    if findings.len() < FINDINGS_MAX {
        findings.push(finding);
    }
}

/// What is to be said of dead letters.
struct LettersTold {
    /// Entries of their audit log that hold.
    audited: u64,
    /// What is wrong after them.
    broken: Option<String>,
    /// How many letters there are, and how many of them are not as the log says.
    count: verify::Letters,
    findings: Vec<LetterFinding>,
}

impl LettersTold {
    fn are_sound(&self) -> bool {
        self.broken.is_none() && self.count.flawed == 0
    }

    fn lines(&self) -> Vec<String> {
        let Self {
            audited,
            broken,
            count,
            findings,
        } = self;
        let mut lines: Vec<String> = findings.iter().map(broken_line).collect();
        lines.extend(more(count.flawed, findings.len()));
        lines.push(match broken {
            None => format!("{audited} entries of the dead letters' audit log: unbroken"),
            Some(broken) => {
                format!("the dead letters' audit log, after {audited} entries: {broken}")
            }
        });
        lines.push(match count.flawed {
            0 => format!("{} dead letters: as the audit log says", count.letters),
            flawed => format!(
                "{} dead letters: {flawed} are not as the audit log says",
                count.letters
            ),
        });
        lines
    }

    fn json(&self) -> Value {
        let findings = self.findings.iter();
        let findings =
            findings.map(|it| json!({ "letter": it.letter, "flaw": it.flaw.to_string() }));
        json!({
            "letters": self.count.letters, "flawed": self.count.flawed,
            "findings": findings.collect::<Vec<_>>(),
        })
    }
}

fn broken_line(finding: &impl Display) -> String {
    format!("BROKEN  {}", output::printable(&finding.to_string()))
}

/// How many findings are not among those that are printed.
fn more(flawed: u64, printed: usize) -> Option<String> {
    let more = flawed - printed as u64;
    (more > 0).then(|| format!("BROKEN  … and {more} more"))
}

async fn check_letters(store: &OpenStore) -> Result<LettersTold, Failure> {
    let desk = Desk {
        environment: Arc::new(TokioEnvironment),
        letters: store.letters(),
        sagas: store.sagas(),
    };
    let check = desk.check_audit(|_| {}).await.map_err(Failure::new)?;
    let mut findings = Vec::new();
    let count = verify::letters(&*desk.letters, |finding| note(&mut findings, finding)).await;
    Ok(LettersTold {
        audited: check.entries,
        broken: check.broken.map(|broken| broken.to_string()),
        count: count.map_err(Failure::new)?,
        findings,
    })
}

fn tell(
    summary: &Summary,
    findings: &[Finding],
    letters: &LettersTold,
    file: Option<&Path>,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        let findings = findings.iter().map(|finding| {
            let (name, key) = finding.name.clone().unzip();
            json!({ "saga_id": finding.saga, "saga": name, "key": key, "flaw": finding.flaw.to_string() })
        });
        return output::print_json(&json!({
            "sagas": summary.seal.sagas,
            "entries": summary.entries,
            "root": summary.seal.root,
            "flawed": summary.flawed,
            "findings": findings.collect::<Vec<_>>(),
            "against": summary.against,
            "letters_audit": { "entries": letters.audited, "broken": letters.broken },
            "dead_letters": letters.json(),
        }));
    }
    let mut lines: Vec<String> = findings.iter().map(broken_line).collect();
    lines.extend(more(summary.flawed, findings.len()));
    lines.push(format!(
        "{} sagas, {} journal entries: {}",
        summary.seal.sagas,
        summary.entries,
        match summary.flawed {
            0 => "every chain is unbroken and says what its row and snapshot say".to_owned(),
            flawed => format!("{flawed} with flaws"),
        }
    ));
    lines.extend(letters.lines());
    if let Some(seal) = &summary.against {
        let root = &seal.root;
        lines.push(format!(
            "compared with {} sagas of the checkpoint, root {root}",
            seal.sagas
        ));
    }
    lines.push(format!("root {}", summary.seal.root));
    if let Some(file) = file {
        lines.push(format!("checkpoint written to {}", file.display()));
    }
    output::print(&(lines.join("\n") + "\n"))
}

fn open(path: &Path) -> Result<Reader<BufReader<File>>, Failure> {
    let named = |why: String| Failure::problems(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| named(error.to_string()))?;
    Reader::open(BufReader::new(file)).map_err(|error| named(error.to_string()))
}

fn failed(error: VerifyError) -> Failure {
    match error {
        VerifyError::Store(error) => Failure::new(error),
        VerifyError::Checkpoint(error @ CheckpointError::Io(_)) => Failure::new(error),
        VerifyError::Checkpoint(error) => Failure::new(format!(
            "{error}; take the file as it was kept when it was made"
        )),
    }
}

/// A file that gets its name when it is whole, so that a broken run leaves the old one.
struct Draft {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn create(path: &Path) -> Result<Self, Failure> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part)
            .map_err(|error| Failure::new(format!("{}: {error}", part.display())))?;
        let path = path.to_owned();
        Ok(Self { file, part, path })
    }

    fn close(self, keep: bool) -> Result<(), Failure> {
        let done = if keep {
            let synced = self.file.sync_all();
            synced.and_then(|()| std::fs::rename(&self.part, &self.path))
        } else {
            std::fs::remove_file(&self.part)
        };
        done.map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }
}
