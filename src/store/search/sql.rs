//! Searches as SQL: what both databases say in the same words.
//!
//! Only the conditions that are asked for are written, so that each search has the plan it deserves. A
//! label is joined by (name, value, saga), whose order is that of the page; several statuses are
//! searched one by one, each in the order of its index, for an index of (status, id) has no order over
//! two of them.

use sqlx::{Database, Encode, QueryBuilder, Type};
use uuid::Uuid;

use super::{Cursor, PAGE_ROWS_MAX, SearchOrder, SearchPage};
use crate::id::Timestamp;
use crate::store::filter::{Filter, LabelCondition, Relation, Span};
use crate::store::head::head_columns;
use crate::store::rows;

/// Where the databases differ.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Dialect {
    /// The function that finds a text (second) in another one (first).
    pub(in crate::store) position: &'static str,
    /// A condition that holds for every name, where it makes an index of (name, …) usable.
    pub(in crate::store) of_any_name: &'static str,
    /// The id of the saga whose trouble is the newest, of a group.
    pub(in crate::store) newest: &'static str,
}

/// A statement that is being written.
pub(in crate::store) struct Writer<D: Database> {
    pub(in crate::store) query: QueryBuilder<D>,
    dialect: Dialect,
}

impl<D: Database> Writer<D>
where
    String: for<'q> Encode<'q, D> + Type<D>,
    i64: for<'q> Encode<'q, D> + Type<D>,
    Uuid: for<'q> Encode<'q, D> + Type<D>,
{
    /// An empty one.
    pub(in crate::store) fn new(dialect: Dialect) -> Self {
        Self {
            query: QueryBuilder::new(""),
            dialect,
        }
    }

    /// Whole rows of a page.
    pub(in crate::store) fn page(mut self, filter: &Filter, page: &SearchPage) -> Self {
        let limit = rows::limit(page.limit.min(PAGE_ROWS_MAX));
        let several = filter.statuses.len() > 1 && page.order == SearchOrder::Started;
        self.query.push(concat!("SELECT ", head_columns!()));
        if several {
            self.query.push(" FROM (");
            for (number, status) in filter.statuses.iter().enumerate() {
                if number > 0 {
                    self.query.push(" UNION ALL ");
                }
                let one = Filter {
                    statuses: vec![*status],
                    ..filter.clone()
                };
                self.query.push("SELECT id FROM (SELECT sagas.id");
                self.where_it_fits(&one);
                self.rest_of_page(page, limit);
                self.query.push(format!(") AS part{number}"));
            }
            self.query
                .push(") AS found JOIN sagas ON sagas.id = found.id WHERE true");
        } else {
            self.where_it_fits(filter);
        }
        self.rest_of_page(page, limit);
        self
    }

    /// A number of rows, no more than `most`.
    pub(in crate::store) fn count(mut self, filter: &Filter, most: i64) -> Self {
        self.query.push("SELECT count(*) FROM (SELECT 1");
        self.where_it_fits(filter);
        self.query.push(" LIMIT ").push_bind(most);
        self.query.push(") AS counted");
        self
    }

    /// Groups of the first `most` rows: cause, count, oldest, newest, of the last hour, of the hour
    /// before, the newest saga.
    pub(in crate::store) fn groups(mut self, filter: &Filter, hours: Hours, most: i64) -> Self {
        let Hours { ago, before } = hours;
        self.query.push(
            "SELECT cause, count(*), min(cause_since), max(cause_since),
                sum(CASE WHEN cause_since >= ",
        );
        self.query.push_bind(ago.as_micros());
        self.query
            .push(" THEN 1 ELSE 0 END), sum(CASE WHEN cause_since >= ");
        self.query.push_bind(before.as_micros());
        self.query
            .push(" AND cause_since < ")
            .push_bind(ago.as_micros());
        self.query.push(" THEN 1 ELSE 0 END), ");
        self.query.push(self.dialect.newest);
        self.query
            .push(" FROM (SELECT sagas.id, sagas.cause, sagas.cause_since");
        self.where_it_fits(filter);
        self.query.push(" AND sagas.cause IS NOT NULL LIMIT ");
        self.query.push_bind(most);
        self.query.push(") AS found GROUP BY cause");
        self
    }

    fn where_it_fits(&mut self, filter: &Filter) {
        self.query.push(" FROM sagas");
        for (number, label) in filter.labels.iter().enumerate() {
            self.join_label(number, label);
        }
        self.query.push(" WHERE true");
        self.identity(filter);
        self.times(filter);
        self.trouble(filter);
    }

    fn join_label(&mut self, number: usize, label: &LabelCondition) {
        let name = format!("label{number}");
        let query = &mut self.query;
        query.push(format!(
            " JOIN saga_labels AS {name} ON {name}.saga_id = sagas.id AND {name}.name = "
        ));
        query.push_bind(label.name.clone());
        let values = label.values();
        match (&values[..], label.bound()) {
            ([value], Some(bound)) => {
                let relation = label.relation.as_str();
                query.push(format!(" AND {name}.value {relation} "));
                query.push_bind(value.clone());
                let less = matches!(label.relation, Relation::Less | Relation::LessOrEqual);
                let end = if less { ">=" } else { "<" };
                query.push(format!(" AND {name}.value {end} "));
                query.push_bind(bound);
            }
            ([value], None) => {
                query.push(format!(" AND {name}.value = "));
                query.push_bind(value.clone());
            }
            _ => {
                query.push(format!(" AND {name}.value"));
                self.among(values);
            }
        }
    }

    fn identity(&mut self, filter: &Filter) {
        if let Some(name) = &filter.name {
            self.query.push(" AND sagas.name = ");
            self.query.push_bind(rows::readable(name));
        }
        if !filter.versions.is_empty() {
            self.query.push(" AND sagas.version");
            let versions = filter.versions.iter();
            self.among(versions.map(|version| i64::from(*version)).collect());
        }
        match &filter.statuses[..] {
            [] => {}
            [status] => {
                self.query.push(" AND sagas.status = ");
                self.query.push_bind(status.as_str().to_owned());
            }
            statuses => {
                self.query.push(" AND sagas.status");
                let statuses = statuses.iter().map(|status| status.as_str().to_owned());
                self.among(statuses.collect());
            }
        }
        if !filter.ids.is_empty() {
            self.query.push(" AND sagas.id");
            self.among(filter.ids.iter().map(|id| id.0).collect());
        }
        if let Some(parent) = filter.parent {
            self.query.push(" AND sagas.parent = ").push_bind(parent.0);
        }
        if (filter.key.is_some() || filter.key_prefix.is_some()) && filter.name.is_none() {
            self.query.push(self.dialect.of_any_name);
        }
        if let Some(key) = &filter.key {
            self.query
                .push(" AND NOT sagas.superseded AND sagas.key = ");
            self.query.push_bind(rows::readable(key));
        }
        if let Some(prefix) = &filter.key_prefix {
            self.query
                .push(" AND NOT sagas.superseded AND sagas.key >= ");
            self.query.push_bind(rows::readable(prefix));
            if let Some(end) = end_of_prefix(&rows::readable(prefix)) {
                self.query.push(" AND sagas.key < ").push_bind(end);
            }
        }
    }

    fn times(&mut self, filter: &Filter) {
        for (column, Span { since, until }) in [
            ("sagas.started_at", filter.started),
            ("sagas.ended_at", filter.ended),
            ("sagas.updated_at", filter.updated),
        ] {
            for (relation, at) in [(">=", since), ("<", until)] {
                if let Some(at) = at {
                    self.query.push(format!(" AND {column} {relation} "));
                    self.query.push_bind(at.as_micros());
                }
            }
        }
    }

    fn trouble(&mut self, filter: &Filter) {
        if let Some(cause) = &filter.cause {
            self.query.push(" AND sagas.cause = ");
            self.query.push_bind(rows::readable(cause));
        }
        if filter.in_trouble {
            self.query.push(" AND sagas.cause IS NOT NULL");
        }
        if filter.step.is_some() || filter.phase.is_some() {
            self.query.push(" AND (");
            self.spot("sagas.awaits", filter);
            self.query.push(" OR ");
            self.spot("sagas.cause_step", filter);
            self.query.push(")");
        }
        if let Some(reason) = &filter.reason {
            let position = self.dialect.position;
            self.query.push(format!(" AND ({position}(sagas.reason, "));
            self.query.push_bind(rows::readable(reason));
            self.query
                .push(format!(") > 0 OR {position}(sagas.cause_reason, "));
            self.query.push_bind(rows::readable(reason));
            self.query.push(") > 0)");
        }
    }

    /// Whether a column names the wanted step and phase.
    fn spot(&mut self, column: &str, filter: &Filter) {
        self.query.push("(true");
        if let Some(step) = &filter.step {
            let beginnings = step.beginnings();
            // All are of the same length.
            let length = beginnings.first().map_or(0, |text| text.chars().count());
            self.query
                .push(format!(" AND substr({column}, 1, {length})"));
            self.among(beginnings);
        }
        if let Some(phase) = filter.phase {
            let position = self.dialect.position;
            self.query.push(format!(" AND {position}({column}, "));
            self.query.push_bind(format!("/{phase}"));
            self.query.push(") > 0");
        }
        self.query.push(")");
    }

    fn rest_of_page(&mut self, page: &SearchPage, limit: i64) {
        let (beyond, direction) = if page.ascending {
            (">", "")
        } else {
            ("<", " DESC")
        };
        let query = &mut self.query;
        if let Some(below) = page.below {
            query.push(" AND sagas.id < ").push_bind(below.0);
        }
        match page.order {
            SearchOrder::Started => {}
            SearchOrder::Ended => {
                query.push(" AND sagas.ended_at IS NOT NULL");
            }
            SearchOrder::Key => {
                query.push(" AND NOT sagas.superseded");
            }
        }
        match &page.after {
            None => {}
            Some(Cursor::Started(id)) => {
                query.push(format!(" AND sagas.id {beyond} "));
                query.push_bind(id.0);
            }
            Some(Cursor::Ended(at, id)) => {
                query.push(format!(" AND (sagas.ended_at, sagas.id) {beyond} ("));
                query.push_bind(at.as_micros()).push(", ");
                query.push_bind(id.0).push(")");
            }
            Some(Cursor::Key(key)) => {
                query.push(format!(" AND sagas.key {beyond} "));
                query.push_bind(rows::readable(key));
            }
        }
        query.push(match page.order {
            SearchOrder::Started => format!(" ORDER BY sagas.id{direction}"),
            SearchOrder::Ended => {
                format!(" ORDER BY sagas.ended_at{direction}, sagas.id{direction}")
            }
            SearchOrder::Key => format!(" ORDER BY sagas.key{direction}"),
        });
        query.push(" LIMIT ").push_bind(limit);
    }

    fn among<T>(&mut self, values: Vec<T>)
    where
        T: for<'q> Encode<'q, D> + Type<D> + Send + 'static,
    {
        self.query.push(" IN (");
        for (number, value) in values.into_iter().enumerate() {
            if number > 0 {
                self.query.push(", ");
            }
            self.query.push_bind(value);
        }
        self.query.push(")");
    }
}

/// The last hour, and the one before it.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Hours {
    pub(in crate::store) ago: Timestamp,
    pub(in crate::store) before: Timestamp,
}

impl Hours {
    pub(in crate::store) fn until(now: Timestamp) -> Self {
        let hour = std::time::Duration::from_hours(1);
        Self {
            ago: now.before(hour),
            before: now.before(2 * hour),
        }
    }
}

/// The first text behind all that begin so; `None` if there is none.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Between these are no characters.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}
