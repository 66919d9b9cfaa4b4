//! What is wrong with a definition, and where.
//!
//! Everything found in a file is collected in [`Findings`] while the file is walked, and leaves as
//! one [`Problems`]: readers fix a file once, not once a problem. Each problem carries the line it
//! points at, so it can be shown without the file at hand. Text from the file is made printable
//! here, once, so that no caller can be tricked into writing escape codes to a terminal.

use std::fmt;

use serde::{Serialize, Serializer};

/// Most problems that are reported for one file.
pub const PROBLEMS_MAX: usize = 100;
/// Longest piece of a source line that is shown, in characters.
const EXCERPT_CHARS_MAX: usize = 160;

/// All that is wrong with one file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Just behind what is wrong, if that is known; in the same line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Which rule is broken.
    pub code: Rule,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
    /// The line it points at; of a long one, the part around the column.
    pub excerpt: String,
    /// Where `column` is within `excerpt`, from 0, in characters.
    #[serde(skip)]
    pub caret: usize,
}

/// Where what is wrong ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct End {
    /// From 1.
    pub line: usize,
    /// From 1, in characters; the first one that is no longer part of it.
    pub column: usize,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $fix:literal;)*) => {
        /// The rules a definition keeps; their texts never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule { $($(#[$doc])* $variant,)* }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable text, such as `unknown-field`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What to do, where a problem does not say it more precisely.
            fn fix(self) -> &'static str {
                match self { $(Self::$variant => $fix,)* }
            }
        }
    };
}

rules! {
    /// The file is not there, or may not be read, or is not text.
    Unreadable = "unreadable", "make it a file that can be read, or remove it";
    /// The file is not YAML that we read.
    Syntax = "syntax", "correct the YAML here";
    /// The file or something in it is larger or deeper than allowed.
    TooLarge = "too-large", "split it, or let a participant do part of it";
    /// A value is of another type than its field.
    WrongType = "wrong-type", "write a value of the type that is asked for";
    /// There is no field of this name here.
    UnknownField = "unknown-field", "remove it, or correct its name";
    /// A field that must be there is not.
    MissingField = "missing-field", "add the field";
    /// A field is there twice.
    DuplicateField = "duplicate-field", "keep one of them";
    /// A name, command or destination has a form that is not allowed.
    BadName = "bad-name", "choose a name of the form that is asked for";
    /// Two blocks have the same name.
    DuplicateStep = "duplicate-step", "choose another name";
    /// Two files have the same saga name and version.
    DuplicateDefinition = "duplicate-definition", "give one of them another name or version";
    /// Not a duration.
    BadDuration = "bad-duration", "write a whole number and a unit, as in `200ms` or `5s`";
    /// A number or duration is outside what is allowed.
    OutOfRange = "out-of-range", "choose a value within the range";
    /// Fields that exclude or need one another.
    Contradiction = "contradiction", "drop one of them";
    /// A reservation or action that nothing undoes.
    NotUndoable = "not-undoable", "add `compensate`";
    /// An expression does not compile or exceeds its bounds.
    BadExpression = "bad-expression", "correct the expression";
    /// An expression names something that does not exist where it stands.
    UnknownReference = "unknown-reference", "name something that exists here";
    /// An expression uses the reply of a step that can't have run before it.
    NotYetRun = "not-yet-run", "move the block behind it, or use what is known before";
    /// An expression uses the reply of a step that may have been skipped.
    MayBeSkipped = "may-be-skipped", "ask first with `has(…)`";
    /// Not a JSON Schema.
    BadSchema = "bad-schema", "correct the schema; its dialect is JSON Schema 2020-12";
    /// A pivot where none can be.
    BadPivot = "bad-pivot", "put `pivot: true` on one block of the root sequence";
    /// Something that may fail stands where there is no way back.
    AfterPivot = "after-pivot", "move the block before the pivot";
    /// A loop without an end.
    UnboundedLoop = "unbounded-loop", "add `at_most`";
    /// A wait without an end.
    UnboundedWait = "unbounded-wait", "add `timeout`";
    /// A deadline that can't be met, or never comes.
    Deadline = "deadline", "give the saga more time, or this less";
    /// A reservation that may lapse before the saga reaches its pivot.
    Lease = "lease", "give the saga a shorter `timeout`";
    /// Not a schedule, or one that never comes.
    BadSchedule = "bad-schedule", "write five fields as cron has them, as in `0 9 1 * *`";
    /// A block runs a saga that no file defines.
    UnknownSaga = "unknown-saga", "correct the name, or add the definition";
    /// A saga runs itself, or sagas run one another too deeply.
    RecursiveSaga = "recursive-saga", "let another saga do this part";
    /// We failed, not the file.
    Internal = "internal", "report it";
}

impl Rule {
    /// Whether what breaks it can still be read as it was meant, and be run for better or worse.
    fn is_judgement(self) -> bool {
        matches!(
            self,
            Self::NotUndoable
                | Self::UnknownReference
                | Self::NotYetRun
                | Self::MayBeSkipped
                | Self::AfterPivot
                | Self::UnboundedWait
                | Self::Deadline
                | Self::Lease
                | Self::BadSchedule
                | Self::UnknownSaga
                | Self::RecursiveSaga
        )
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            code,
            message,
            ..
        } = self;
        write!(f, "{file}:{line}:{column}: [{code}] {message}")
    }
}

impl fmt::Display for Problems {
    /// Each problem with its source line, a caret under the place, and the fix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let number = problem.line.to_string();
            let margin = " ".repeat(number.len());
            writeln!(f, "{problem}")?;
            if !problem.excerpt.is_empty() {
                writeln!(f, "{margin} |")?;
                writeln!(f, "{number} | {}", problem.excerpt)?;
                writeln!(f, "{margin} | {}^", " ".repeat(problem.caret))?;
            }
            writeln!(f, "{margin} = fix: {}", problem.fix)?;
        }
        Ok(())
    }
}

impl Problems {
    /// The one problem of a file that could not even be read.
    pub fn of_file(file: &str, rule: Rule, message: &str) -> Self {
        let mut findings = Findings::new(file, "");
        findings.add(Position::START, rule, message);
        findings.finish()
    }

    /// The one problem of a file that is text only in its first `valid` bytes.
    pub fn not_text(file: &str, bytes: &[u8], valid: usize) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let before = text.get(..valid).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let at = Position {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            chars: 0,
        };
        let byte = bytes.get(valid).copied().unwrap_or_default();
        let message = format!("the byte 0x{byte:02x} is not text in UTF-8; save the file as UTF-8");
        let mut findings = Findings::new(file, &text);
        findings.add(at, Rule::Unreadable, message);
        findings.finish()
    }
}

/// A place in a file; line and column from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::definition) struct Position {
    pub line: usize,
    pub column: usize,
    /// How many characters stand there; 0 if that is not known.
    pub chars: usize,
}

impl Position {
    /// Where a file begins: for what concerns all of it.
    pub const START: Self = Self {
        line: 1,
        column: 1,
        chars: 0,
    };
}

/// The problems found so far in one file.
pub(in crate::definition) struct Findings<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    problems: Vec<Problem>,
    left_out: usize,
}

impl<'a> Findings<'a> {
    pub fn new(file: &'a str, source: &'a str) -> Self {
        Self {
            file,
            lines: source.lines().collect(),
            problems: Vec::new(),
            left_out: 0,
        }
    }

    /// With what was found in the same file before.
    pub fn after(file: &'a str, source: &'a str, before: Problems) -> Self {
        Self {
            problems: before.0,
            ..Self::new(file, source)
        }
    }

    /// Notes a problem. A message says what is wrong and, after its last `; `, what to do; where
    /// it does not, the rule's own advice is given.
    pub fn add(&mut self, at: Position, code: Rule, message: impl AsRef<str>) {
        if self.problems.len() >= PROBLEMS_MAX {
            self.left_out += 1;
            return;
        }
        let (excerpt, caret) = self.excerpt(at);
        let (message, fix) = split_fix(message.as_ref());
        self.problems.push(Problem {
            file: printable(self.file),
            line: at.line,
            column: at.column,
            end: self.end(at),
            code,
            message: printable(message),
            fix: printable(fix.unwrap_or(code.fix())),
            excerpt,
            caret,
        });
    }

    /// The end of what stands at `at`, if that is all in one line.
    fn end(&self, at: Position) -> Option<End> {
        let line = self.lines.get(at.line - 1)?;
        let column = at.column + at.chars;
        let fits = at.chars > 0 && column - 1 <= line.chars().count();
        fits.then_some(End {
            line: at.line,
            column,
        })
    }

    /// Forgets what is a judgement about a definition that was read all the same.
    pub fn forgive(&mut self) {
        self.problems.retain(|problem| !problem.code.is_judgement());
    }

    /// Whether something is wrong that leaves it open what the file means.
    pub fn obscure(&self) -> bool {
        self.left_out > 0 || self.problems.iter().any(|one| !one.code.is_judgement())
    }

    /// How many problems there are so far.
    pub fn len(&self) -> usize {
        self.problems.len() + self.left_out
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Where in the file `piece` begins, given that it is part of the scalar at `at`; that scalar's
    /// own position if it was escaped or folded, so that the piece is not found as such.
    pub fn locate(&self, at: Position, piece: &str) -> Position {
        let found = self.lines.get(at.line - 1).and_then(|line| {
            let (start, _) = line.char_indices().nth(at.column - 1)?;
            let offset = line[start..].find(piece)?;
            Some(at.column + line[start..start + offset].chars().count())
        });
        found.map_or(at, |column| Position {
            line: at.line,
            column,
            chars: piece.chars().count(),
        })
    }

    /// All problems in the order of the file.
    pub fn finish(mut self) -> Problems {
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
        if self.left_out > 0
            && let Some(last) = self.problems.last_mut()
        {
            let more = format!(" (and {} more problems after this one)", self.left_out);
            last.message.push_str(&more);
        }
        Problems(self.problems)
    }

    /// The line at `at`, shortened to what surrounds the column, and the caret's place in it.
    fn excerpt(&self, at: Position) -> (String, usize) {
        let Some(line) = self.lines.get(at.line - 1) else {
            return (String::new(), 0);
        };
        let caret = at.column.saturating_sub(1);
        let skipped = caret.saturating_sub(EXCERPT_CHARS_MAX / 2);
        let shown: String = line
            .chars()
            .skip(skipped)
            .take(EXCERPT_CHARS_MAX)
            .map(|c| match c {
                '\t' => ' ',
                c if c.is_control() => char::REPLACEMENT_CHARACTER,
                c => c,
            })
            .collect();
        (shown, caret - skipped)
    }
}

/// What is wrong and what to do: the text around the last `; ` that does not stand in backticks.
fn split_fix(message: &str) -> (&str, Option<&str>) {
    let mut quoted = false;
    for (index, c) in message.char_indices().rev() {
        quoted ^= c == '`';
        if c == ';' && !quoted && message[index + 1..].starts_with(' ') {
            return (&message[..index], Some(&message[index + 2..]));
        }
    }
    (message, None)
}

/// `text` without characters that steer a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

/// At most `chars_max` characters of `text`, with an ellipsis if there were more.
pub(in crate::definition) fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// `, did you mean …?` if one of `known` is close to `written`.
pub(in crate::definition) fn did_you_mean<'k>(
    written: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> String {
    // Comparing is quadratic, and nothing long is a slip of the pen.
    if written.len() > crate::id::NAME_BYTES_MAX {
        return String::new();
    }
    let folded = written.to_lowercase();
    let tolerance = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&folded, name), name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}
