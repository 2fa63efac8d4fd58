//! Leaving a viewer out: the event stays, and says of nobody.
//!
//! Counts are not personal, so an event of somebody who is forgotten stays countable: its viewer, what the collector put on it and what
//! else it said become null, and a replay comes to the same counts. What could not be decoded and holds the id anywhere is replaced by
//! the shortest bytes that cannot be decoded either. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, StringArray, StringBuilder, new_null_array};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use schemas::{Event, Millis, Reason, Record, RecordKind};

use super::manifest::Forgetting;
use super::piece::Piece;
use super::view::View;

/// Columns of an event that say something of its viewer.
const PERSONAL: [&str; 5] = ["viewer_id", "client_ip", "user_agent", "received_at", "extra"];

/// Who is to be left out.
#[derive(Clone, Debug, Default)]
pub struct Forgotten(Vec<Forgetting>);

impl Forgotten {
    /// These viewers.
    pub fn new(forgetting: &[Forgetting]) -> Self {
        Self(forgetting.to_vec())
    }

    /// Whether that is nobody.
    pub const fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }

    fn is_viewer(&self, viewer_id: Option<&str>, appended: Millis) -> bool {
        viewer_id.is_some_and(|id| self.0.iter().any(|one| one.viewer_id == id && appended <= one.until))
    }

    fn is_in(&self, raw: &[u8], appended: Millis) -> bool {
        self.0.iter().any(|one| appended <= one.until && contains(raw, one.viewer_id.as_bytes()))
    }

    /// A piece of a record without them.
    pub(super) fn without<'a>(&self, record: &Record<'a>, piece: Piece<'a>) -> Piece<'a> {
        if self.is_nobody() {
            return piece;
        }
        match piece {
            Piece::Event(event, _) if self.is_viewer(event.viewer_id.as_deref(), record.append_time) => {
                Piece::Event(Event { viewer_id: None, ..event }, None)
            }
            Piece::Rejected(reason, raw) if self.is_in(&raw, record.append_time) => {
                Piece::Rejected(reason, Cow::Borrowed(blank(record.kind, reason)))
            }
            other => other,
        }
    }

    /// The rows of a batch without them; `None` if none of them is in it.
    pub(super) fn without_rows(&self, batch: &RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        let view = View::of(batch)?;
        let events: Vec<bool> = (0..view.len()).map(|at| self.is_viewer(view.viewer_id(at), view.append_time(at))).collect();
        let raws: Vec<bool> = (0..view.len())
            .map(|at| view.reason(at).is_some() && view.raw(at).is_some_and(|raw| self.is_in(raw, view.append_time(at))))
            .collect();
        if !events.iter().chain(&raws).any(|found| *found) {
            return Ok(None);
        }
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| match field.name().as_str() {
            name if PERSONAL.contains(&name) => nulled(column, &events),
            "raw" => Ok(blanked(&view, &raws)),
            _ => Ok(Arc::clone(column)),
        });
        let columns = columns.collect::<Result<_, _>>()?;
        RecordBatch::try_new(schema, columns).map(Some)
    }
}

/// A column with null in these rows.
fn nulled(column: &ArrayRef, rows: &[bool]) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == &DataType::Utf8
        && let Some(texts) = column.as_any().downcast_ref::<StringArray>()
    {
        let mut kept = StringBuilder::new();
        texts.iter().zip(rows).for_each(|(text, gone)| kept.append_option(text.filter(|_| !gone)));
        return Ok(Arc::new(kept.finish()));
    }
    let nulls = new_null_array(column.data_type(), column.len());
    arrow::compute::kernels::zip::zip(&arrow::array::BooleanArray::from(rows.to_vec()), &nulls, column)
}

fn blanked(view: &View, rows: &[bool]) -> ArrayRef {
    let mut kept = BinaryBuilder::new();
    for (at, gone) in rows.iter().enumerate() {
        let blank = || view.reason(at).and_then(Reason::named).map(|reason| blank(view.kind(at), reason));
        kept.append_option(if *gone { blank() } else { view.raw(at) });
    }
    Arc::new(kept.finish())
}

/// What is rejected as what it stands for was, as one event.
const fn blank(kind: RecordKind, reason: Reason) -> &'static [u8] {
    match (kind, reason) {
        (RecordKind::ViewBatch, Reason::BadBatch) => &[0xff],
        (RecordKind::Unknown(_), _) => &[],
        _ => b"null",
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use schemas::view_batch::ViewBatch;

    use super::*;

    #[test]
    fn a_blank_is_rejected_too() {
        assert!(schemas::json::decode(blank(RecordKind::Json, Reason::BadId)).is_err());
        assert!(ViewBatch::read(blank(RecordKind::ViewBatch, Reason::BadBatch)).is_err());
    }
}
