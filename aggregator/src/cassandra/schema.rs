//! The tables, as steps from one schema version to the next. A step is never changed once it is released: a change is a new step.
//!
//! Dimension and tier are text: what an operator or an export reads should say what it means, and compression takes the few bytes back.
//! A row's stamp is its write timestamp and has no column of its own, so that the two cannot disagree: readers ask for `WRITETIME`.
//! Optional columns (a mark, a title) are left unset when they are absent, never null, which would leave tombstones; what an
//! earlier write left in them is told by its older `WRITETIME`.
//!
//! No table says anything of read repair: Cassandra's default (blocking) is what monotonic reads need, and ScyllaDB does not know the option.
//! Compression is the servers' default, LZ4: a day of minutes is one or two of its chunks.

/// The newest schema that this program knows.
pub(super) const VERSION: i32 = 5;
/// The first that keeps hour and day cells by bucket too.
pub(super) const BY_BUCKET: i32 = 2;

/// What the statements depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flavour {
    /// Cassandra 5 and later: unified compaction.
    unified_compaction: bool,
}

impl Flavour {
    /// Of a server's `release_version`; ScyllaDB calls itself 3.0.8.
    pub(super) fn of(release_version: &str) -> Self {
        let major = release_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        Self { unified_compaction: major.is_some_and(|major| major >= 5) }
    }

    /// Levels: rollup rows are rewritten while their buckets last, and read as ranges.
    const fn rollup_compaction(&self) -> &'static str {
        if self.unified_compaction {
            "{'class': 'UnifiedCompactionStrategy', 'scaling_parameters': 'L10'}"
        } else {
            "{'class': 'LeveledCompactionStrategy'}"
        }
    }
}

/// The keyspace, each row on `replication` nodes of one data centre.
pub(super) fn create_keyspace(keyspace: &str, datacenter: &str, replication: u32) -> String {
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} \
         WITH replication = {{'class': 'NetworkTopologyStrategy', '{}': {replication}}} AND durable_writes = true",
        datacenter.replace('\'', "''")
    )
}

/// What belongs to the whole keyspace: one row, written by migrations alone. It is there before any step.
pub(super) fn create_meta(keyspace: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.meta (
            id text PRIMARY KEY, schema_version int, log_id text, datacenter text, settings text
         ) WITH comment = 'tallymark: which log this keyspace counts, and by which rules'"
    )
}

/// The statements that lead to a version from the one before it; each may be repeated.
pub(super) fn step(to: i32, keyspace: &str, flavour: &Flavour) -> Vec<String> {
    match to {
        1 => tables(keyspace, flavour),
        2 => lists_and_announcements(keyspace, flavour),
        3 => keys(keyspace),
        4 => archive(keyspace),
        5 => adjustments(keyspace),
        _ => Vec::new(),
    }
}

const COUNTS: &str = "gross bigint, valid bigint, engaged bigint, version bigint";
const MARK: &str = "mark bigint, since_gross bigint, since_valid bigint, since_engaged bigint";

fn tables(keyspace: &str, flavour: &Flavour) -> Vec<String> {
    // Nothing is ever deleted: cells go by their time to live alone, which passes on all replicas at once, so their tombstones need to
    // outlive hints (3 h) only. Cells are written near their stamps, so a window's files expire whole.
    let windows = "{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', 'compaction_window_size': 3}";
    let levels = flavour.rollup_compaction();
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.views_by_minute (
                dimension text, entity text, day int, minute int, source int, {COUNTS}, {MARK},
                PRIMARY KEY ((dimension, entity, day), minute, source)
             ) WITH CLUSTERING ORDER BY (minute ASC, source ASC) AND compaction = {windows} AND gc_grace_seconds = 86400
             AND comment = 'counts by minute; day and minute count from 1970'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.views_rollup (
                dimension text, entity text, tier text, bucket int, source int, {COUNTS}, through bigint, {MARK},
                PRIMARY KEY ((dimension, entity), tier, bucket, source)
             ) WITH CLUSTERING ORDER BY (tier ASC, bucket ASC, source ASC) AND compaction = {levels}
             AND comment = 'counts by hour, day and year; bucket is its first minute since 1970, through is Unix ms'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.checkpoints (
                log text, source int, next_offset bigint, warm_from bigint, clock bigint, append_time bigint, closed bigint,
                adjustments bigint, tally text, settings text, PRIMARY KEY ((log), source)
             ) WITH comment = 'how far each source of the log is counted; times are Unix ms'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.videos (
                video_id text PRIMARY KEY, title text, space_id text, space_name text, published_at text, updated_at bigint
             ) WITH comment = 'a field counts if its WRITETIME is that of updated_at (Unix ms)'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.imports (
                content text PRIMARY KEY, file text, mapping text, events bigint, ends frozen<list<bigint>>, complete boolean
             ) WITH comment = 'how far each file, by the hash of its content, is imported'"
        ),
    ]
}

fn lists_and_announcements(keyspace: &str, flavour: &Flavour) -> Vec<String> {
    let levels = flavour.rollup_compaction();
    // Announcements go by their time to live alone, which passes on all replicas at once: nothing can come back when what has expired is
    // forgotten soon. Short windows, so that the files of a window expire whole and a reader, who asks each second, passes few dead rows.
    let windows = "{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'MINUTES', 'compaction_window_size': 10}";
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.views_by_bucket (
                dimension text, tier text, bucket int, source int, entity text, {COUNTS}, through bigint, {MARK},
                PRIMARY KEY ((dimension, tier, bucket, source), entity)
             ) WITH CLUSTERING ORDER BY (entity ASC) AND compaction = {levels}
             AND comment = 'the hour and day rows of views_rollup once more, for lists of the most viewed'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.touched (
                log text, source int, day int, version bigint, PRIMARY KEY ((log), source, day)
             ) WITH CLUSTERING ORDER BY (source ASC, day ASC) AND compaction = {windows} AND gc_grace_seconds = 600
             AND comment = 'days (from 1970) whose counts changed late, for caches; gone after ten minutes; -2147483648 is every day'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.spaces (
                space_id text PRIMARY KEY, name text, updated_at bigint
             ) WITH comment = 'a field counts if its WRITETIME is that of updated_at (Unix ms)'"
        ),
    ]
}

fn keys(keyspace: &str) -> Vec<String> {
    vec![format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.keys (
            log text, id text, name text, hash text, scopes frozen<list<text>>, public boolean, origins frozen<list<text>>,
            events_per_second bigint, created_at bigint, expires_at bigint, revoked_at bigint, PRIMARY KEY ((log), id)
         ) WITH comment = 'who may do what; hash is the SHA-256 of the secret, times are Unix ms'"
    )]
}

fn archive(keyspace: &str) -> Vec<String> {
    vec![format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.archive (
            log text, source int, version bigint static, head text static, day int, from_offset bigint, hash text, file text,
            PRIMARY KEY ((log, source), day, from_offset, hash)
         ) WITH comment = 'the files of the archive (day from 1970) and how far it reaches; changed by conditional writes alone'"
    )]
}

fn adjustments(keyspace: &str) -> Vec<String> {
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.adjustments (
                log text, id text, entry text, PRIMARY KEY ((log, id))
             ) WITH comment = 'counts that people have taken away or added: who, when, why, how much (JSON); the first of a name stays'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.adjustments_by_time (
                log text, created_at bigint, id text, PRIMARY KEY ((log), created_at, id)
             ) WITH CLUSTERING ORDER BY (created_at DESC, id DESC)
             AND comment = 'the names of adjustments by the time (Unix ms) in their entries; one that is not there was never made'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.adjustment_parts (
                log text, plan text, part int, changes text, taken text, left_out text, PRIMARY KEY ((log, plan), part)
             ) WITH CLUSTERING ORDER BY (part ASC)
             AND comment = 'what each record of an adjustment changes and whether it was taken (JSON); taken stands above left_out'"
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_is_what_the_server_has() {
        for (version, unified) in [("5.0.5", true), ("5.0-beta1", true), ("6.0", true), ("4.1.3", false), ("3.0.8", false), ("", false)] {
            assert_eq!(Flavour::of(version).unified_compaction, unified, "{version}");
        }
    }

    #[test]
    fn every_version_has_its_step_and_no_statement_knows_read_repair() {
        for flavour in ["5.0.5", "3.0.8"].map(Flavour::of) {
            for version in 1..=VERSION {
                let statements = step(version, "k", &flavour);
                assert!(!statements.is_empty());
                assert!(statements.iter().all(|cql| cql.contains("IF NOT EXISTS k.") && !cql.contains("read_repair")));
            }
        }
    }

    #[test]
    fn a_data_centre_keeps_its_quotes() {
        assert!(create_keyspace("k", "o'hare", 3).contains("'o''hare': 3"));
    }
}
