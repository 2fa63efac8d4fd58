//! The columns of an archive file: their types for whoever reads it with other tools, and how each is written.
//!
//! Rows are ordered by (offset, index), so a replay reads straight on; ids are dictionaries, numbers that rise are deltas. An event id
//! is text, not 16 bytes: a UUID costs 19 bytes so in place of 16, and every tool can join by it.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

/// A file has groups of so many rows: what a query skips or takes at once.
const GROUP_ROWS: usize = 131_072;

/// The columns, in order.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let instant = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let always = |name: &str, kind| Field::new(name, kind, false);
    let maybe = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        always("source", DataType::Int32),
        always("offset", DataType::Int64),
        always("index", DataType::Int32),
        always("append_time", instant()),
        always("record", DataType::Utf8),
        always("historical", DataType::Boolean),
        maybe("event_id", DataType::Utf8),
        maybe("video_id", DataType::Utf8),
        maybe("space_id", DataType::Utf8),
        maybe("viewer_id", DataType::Utf8),
        maybe("ts", instant()),
        maybe("kind", DataType::Utf8),
        maybe("watch_ms", DataType::UInt64),
        maybe("client_ip", DataType::Utf8),
        maybe("user_agent", DataType::Utf8),
        maybe("received_at", DataType::Int64),
        maybe("extra", DataType::Utf8),
        maybe("reason", DataType::Utf8),
        maybe("raw", DataType::Binary),
    ]))
});

/// How they are written: a function of nothing, so that the same rows are the same bytes.
pub(super) fn properties() -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by("tallymark".to_owned())
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS));
    for name in ["offset", "index", "append_time", "ts", "watch_ms", "received_at"] {
        properties = plain(properties, name, Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["event_id", "extra", "raw"] {
        // No query asks for a range of these.
        properties = plain(properties, name, Encoding::DELTA_LENGTH_BYTE_ARRAY)
            .set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::None);
    }
    properties.build()
}

type Builder = parquet::file::properties::WriterPropertiesBuilder;

fn plain(properties: Builder, name: &str, encoding: Encoding) -> Builder {
    let column = ColumnPath::from(name);
    properties.set_column_dictionary_enabled(column.clone(), false).set_column_encoding(column, encoding)
}
