//! An answer as a table: named columns of Arrow's types, whole or in batches as they come.
//!
//! ```ignore
//! let fields = vec![count("rank"), text("id"), text("title"), count("views")];
//! let columns: Vec<ArrayRef> = vec![
//!     Arc::new(Int64Array::from_iter_values(1..=3)),
//!     Arc::new(StringArray::from_iter_values(ids)),
//!     Arc::new(StringArray::from_iter(titles)), // `None` where there is none
//!     Arc::new(Int64Array::from_iter_values(views)),
//! ];
//! Ok(Table::new("top-videos", fields, columns).with("complete_through", complete_through))
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono_tz::Tz;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use schemas::Minute;

use crate::error::QueryError;

/// An answer that can be given as a table. What its JSON says beside the rows goes into the table's metadata.
pub(crate) trait Tabular {
    fn table(self) -> Table;
}

/// Rows on their way out.
pub(crate) struct Table {
    /// What its file is called, without extension.
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
    pub(super) metadata: HashMap<String, String>,
    pub(super) rows: Rows,
}

pub(super) enum Rows {
    Whole(Vec<ArrayRef>),
    Batches(BoxStream<'static, Result<Vec<ArrayRef>, QueryError>>),
}

impl Table {
    /// A table that is at hand. `columns` are the fields', all of one length.
    pub(crate) fn new(name: impl Into<String>, fields: Vec<Field>, columns: Vec<ArrayRef>) -> Self {
        Self { name: name.into(), fields, metadata: HashMap::new(), rows: Rows::Whole(columns) }
    }

    /// A table that comes in batches of some thousand rows; each holds the fields' columns. A failure cuts the answer off, so that no one takes
    /// a part for the whole.
    pub(crate) fn streamed(
        name: impl Into<String>,
        fields: Vec<Field>,
        batches: impl Stream<Item = Result<Vec<ArrayRef>, QueryError>> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), fields, metadata: HashMap::new(), rows: Rows::Batches(batches.boxed()) }
    }

    /// Says something of the whole table, if there is something to say.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: Option<impl Into<String>>) -> Self {
        self.metadata.extend(value.map(|value| (key.to_owned(), value.into())));
        self
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new_with_metadata(self.fields.clone(), self.metadata.clone()))
    }
}

/// A column of counts.
pub(crate) fn count(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

/// A column of texts.
pub(crate) fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

/// A column of truths.
pub(crate) fn flag(name: &str) -> Field {
    Field::new(name, DataType::Boolean, true)
}

/// A column of days.
pub(crate) fn date(name: &str) -> Field {
    Field::new(name, DataType::Date32, true)
}

/// A column of instants, shown in a zone.
pub(crate) fn time(name: &str, tz: Tz) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, Some(tz.name().into())), true)
}

/// The values of a column of instants.
pub(crate) fn times(tz: Tz, minutes: impl IntoIterator<Item = Option<Minute>>) -> ArrayRef {
    let array: TimestampMillisecondArray = minutes.into_iter().map(|minute| minute.map(|minute| minute.start().0)).collect();
    Arc::new(array.with_timezone(tz.name()))
}
