//! The prepared statements. Writes are absolute and stamped, so they may be repeated; those of the archive are conditional.

use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::statement::prepared::PreparedStatement;

use super::error::Failure;
use super::row::COLUMNS;
use super::session;
use crate::store::{StoreError, TOUCHED_TTL_S};

/// So many rows come in one answer.
const PAGE_ROWS: i32 = 5_000;

/// One of each.
pub(super) struct Statements {
    pub(super) write_minute: PreparedStatement,
    pub(super) write_rollup: PreparedStatement,
    pub(super) write_by_bucket: PreparedStatement,
    pub(super) read_minutes: PreparedStatement,
    pub(super) read_rollups: PreparedStatement,
    pub(super) slice_minutes: PreparedStatement,
    pub(super) slice_rollups: PreparedStatement,
    pub(super) page_bucket: PreparedStatement,
    pub(super) read_checkpoints: PreparedStatement,
    pub(super) write_checkpoint: PreparedStatement,
    pub(super) read_touched: PreparedStatement,
    pub(super) write_touched: PreparedStatement,
    pub(super) read_video: PreparedStatement,
    pub(super) write_video: PreparedStatement,
    pub(super) read_space: PreparedStatement,
    pub(super) write_space: PreparedStatement,
    pub(super) read_import: PreparedStatement,
    pub(super) write_import: PreparedStatement,
    pub(super) read_keys: PreparedStatement,
    pub(super) write_key: PreparedStatement,
    pub(super) read_archive: PreparedStatement,
    pub(super) begin_archive: PreparedStatement,
    pub(super) change_archive: PreparedStatement,
    pub(super) add_archive_file: PreparedStatement,
    pub(super) drop_archive_file: PreparedStatement,
    pub(super) create_adjustment: PreparedStatement,
    pub(super) place_adjustment: PreparedStatement,
    pub(super) read_adjustment: PreparedStatement,
    pub(super) read_adjustment_serially: PreparedStatement,
    pub(super) list_adjustments: PreparedStatement,
    pub(super) write_adjustment_part: PreparedStatement,
    pub(super) read_adjustment_part: PreparedStatement,
    pub(super) take_adjustment_part: PreparedStatement,
    pub(super) leave_adjustment_part: PreparedStatement,
    pub(super) read_adjustment_ends: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(session: &Session, keyspace: &str, datacenter: Option<&str>) -> Result<Self, StoreError> {
        let prepare = async |cql: String| {
            let mut statement = Statement::new(cql).with_page_size(PAGE_ROWS);
            statement.set_is_idempotent(true);
            session.prepare(statement).await.map_err(|error| Failure::from(error).error)
        };
        // Not to be sent twice at once: the second would be told that the condition does not hold.
        let prepare_change = async |cql: String| session.prepare(Statement::new(cql)).await.map_err(|error| Failure::from(error).error);
        let minutes = format!("SELECT minute, {COLUMNS} FROM {keyspace}.views_by_minute WHERE dimension = ? AND entity = ? AND day = ?");
        let rollups = format!("SELECT tier, through, bucket, {COLUMNS} FROM {keyspace}.views_rollup WHERE dimension = ? AND entity = ?");
        let entry = format!("SELECT entry FROM {keyspace}.adjustments WHERE log = ? AND id = ?");
        let mut read_adjustment_serially = prepare(entry.clone()).await?;
        read_adjustment_serially.set_consistency(session::serial_read(datacenter));
        let end = async |column: &str| {
            prepare(format!("INSERT INTO {keyspace}.adjustment_parts (log, plan, part, {column}) VALUES (?, ?, ?, ?)")).await
        };
        Ok(Self {
            write_minute: prepare(format!(
                "INSERT INTO {keyspace}.views_by_minute (dimension, entity, day, minute, source, gross, valid, engaged, version, \
                 mark, since_gross, since_valid, since_engaged) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
            ))
            .await?,
            write_rollup: prepare(format!(
                "INSERT INTO {keyspace}.views_rollup (dimension, entity, tier, bucket, source, gross, valid, engaged, version, through, \
                 mark, since_gross, since_valid, since_engaged) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
            ))
            .await?,
            write_by_bucket: prepare(write_by_bucket(keyspace)).await?,
            read_minutes: prepare(format!("{minutes} AND (minute, source) IN ?")).await?,
            read_rollups: prepare(format!("{rollups} AND (tier, bucket, source) IN ?")).await?,
            slice_minutes: prepare(format!("{minutes} AND minute >= ? AND minute < ?")).await?,
            slice_rollups: prepare(format!("{rollups} AND tier = ? AND bucket >= ? AND bucket < ?")).await?,
            page_bucket: prepare(format!(
                "SELECT entity, through, bucket, {COLUMNS} FROM {keyspace}.views_by_bucket \
                 WHERE dimension = ? AND tier = ? AND bucket = ? AND source = ? AND entity > ? LIMIT ?"
            ))
            .await?,
            read_checkpoints: prepare(format!(
                "SELECT source, next_offset, warm_from, clock, append_time, closed, adjustments, tally, settings, \
                 WRITETIME(next_offset) AS stamp FROM {keyspace}.checkpoints WHERE log = ?"
            ))
            .await?,
            write_checkpoint: prepare(format!(
                "INSERT INTO {keyspace}.checkpoints (log, source, next_offset, warm_from, clock, append_time, closed, adjustments, \
                 tally, settings) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
            ))
            .await?,
            read_touched: prepare(format!("SELECT source, day, version, WRITETIME(version) FROM {keyspace}.touched WHERE log = ?")).await?,
            write_touched: prepare(format!(
                "INSERT INTO {keyspace}.touched (log, source, day, version) VALUES (?, ?, ?, ?) USING TIMESTAMP ? AND TTL {TOUCHED_TTL_S}"
            ))
            .await?,
            read_space: prepare(format!(
                "SELECT name, WRITETIME(name), WRITETIME(updated_at) FROM {keyspace}.spaces WHERE space_id = ?"
            ))
            .await?,
            write_space: prepare(format!("INSERT INTO {keyspace}.spaces (space_id, name, updated_at) VALUES (?, ?, ?)")).await?,
            read_video: prepare(format!(
                "SELECT title, WRITETIME(title) AS title_at, space_id, WRITETIME(space_id) AS space_id_at, space_name, \
                 WRITETIME(space_name) AS space_name_at, published_at, WRITETIME(published_at) AS published_at_at, \
                 WRITETIME(updated_at) AS updated_at FROM {keyspace}.videos WHERE video_id = ?"
            ))
            .await?,
            write_video: prepare(format!(
                "INSERT INTO {keyspace}.videos (video_id, title, space_id, space_name, published_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)"
            ))
            .await?,
            read_import: prepare(format!("SELECT file, mapping, events, ends, complete FROM {keyspace}.imports WHERE content = ?")).await?,
            write_import: prepare(format!(
                "INSERT INTO {keyspace}.imports (content, file, mapping, events, ends, complete) VALUES (?, ?, ?, ?, ?, ?)"
            ))
            .await?,
            read_keys: prepare(format!(
                "SELECT id, name, hash, scopes, public, origins, events_per_second, created_at, expires_at, revoked_at \
                 FROM {keyspace}.keys WHERE log = ?"
            ))
            .await?,
            write_key: prepare(format!(
                "INSERT INTO {keyspace}.keys (log, id, name, hash, scopes, public, origins, events_per_second, created_at, expires_at, \
                 revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ))
            .await?,
            read_archive: {
                let mut read = prepare(format!("SELECT head, file FROM {keyspace}.archive WHERE log = ? AND source = ?")).await?;
                // A conditional write that is under way is ended first.
                read.set_consistency(session::serial_read(datacenter));
                read
            },
            begin_archive: prepare_change(format!(
                "UPDATE {keyspace}.archive SET version = ?, head = ? WHERE log = ? AND source = ? IF version = NULL"
            ))
            .await?,
            change_archive: prepare_change(format!(
                "UPDATE {keyspace}.archive SET version = ?, head = ? WHERE log = ? AND source = ? IF version = ?"
            ))
            .await?,
            add_archive_file: prepare_change(format!(
                "INSERT INTO {keyspace}.archive (log, source, day, from_offset, hash, file) VALUES (?, ?, ?, ?, ?, ?)"
            ))
            .await?,
            drop_archive_file: prepare_change(format!(
                "DELETE FROM {keyspace}.archive WHERE log = ? AND source = ? AND day = ? AND from_offset = ? AND hash = ?"
            ))
            .await?,
            create_adjustment: prepare(format!("INSERT INTO {keyspace}.adjustments (log, id, entry) VALUES (?, ?, ?) IF NOT EXISTS"))
                .await?,
            place_adjustment: prepare(format!("INSERT INTO {keyspace}.adjustments_by_time (log, created_at, id) VALUES (?, ?, ?)")).await?,
            read_adjustment: prepare(entry).await?,
            read_adjustment_serially,
            list_adjustments: prepare(format!(
                "SELECT created_at, id FROM {keyspace}.adjustments_by_time WHERE log = ? AND (created_at, id) < (?, ?) LIMIT ?"
            ))
            .await?,
            write_adjustment_part: end("changes").await?,
            read_adjustment_part: prepare(format!(
                "SELECT changes FROM {keyspace}.adjustment_parts WHERE log = ? AND plan = ? AND part = ?"
            ))
            .await?,
            take_adjustment_part: end("taken").await?,
            leave_adjustment_part: end("left_out").await?,
            read_adjustment_ends: prepare(format!(
                "SELECT part, taken, left_out FROM {keyspace}.adjustment_parts WHERE log = ? AND plan = ?"
            ))
            .await?,
        })
    }
}

/// The write of a row by bucket: as `write_rollup`, so that the same values are bound.
fn write_by_bucket(keyspace: &str) -> String {
    format!(
        "INSERT INTO {keyspace}.views_by_bucket (dimension, entity, tier, bucket, source, gross, valid, engaged, version, through, \
         mark, since_gross, since_valid, since_engaged) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
    )
}

/// That write alone: a keyspace that is being migrated does not have all tables yet.
pub(super) async fn prepare_write_by_bucket(session: &Session, keyspace: &str) -> Result<PreparedStatement, StoreError> {
    let mut statement = Statement::new(write_by_bucket(keyspace)).with_page_size(PAGE_ROWS);
    statement.set_is_idempotent(true);
    session.prepare(statement).await.map_err(|error| Failure::from(error).error)
}
