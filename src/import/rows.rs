//! The rows of a file, one after the other, each as an event or as the reason why it is none.
//!
//! Rows are numbered from 1 in the order of the file, the unusable ones too, so that a row number means the same in
//! every run. A row without an event id gets `{first 16 digits of the content's hash}:{row number}`.

use std::borrow::Cow;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use csv::{ByteRecord, ReaderBuilder};
use schemas::event::{Event, Kind, Reason, Rejection};
use schemas::id::check_id;
use schemas::json::MIN_NUMERIC_TS;
use schemas::time::Millis;

use super::ImportError;
use super::file::ContentFile;
use super::mapping::{Columns, Field, Mapping};

/// What a whole number in the `ts` column counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum TsUnit {
    /// Unix milliseconds.
    #[default]
    Ms,
    /// Unix seconds.
    S,
}

/// One row.
pub(crate) struct Row<'a> {
    /// Its number, from 1.
    pub(crate) row: u64,
    /// The line of the file that it starts in, from 1.
    pub(crate) line: u64,
    /// What it says.
    pub(crate) event: Result<Event<'a>, Rejection>,
}

/// Reads a file's rows.
pub(crate) struct Rows {
    format: Format,
    path: std::path::PathBuf,
    unit: TsUnit,
    id_prefix: String,
    row: u64,
    /// How the fields are read, in the form by which two imports are compared.
    mapping: String,
}

enum Format {
    Csv { reader: csv::Reader<Box<dyn BufRead + Send>>, record: ByteRecord, columns: Columns },
    Ndjson { reader: Box<dyn BufRead + Send>, line: Vec<u8>, number: u64, mapping: Mapping },
}

impl Rows {
    /// Opens `file`; a first byte `{` tells NDJSON from CSV.
    ///
    /// # Errors
    /// If it cannot be read, is empty, or its columns do not fit the mapping.
    pub(crate) fn open(file: &ContentFile, mapping: &Mapping, unit: TsUnit, position: Arc<AtomicU64>) -> Result<Self, ImportError> {
        let unreadable = |error: std::io::Error| ImportError::file(&file.path, &error.to_string());
        let mut reader = file.open(position).map_err(unreadable)?;
        let first = reader.fill_buf().map_err(unreadable)?.trim_ascii_start().first().copied();
        let (format, canonical) = match first {
            None => return Err(ImportError::file(&file.path, "it is empty")),
            Some(b'{') => {
                check_members(reader.fill_buf().map_err(unreadable)?, mapping)?;
                let canonical = mapping.canonical(None);
                (Format::Ndjson { reader, line: Vec::new(), number: 0, mapping: mapping.clone() }, canonical)
            }
            Some(_) => {
                let mut reader = ReaderBuilder::new().flexible(true).from_reader(reader);
                let header = reader.headers().map_err(|error| ImportError::file(&file.path, &error.to_string()))?;
                let names: Vec<String> = header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
                let columns = mapping.resolve(&names)?;
                let canonical = mapping.canonical(Some(&columns));
                (Format::Csv { reader, record: ByteRecord::new(), columns }, canonical)
            }
        };
        let unit_name = if unit == TsUnit::S { ";ts in s" } else { "" };
        let mapping = format!("{canonical}{unit_name}");
        Ok(Self { format, path: file.path.clone(), unit, id_prefix: file.id_prefix().to_owned(), row: 0, mapping })
    }

    /// How the fields are read: another text is another import.
    pub(crate) fn mapping(&self) -> &str {
        &self.mapping
    }

    /// The next row, or `None` at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read on (its disk, its compression).
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>, ImportError> {
        let broken = |error: &dyn std::fmt::Display| ImportError::file(&self.path, &error.to_string());
        let (unit, prefix) = (self.unit, self.id_prefix.as_str());
        match &mut self.format {
            Format::Csv { reader, record, columns } => {
                if !reader.read_byte_record(record).map_err(|error| broken(&error))? {
                    return Ok(None);
                }
                self.row += 1;
                let line = record.position().map_or(0, csv::Position::line);
                Ok(Some(Row { row: self.row, line, event: from_record(record, columns, unit, prefix, self.row) }))
            }
            Format::Ndjson { reader, line, number, mapping } => {
                loop {
                    line.clear();
                    *number += 1;
                    if reader.read_until(b'\n', line).map_err(|error| broken(&error))? == 0 {
                        return Ok(None);
                    }
                    if !line.trim_ascii().is_empty() {
                        break;
                    }
                }
                self.row += 1;
                Ok(Some(Row { row: self.row, line: *number, event: from_json(line, mapping, unit, prefix, self.row) }))
            }
        }
    }
}

fn derived_id(prefix: &str, row: u64) -> Cow<'static, str> {
    Cow::Owned(format!("{prefix}:{row}"))
}

fn from_record<'a>(record: &'a ByteRecord, columns: &Columns, unit: TsUnit, prefix: &str, row: u64) -> Result<Event<'a>, Rejection> {
    let text = |field: Field| -> Result<Option<&'a str>, Rejection> {
        let Some(at) = columns.of(field) else { return Ok(None) };
        let bytes = record.get(at).ok_or_else(|| {
            Rejection::new(Reason::MissingField, format!("the row has {} columns; {} is in column {}", record.len(), field.name(), at + 1))
        })?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| Rejection::new(Reason::BadId, format!("{} is not UTF-8", field.name())))
    };
    let optional = |field: Field| text(field).map(|found| found.filter(|text| !text.is_empty()));
    let event_id = text(Field::EventId)?.map_or_else(|| derived_id(prefix, row), Cow::Borrowed);
    let ts = text(Field::Ts)?.unwrap_or_default();
    let watch_ms = optional(Field::WatchMs)?
        .map(|text| text.parse().map_err(|_| Rejection::new(Reason::WrongType, "watch_ms is a whole number of milliseconds from 0")));
    let kind = optional(Field::Kind)?.map(parse_kind);
    checked(Event {
        event_id,
        video_id: text(Field::VideoId)?.unwrap_or_default().into(),
        space_id: optional(Field::SpaceId)?.map(Cow::Borrowed),
        viewer_id: optional(Field::ViewerId)?.map(Cow::Borrowed),
        ts: parse_ts(ts, unit)?,
        watch_ms: watch_ms.transpose()?,
        kind: kind.transpose()?.unwrap_or_default(),
    })
}

fn from_json<'a>(line: &'a [u8], mapping: &Mapping, unit: TsUnit, prefix: &str, row: u64) -> Result<Event<'a>, Rejection> {
    if mapping.is_plain()
        && unit == TsUnit::Ms
        && let Ok(event) = schemas::json::decode(line)
    {
        return Ok(event);
    }
    // The slow way: the members are renamed, an id is added, and the result is read as any event is.
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(line).map_err(|error| Rejection::new(Reason::BadJson, format!("not a JSON object: {error}")))?;
    let mut renamed = serde_json::Map::new();
    for field in Field::ALL {
        if let Some(value) = mapping.column(field).and_then(|column| object.get(column)) {
            renamed.insert(field.name().to_owned(), value.clone());
        }
    }
    if let Some(seconds) = renamed.get("ts").and_then(serde_json::Value::as_i64).filter(|_| unit == TsUnit::S) {
        renamed.insert("ts".into(), parse_ts(&seconds.to_string(), unit)?.to_rfc3339().into());
    }
    if renamed.get("event_id").is_none_or(serde_json::Value::is_null) {
        renamed.insert("event_id".into(), derived_id(prefix, row).into());
    }
    let bytes = serde_json::Value::Object(renamed).to_string();
    schemas::json::decode(bytes.as_bytes()).map(own)
}

fn own(event: Event<'_>) -> Event<'static> {
    let own = |id: Cow<'_, str>| Cow::Owned(id.into_owned());
    Event {
        event_id: own(event.event_id),
        video_id: own(event.video_id),
        space_id: event.space_id.map(own),
        viewer_id: event.viewer_id.map(own),
        ts: event.ts,
        watch_ms: event.watch_ms,
        kind: event.kind,
    }
}

fn checked(event: Event<'_>) -> Result<Event<'_>, Rejection> {
    let ids = [
        ("event_id", Some(&event.event_id)),
        ("video_id", Some(&event.video_id)),
        ("space_id", event.space_id.as_ref()),
        ("viewer_id", event.viewer_id.as_ref()),
    ];
    for (name, id) in ids {
        if let Some(bad) = id.and_then(|id| check_id(id).err()) {
            return Err(Rejection::new(Reason::BadId, format!("{name} {bad}")));
        }
    }
    Ok(event)
}

fn parse_kind(text: &str) -> Result<Kind, Rejection> {
    match text {
        "view" => Ok(Kind::View),
        "engaged" => Ok(Kind::Engaged),
        _ => Err(Rejection::new(Reason::UnknownKind, "kind is \"view\" or \"engaged\"")),
    }
}

/// A whole number in `unit`, or RFC 3339.
fn parse_ts(text: &str, unit: TsUnit) -> Result<Millis, Rejection> {
    let text = text.trim();
    let bad = || {
        Rejection::new(Reason::BadTs, format!("ts {:?} is neither RFC 3339 nor a whole number", text.chars().take(40).collect::<String>()))
    };
    let Ok(number) = text.parse::<i64>() else {
        return Millis::parse_rfc3339(text).ok_or_else(bad);
    };
    let at = match unit {
        TsUnit::Ms if number < MIN_NUMERIC_TS => {
            let detail = format!("ts {number} looks like seconds; if it is, say --ts-unit s");
            return Err(Rejection::new(Reason::TsInSeconds, detail));
        }
        TsUnit::Ms => Some(number),
        TsUnit::S => number.checked_mul(1_000),
    };
    at.map(Millis)
        .filter(|at| at.is_representable())
        .ok_or_else(|| Rejection::new(Reason::BadTs, format!("ts {number} is outside the years 1 to 9999")))
}

/// Refuses a mapping whose columns none of the first lines has as a member.
fn check_members(start: &[u8], mapping: &Mapping) -> Result<(), ImportError> {
    let mut members: Vec<String> = Vec::new();
    for line in start.split(|byte| *byte == b'\n').take(100) {
        if let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(line) {
            members.extend(object.into_iter().map(|(name, _)| name));
        }
    }
    members.sort();
    members.dedup();
    if members.is_empty() {
        return Ok(());
    }
    mapping.resolve(&members).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, map: &str, unit: TsUnit) -> Vec<(u64, u64, Result<String, Reason>)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), text).unwrap();
        let file = ContentFile::hash(&dir.path().join("f")).unwrap();
        let mut rows = Rows::open(&file, &Mapping::parse(map).unwrap(), unit, Arc::default()).unwrap();
        let mut all = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let event = row.event.map(|event| {
                let prefix = file.id_prefix();
                format!(
                    "{} {} {} {:?} {:?}",
                    event.event_id.replace(prefix, "P"),
                    event.video_id,
                    event.ts,
                    event.space_id,
                    event.viewer_id
                )
            });
            all.push((row.row, row.line, event.map_err(|rejection| rejection.reason)));
        }
        all
    }

    #[test]
    fn csv_rows_become_events_and_bad_ones_keep_their_numbers() {
        let text = "event_id,item_id,ts_ms,extra\ne1,v1,1431857103000,s\n,v1,1431857103000,\ne3,v1,soon,\"a\nb\"\ne4,v1,1431857103,s\ne5\ne6,\"v,6\",2015-05-17T10:05:03Z,\n";
        assert_eq!(
            read(text, "video_id=item_id,ts=ts_ms,space_id=extra", TsUnit::Ms),
            vec![
                (1, 2, Ok("e1 v1 2015-05-17T10:05:03Z Some(\"s\") None".into())),
                (2, 3, Err(Reason::BadId)),
                (3, 4, Err(Reason::BadTs)),
                (4, 6, Err(Reason::TsInSeconds)),
                (5, 7, Err(Reason::MissingField)),
                (6, 8, Ok("e6 v,6 2015-05-17T10:05:03Z None None".into())),
            ]
        );
    }

    #[test]
    fn rows_without_an_id_column_get_one_from_content_and_position() {
        let text = "video_id,ts\nv,1431857103\nv,-5\nv,2015-05-17 10:05:03Z\n";
        let ids: Vec<_> = read(text, "", TsUnit::S).into_iter().map(|(.., event)| event.unwrap()).collect();
        assert_eq!(
            ids,
            ["P:1 v 2015-05-17T10:05:03Z None None", "P:2 v 1969-12-31T23:59:55Z None None", "P:3 v 2015-05-17T10:05:03Z None None"]
        );
    }

    #[test]
    fn ndjson_is_read_as_it_is_or_renamed() {
        let plain = "{\"event_id\":\"e\",\"video_id\":\"v\",\"ts\":1431857103000}\n\n{\"video_id\":\"v\",\"ts\":1431857103000}\nnope\n";
        assert_eq!(
            read(plain, "", TsUnit::Ms),
            vec![
                (1, 1, Ok("e v 2015-05-17T10:05:03Z None None".into())),
                (2, 3, Ok("P:2 v 2015-05-17T10:05:03Z None None".into())),
                (3, 4, Err(Reason::BadJson)),
            ]
        );
        let renamed = "{\"id\":\"e\",\"item\":\"v\",\"at\":1431857103,\"who\":\"u\"}";
        assert_eq!(
            read(renamed, "event_id=id,video_id=item,ts=at,viewer_id=who", TsUnit::S),
            vec![(1, 1, Ok("e v 2015-05-17T10:05:03Z None Some(\"u\")".into()))]
        );
    }
}
