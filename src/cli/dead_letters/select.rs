//! Which letters a command means.

use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use crate::cli::exit::Failure;
use crate::dead_letters::{Desk, Selection};
use crate::definition::parse_duration;
use crate::id::SagaId;
use crate::store::dead_letters::{LetterFilter, LetterStatus};

/// Everything that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct FilterArguments {
    /// Taken from this queue, or died first in it.
    #[arg(long)]
    pub(super) queue: Option<String>,
    /// With this AMQP type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// With this AMQP message id.
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Of this cause: a fingerprint from `groups`.
    #[arg(long, value_name = "FINGERPRINT")]
    group: Option<String>,
    /// Of this saga.
    #[arg(long, value_name = "ID")]
    saga: Option<SagaId>,
    /// With this status: open, replaying, replayed, discarded.
    #[arg(long)]
    status: Option<LetterStatus>,
    /// Recorded longer ago than this, such as 2h or 30d.
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Recorded within this time.
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    newer_than: Option<Duration>,
    /// With this text in the reason.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// With this text in the body (reads every body that fits otherwise).
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
}

impl FilterArguments {
    pub(super) fn filter(&self, desk: &Desk) -> LetterFilter {
        let now = desk.environment.now();
        LetterFilter {
            queue: self.queue.clone(),
            kind: self.kind.clone(),
            message_id: self.message_id.clone(),
            fingerprint: self.group.clone(),
            saga: self.saga,
            status: self.status,
            since: self.newer_than.map(|age| now.before(age)),
            until: self.older_than.map(|age| now.before(age)),
            reason: self.reason.clone(),
            body: self.body.clone(),
        }
    }
}

/// Letters by id, or by what they are.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SelectionArguments {
    /// These letters.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// All letters; otherwise say which.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

impl SelectionArguments {
    /// The one letter that is named.
    pub(super) fn one(&self) -> Result<Uuid, Failure> {
        match self.ids[..] {
            [id] if !self.all => Ok(id),
            _ => Err(Failure::problems(
                "name one letter by its id; only `--drop-header` edits many at once",
            )),
        }
    }

    /// The selection; of letters with `status` unless the command line says otherwise.
    pub(super) fn selection(
        self,
        desk: &Desk,
        status: Option<LetterStatus>,
    ) -> Result<Selection, Failure> {
        let mut filter = self.filter.filter(desk);
        let says_nothing = filter == LetterFilter::default();
        if !self.ids.is_empty() {
            if self.all || !says_nothing {
                return Err(Failure::problems(
                    "give ids, or say which letters; not both",
                ));
            }
            return Ok(Selection::Ids(self.ids));
        }
        if says_nothing && !self.all {
            return Err(Failure::problems(
                "which letters? Give ids, or --queue, --group, --type, …, or --all",
            ));
        }
        filter.status = filter.status.or(status);
        Ok(Selection::Filter(Box::new(filter)))
    }
}
