//! Flags that say which sagas: those of the HTTP API's parameters, by the same names.

use clap::Args;

use super::exit::Failure;
use crate::environment::{Environment, TokioEnvironment};
use crate::id::Timestamp;
use crate::store::Filter;

/// Which sagas; everything that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct FilterArguments {
    /// Only of this definition.
    #[arg(long, value_parser = value_of("name"))]
    name: Option<String>,
    /// Only of this version of it; several with commas.
    #[arg(long, value_name = "N", value_parser = value_of("version"))]
    version: Vec<String>,
    /// Only with this status: running, confirming, compensating, suspended, completed, compensated; live
    /// or ended for all of these; several with commas.
    #[arg(long, value_parser = value_of("status"))]
    status: Vec<String>,
    /// Only with this key.
    #[arg(long, value_parser = value_of("key"))]
    key: Option<String>,
    /// Only with a key that begins so.
    #[arg(long, value_name = "TEXT", value_parser = value_of("key_prefix"))]
    key_prefix: Option<String>,
    /// Only started at this time or later: 2026-01-31T12:00:00Z, or 2h for two hours ago.
    #[arg(long, value_name = "TIME", value_parser = value_of("started_since"))]
    started_since: Option<String>,
    /// Only started before this time.
    #[arg(long, value_name = "TIME", value_parser = value_of("started_until"))]
    started_until: Option<String>,
    /// Only ended at this time or later.
    #[arg(long, value_name = "TIME", value_parser = value_of("ended_since"))]
    ended_since: Option<String>,
    /// Only ended before this time.
    #[arg(long, value_name = "TIME", value_parser = value_of("ended_until"))]
    ended_until: Option<String>,
    /// Only those to which something has happened at this time or later.
    #[arg(long, value_name = "TIME", value_parser = value_of("updated_since"))]
    updated_since: Option<String>,
    /// Only those to which nothing has happened since this time.
    #[arg(long, value_name = "TIME", value_parser = value_of("updated_until"))]
    updated_until: Option<String>,
    /// Only started longer ago: 10m, 2h, 3d.
    #[arg(long, value_name = "AGE", value_parser = value_of("older_than"))]
    older_than: Option<String>,
    /// Only started less long ago.
    #[arg(long, value_name = "AGE", value_parser = value_of("younger_than"))]
    younger_than: Option<String>,
    /// Only those that wait for this step or failed at it: `stock`, or `stock[2]` for one item.
    #[arg(long, value_parser = value_of("step"))]
    step: Option<String>,
    /// The same for its phase: reserve, action, confirm or compensate.
    #[arg(long, value_parser = value_of("phase"))]
    phase: Option<String>,
    /// Only with this text in their reason.
    #[arg(long, value_name = "TEXT", value_parser = value_of("reason"))]
    reason: Option<String>,
    /// Only of this cause, as `groups` names it.
    #[arg(long, value_parser = value_of("cause"))]
    cause: Option<String>,
    /// Only those in whose way something stands, or that did not complete.
    #[arg(long)]
    in_trouble: bool,
    /// Only with this label: customer=alice, amount>=100; several must all hold.
    #[arg(long, value_name = "LABEL", value_parser = value_of("label"))]
    label: Vec<String>,
    /// Only run by this saga.
    #[arg(long, value_name = "ID", value_parser = value_of("parent"))]
    parent: Option<String>,
    /// Only this saga; several with commas.
    #[arg(long = "id", value_name = "ID", value_parser = value_of("id"))]
    ids: Vec<String>,
    /// The same as one text, as in status=suspended&cause=1f00c0ffee00beef.
    #[arg(long = "where", value_name = "FILTER", value_parser = whole)]
    text: Vec<String>,
}

impl FilterArguments {
    /// The filter that they make.
    pub(super) fn filter(&self, now: Timestamp) -> Result<Filter, Failure> {
        let mut filter = Filter::default();
        let one = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let several = |name: &'static str, values: &[String]| {
            let values = values.iter().cloned();
            values.map(|value| (name, value)).collect::<Vec<_>>()
        };
        let mut all: Vec<(&str, String)> = Vec::new();
        all.extend(one("name", &self.name));
        all.extend(several("version", &self.version));
        all.extend(several("status", &self.status));
        all.extend(one("key", &self.key));
        all.extend(one("key_prefix", &self.key_prefix));
        all.extend(one("started_since", &self.started_since));
        all.extend(one("started_until", &self.started_until));
        all.extend(one("ended_since", &self.ended_since));
        all.extend(one("ended_until", &self.ended_until));
        all.extend(one("updated_since", &self.updated_since));
        all.extend(one("updated_until", &self.updated_until));
        all.extend(one("older_than", &self.older_than));
        all.extend(one("younger_than", &self.younger_than));
        all.extend(one("step", &self.step));
        all.extend(one("phase", &self.phase));
        all.extend(one("reason", &self.reason));
        all.extend(one("cause", &self.cause));
        all.extend(self.in_trouble.then(|| ("in_trouble", "true".to_owned())));
        all.extend(several("label", &self.label));
        all.extend(one("parent", &self.parent));
        all.extend(several("id", &self.ids));
        let texts = self.text.iter();
        let written = texts.flat_map(|text| form_urlencoded::parse(text.as_bytes()));
        let written = written.map(|(name, value)| (name.into_owned(), value.into_owned()));
        let all = all
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        for (name, value) in all.chain(written) {
            // Unknown names were refused when the flag was read.
            let set = filter.set(&name, &value, now);
            set.map_err(Failure::problems)?;
        }
        Ok(filter)
    }
}

/// Whether a text can be the value of a parameter. It is kept as text: what it means may depend on the
/// time.
fn value_of(
    name: &'static str,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| {
        let set = Filter::default().set(name, text, TokioEnvironment.now());
        set.map_err(|error| error.to_string())?;
        Ok(text.to_owned())
    }
}

fn whole(text: &str) -> Result<String, String> {
    let read = Filter::read(text, TokioEnvironment.now());
    read.map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
