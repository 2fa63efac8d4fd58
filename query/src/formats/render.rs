//! A table as bytes: CSV after RFC 4180 with a header row, or an Arrow IPC stream.
//!
//! A table of few rows is rendered at once and has a length; a longer one is streamed batch by batch, as it is read.
//!
//! CSV differs from the table's values in one respect. Programs that show tables take a cell that begins with `=`, `+`, `-` or `@` for a formula, and titles,
//! names and even ids come from strangers: such a text is written after an apostrophe. Texts of nothing but ASCII letters, digits, `_` and `-` stay as
//! they are, so that ids that begin with `-` still match: no formula that does anything is written with these.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::csv::WriterBuilder;
use arrow::csv::writer::Terminator;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono_tz::Tz;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use schemas::{Millis, Minute};

use super::accept::TableFormat;
use super::table::{Rows, Table};
use crate::calendar::{instant, rfc3339};
use crate::error::QueryError;

/// So many rows are rendered at once.
const ROWS_AT_ONCE: usize = 4_096;

/// The table's `complete_through`, for those who read rows only.
const COMPLETE_THROUGH: HeaderName = HeaderName::from_static("tallymark-complete-through");

impl Table {
    /// The table as a response.
    ///
    /// # Errors
    /// [`QueryError::Broken`] if its columns are not those of its fields.
    pub(crate) fn response(self, format: TableFormat) -> Result<Response, QueryError> {
        let headers = headers(&self, format);
        let schema = self.schema();
        let mut writer = Writer::new(format, &schema)?;
        let body = match self.rows {
            Rows::Whole(columns) if rows(&columns) <= ROWS_AT_ONCE => {
                let mut bytes = writer.head(&schema)?;
                bytes.extend(writer.batch(&schema, columns)?);
                bytes.extend(writer.end()?);
                Body::from(bytes)
            }
            Rows::Whole(columns) => Body::from_stream(chunks(writer, schema, slices(columns))),
            Rows::Batches(batches) => {
                let small = batches.flat_map(|batch| match batch {
                    Ok(columns) => slices(columns),
                    Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
                });
                Body::from_stream(chunks(writer, schema, small.boxed()))
            }
        };
        Ok((headers, body).into_response())
    }
}

fn headers(table: &Table, format: TableFormat) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    let name: String =
        table.name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' }).collect();
    let disposition = format!("attachment; filename=\"{name}.{}\"", format.extension());
    headers.extend(HeaderValue::from_str(&disposition).map(|value| (header::CONTENT_DISPOSITION, value)));
    let through = table.metadata.get("complete_through").and_then(|through| HeaderValue::from_str(through).ok());
    headers.extend(through.map(|through| (COMPLETE_THROUGH, through)));
    headers
}

fn rows(columns: &[ArrayRef]) -> usize {
    columns.first().map_or(0, Array::len)
}

fn slices(columns: Vec<ArrayRef>) -> BoxStream<'static, Result<Vec<ArrayRef>, QueryError>> {
    let rows = rows(&columns);
    let slice = move |start: usize| columns.iter().map(|column| column.slice(start, ROWS_AT_ONCE.min(rows - start))).collect();
    stream::iter((0..rows).step_by(ROWS_AT_ONCE).map(move |start| Ok(slice(start)))).boxed()
}

/// The bytes of a table: its head, its batches, its end. An end is only written after the last batch.
fn chunks(
    mut writer: Writer,
    schema: SchemaRef,
    batches: BoxStream<'static, Result<Vec<ArrayRef>, QueryError>>,
) -> impl Stream<Item = Result<Bytes, QueryError>> {
    // Something comes before and after the batches.
    let steps = stream::once(async { Ok(Part::Head) })
        .chain(batches.map(|batch| batch.map(Part::Batch)))
        .chain(stream::once(async { Ok(Part::End) }));
    let chunks = steps.map(move |step| {
        let bytes = match step? {
            Part::Head => writer.head(&schema),
            Part::Batch(columns) => writer.batch(&schema, columns),
            Part::End => writer.end(),
        };
        bytes.map(Bytes::from)
    });
    // After a failure nothing more, least of all an end.
    chunks.scan(false, |failed, chunk| {
        let next = (!*failed).then_some(chunk);
        *failed |= next.as_ref().is_some_and(Result::is_err);
        std::future::ready(next)
    })
}

enum Part {
    Head,
    Batch(Vec<ArrayRef>),
    End,
}

enum Writer {
    Csv,
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Writer {
    fn new(format: TableFormat, schema: &Schema) -> Result<Self, QueryError> {
        Ok(match format {
            TableFormat::Csv => Self::Csv,
            TableFormat::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema).map_err(broken)?)),
        })
    }

    fn head(&mut self, schema: &SchemaRef) -> Result<Vec<u8>, QueryError> {
        match self {
            Self::Csv => csv(&RecordBatch::new_empty(Arc::clone(schema)), true).map_err(broken),
            Self::Arrow(writer) => Ok(std::mem::take(writer.get_mut())),
        }
    }

    fn batch(&mut self, schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<Vec<u8>, QueryError> {
        let batch = RecordBatch::try_new(Arc::clone(schema), columns).map_err(broken)?;
        match self {
            Self::Csv => csv(&batch, false).map_err(broken),
            Self::Arrow(writer) => {
                writer.write(&batch).map_err(broken)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }

    fn end(&mut self) -> Result<Vec<u8>, QueryError> {
        match self {
            Self::Csv => Ok(Vec::new()),
            Self::Arrow(writer) => {
                writer.finish().map_err(broken)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }
}

fn broken(error: ArrowError) -> QueryError {
    tracing::error!(%error, "a table could not be written");
    QueryError::Broken
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        batch.schema().fields().iter().zip(batch.columns()).map(|(field, column)| cells(field, column)).unzip();
    let mut bytes = Vec::new();
    let builder = WriterBuilder::new().with_header(header).with_line_terminator(Terminator::CRLF);
    builder.build(&mut bytes).write(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)?;
    Ok(bytes)
}

/// A column as its cells are written: instants as elsewhere, texts harmless, the rest as it is.
fn cells(field: &Field, column: &ArrayRef) -> (Field, ArrayRef) {
    let texts: StringArray = match field.data_type() {
        DataType::Timestamp(_, zone) => {
            let tz = zone.as_deref().and_then(|zone| zone.parse().ok()).filter(|tz| *tz != Tz::UTC);
            let times = || column.as_primitive_opt::<TimestampMillisecondType>().into_iter().flatten();
            // A column of buckets is one of minutes; another has its milliseconds.
            let of_minutes = times().flatten().all(|at| Minute::of(Millis(at)).start().0 == at);
            let shown = |at: i64| if of_minutes { rfc3339(Minute::of(Millis(at)), tz) } else { instant(Millis(at), tz) };
            times().map(|at| at.map(shown)).collect()
        }
        DataType::Utf8 if column.as_string::<i32>().iter().flatten().any(is_dangerous) => {
            let guarded = |text: &str| if is_dangerous(text) { format!("'{text}") } else { text.to_owned() };
            column.as_string::<i32>().iter().map(|text| text.map(guarded)).collect()
        }
        _ => return (field.clone(), Arc::clone(column)),
    };
    (Field::new(field.name(), DataType::Utf8, true), Arc::new(texts))
}

fn is_dangerous(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']) && !text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::ipc::reader::StreamReader;
    use axum::body::to_bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::formats::{count, text};

    fn bytes(table: Table, format: TableFormat) -> Result<Vec<u8>, axum::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let response = table.response(format).unwrap();
        runtime.block_on(to_bytes(response.into_body(), usize::MAX)).map(|bytes| bytes.to_vec())
    }

    fn columns(rows: std::ops::Range<i64>) -> Vec<ArrayRef> {
        let titles: StringArray = rows.clone().map(|row| (row % 3 > 0).then(|| format!("title {row}"))).collect();
        vec![Arc::new(Int64Array::from_iter_values(rows)), Arc::new(titles)]
    }

    fn fields() -> Vec<Field> {
        vec![count("views"), text("title")]
    }

    #[test]
    fn a_long_table_comes_in_batches_and_is_the_same_table() {
        const ROWS: i64 = 10_000;
        for format in [TableFormat::Csv, TableFormat::Arrow] {
            let whole = bytes(Table::new("t", fields(), columns(0..ROWS)), format).unwrap();
            let parts = stream::iter((0..ROWS / 1_000).map(|part| Ok(columns(part * 1_000..(part + 1) * 1_000))));
            let streamed = bytes(Table::streamed("t", fields(), parts), format).unwrap();
            match format {
                TableFormat::Csv => assert_eq!(whole, streamed),
                TableFormat::Arrow => {
                    let batches = |bytes: &[u8]| StreamReader::try_new(bytes, None).unwrap().map(Result::unwrap).collect::<Vec<_>>();
                    let (whole, streamed) = (batches(&whole), batches(&streamed));
                    assert_eq!((whole.len(), streamed.len()), (3, 10));
                    let joined = |batches: &[RecordBatch]| arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap();
                    assert_eq!(joined(&whole), joined(&streamed));
                }
            }
        }
    }

    #[test]
    fn an_empty_table_has_a_header_and_an_end() {
        assert_eq!(bytes(Table::new("t", fields(), columns(0..0)), TableFormat::Csv).unwrap(), b"views,title\r\n");
        let nothing = Table::streamed("t", fields(), stream::empty());
        assert_eq!(StreamReader::try_new(&*bytes(nothing, TableFormat::Arrow).unwrap(), None).unwrap().count(), 0);
    }

    #[test]
    fn a_failure_on_the_way_cuts_the_table_off() {
        for format in [TableFormat::Csv, TableFormat::Arrow] {
            let parts = stream::iter([Ok(columns(0..10)), Err(QueryError::Broken), Ok(columns(10..20))]);
            assert!(bytes(Table::streamed("t", fields(), parts), format).is_err());
        }
        assert!(Table::new("t", fields(), vec![]).response(TableFormat::Csv).is_err(), "columns are missing");
    }

    #[test]
    fn no_text_of_a_csv_is_a_formula() {
        for (given, written) in [
            ("=1+1", "'=1+1"),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("+1", "'+1"),
            ("-2+3+cmd|' /C calc'!A0", "'-2+3+cmd|' /C calc'!A0"),
            ("-dQw4w9WgXcQ", "-dQw4w9WgXcQ"),
            ("-_-", "-_-"),
            ("＝1", "'＝1"),
            ("a=b", "a=b"),
            ("Cats, \"dogs\"", "\"Cats, \"\"dogs\"\"\""),
        ] {
            let titles: ArrayRef = Arc::new(StringArray::from_iter_values([given]));
            let table = || Table::new("t", vec![text("title")], vec![Arc::clone(&titles)]);
            assert_eq!(String::from_utf8(bytes(table(), TableFormat::Csv).unwrap()).unwrap(), format!("title\r\n{written}\r\n"));
            let arrow = bytes(table(), TableFormat::Arrow).unwrap();
            let batch = StreamReader::try_new(&*arrow, None).unwrap().next().unwrap().unwrap();
            assert_eq!(batch.column(0).as_string::<i32>().value(0), given, "Arrow is not looked at by such programs");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back_from_csv(texts in prop::collection::vec("\\PC{0,12}", 1..20)) {
            let column: ArrayRef = Arc::new(StringArray::from_iter_values(&texts));
            let csv = bytes(Table::new("t", vec![text("a"), text("b")], vec![Arc::clone(&column), column]), TableFormat::Csv).unwrap();
            let read: Vec<String> = csv::Reader::from_reader(&*csv).records().map(|row| row.unwrap()[1].to_owned()).collect();
            let expected: Vec<String> = texts.iter().map(|text| if is_dangerous(text) { format!("'{text}") } else { text.clone() }).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
