//! What a keyspace says of itself: its schema, its log, its data centre, its rules; and whether that is what we came for.

use schemas::{FoldSettings, LogId};
use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::{Consistency, Statement};

use super::error::Failure;
use super::options::CassandraOptions;
use super::schema;
use crate::store::StoreError;

/// The key of the one row.
pub(super) const ID: &str = "keyspace";

/// The row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) schema_version: i32,
    pub(super) log_id: LogId,
    pub(super) datacenter: Option<String>,
    pub(super) settings: FoldSettings,
}

#[derive(DeserializeRow)]
struct Stored {
    schema_version: Option<i32>,
    log_id: Option<String>,
    datacenter: Option<String>,
    settings: Option<String>,
}

/// Reads the row; `None` if no migration has written it, or there is no such table.
pub(super) async fn read(session: &Session, options: &CassandraOptions, consistency: Consistency) -> Result<Option<Meta>, StoreError> {
    let keyspace = &options.keyspace;
    let mut statement =
        Statement::new(format!("SELECT schema_version, log_id, datacenter, settings FROM {keyspace}.meta WHERE id = '{ID}'"));
    statement.set_consistency(consistency);
    statement.set_is_idempotent(true);
    let result = match session.query_unpaged(statement, ()).await {
        Ok(result) => result,
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))) => return Ok(None),
        Err(error) => return Err(Failure::from(error).error),
    };
    let what = format!("table {keyspace}.meta");
    let damaged = |error: &dyn std::fmt::Display| super::error::damaged(&what, error);
    let rows = result.into_rows_result().map_err(|error| damaged(&error))?;
    let Some(stored) = rows.maybe_first_row::<Stored>().map_err(|error| damaged(&error))? else { return Ok(None) };
    let Stored { schema_version: Some(schema_version), log_id: Some(log_id), datacenter, settings: Some(settings) } = stored else {
        return Err(damaged(&"its row is not whole"));
    };
    // Settings of a newer version need not be readable for that to be said.
    check_version(options, schema_version)?;
    let settings =
        serde_json::from_str(&settings).map_err(|error| damaged(&format!("settings: {error}; were they written by a newer tallymark?")))?;
    Ok(Some(Meta { schema_version, log_id: LogId(log_id.into()), datacenter, settings }))
}

fn check_version(options: &CassandraOptions, version: i32) -> Result<(), StoreError> {
    if version > schema::VERSION {
        let known = schema::VERSION;
        let detail = format!("{} has schema version {version} and this program knows {known}; run a newer tallymark", options.place());
        return Err(StoreError::Mismatch(detail));
    }
    Ok(())
}

impl Meta {
    /// Whether the keyspace is for this log, data centre and settings.
    ///
    /// # Errors
    /// What differs, and what to do.
    pub(super) fn check(&self, options: &CassandraOptions, log_id: &LogId, settings: &FoldSettings) -> Result<(), StoreError> {
        if self.log_id != *log_id {
            return Err(StoreError::OtherLog { stored: self.log_id.clone(), asked: log_id.clone() });
        }
        let place = options.place();
        if options.datacenter.is_some() && options.datacenter != self.datacenter {
            let asked = options.datacenter.as_deref().unwrap_or_default();
            let used = match &self.datacenter {
                Some(stored) => format!("is written and read in data centre {stored}"),
                None => "is written and read by a quorum of all data centres".into(),
            };
            let what_to_do = "all its writers and readers must do the same: set cassandra_datacenter so, or leave it out";
            return Err(StoreError::Mismatch(format!("{place} {used}, and not in {asked} (cassandra_datacenter); {what_to_do}")));
        }
        let differences = differences(&self.settings, settings);
        if differences.is_empty() {
            return Ok(());
        }
        let what_to_do = "a keyspace counts by one set of rules: set these as they were, or count into a keyspace of its own";
        Err(StoreError::Mismatch(format!("{place} counts by other rules: {}; {what_to_do}", differences.join(", "))))
    }
}

/// The settings that differ: their names, what is stored, what is asked for.
fn differences(stored: &FoldSettings, asked: &FoldSettings) -> Vec<String> {
    let fields = |settings: &FoldSettings| match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let asked = fields(asked);
    fields(stored)
        .iter()
        .filter_map(|(name, stored)| {
            let asked = asked.get(name)?;
            (stored != asked).then(|| format!("{name} is {stored} there and {asked} here"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn meta() -> Meta {
        Meta { schema_version: 1, log_id: LogId("log".into()), datacenter: Some("east".into()), settings: FoldSettings::default() }
    }

    fn refusal(options: &CassandraOptions, log: &str, settings: &FoldSettings) -> String {
        meta().check(options, &LogId(log.into()), settings).unwrap_err().to_string()
    }

    #[test]
    fn the_same_is_taken_and_every_difference_is_named() {
        let (options, settings) = (CassandraOptions::default(), FoldSettings::default());
        meta().check(&options, &LogId("log".into()), &settings).unwrap();
        let east = CassandraOptions { datacenter: Some("east".into()), ..options.clone() };
        meta().check(&east, &LogId("log".into()), &settings).unwrap();

        let west = CassandraOptions { datacenter: Some("west".into()), ..options.clone() };
        let refused = refusal(&west, "log", &settings);
        assert!(refused.contains("east") && refused.contains("west"), "{refused}");
        let refused = refusal(&options, "other", &settings);
        assert!(refused.contains("belongs to log log, not to other"), "{refused}");
        let refused = refusal(&options, "log", &FoldSettings { grace_ms: 1, spread: 7, ..settings });
        assert!(refused.contains("grace_ms is 10000 there and 1 here") && refused.contains("spread is 1 there and 7 here"), "{refused}");
        assert!(!refused.contains("max_skew"), "{refused}");
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let options = CassandraOptions::default();
        assert!(check_version(&options, schema::VERSION).is_ok());
        assert!(check_version(&options, schema::VERSION + 1).unwrap_err().to_string().contains("run a newer tallymark"));
    }
}
