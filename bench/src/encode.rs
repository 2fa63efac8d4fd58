//! Events as the payloads of records: one JSON object, or many as lines or as a columnar batch.

use std::fmt::Write as _;

use schemas::view_batch::Writer;
use schemas::{Event, Kind, Millis, RecordKind};
use serde::{Deserialize, Serialize};

use crate::events::View;

/// How events become records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    /// A JSON object for each.
    Json,
    /// So many as columns.
    Batch(usize),
}

impl Form {
    /// So many events are a record.
    pub(crate) const fn events(self) -> usize {
        match self {
            Self::Json => 1,
            Self::Batch(events) => events,
        }
    }

    pub(crate) const fn kind(self) -> RecordKind {
        match self {
            Self::Json => RecordKind::Json,
            Self::Batch(_) => RecordKind::ViewBatch,
        }
    }
}

/// Writes payloads; its buffers serve again.
#[derive(Default)]
pub(crate) struct Encoder {
    writer: Writer,
    texts: [String; 4],
}

impl Encoder {
    /// Appends the payload of one record.
    pub(crate) fn encode(&mut self, form: Form, views: &[View], out: &mut Vec<u8>) {
        match form {
            Form::Json => views.iter().for_each(|view| view.write_json(out)),
            Form::Batch(_) => {
                for view in views {
                    let event = event(view, &mut self.texts);
                    self.writer.push(&event, None).unwrap();
                }
                out.extend_from_slice(&self.writer.finish());
            }
        }
    }
}

/// A view as an event, with its ids in these texts.
pub(crate) fn event<'a>(view: &View, [id, video, space, viewer]: &'a mut [String; 4]) -> Event<'a> {
    [&mut *id, &mut *video, &mut *space, &mut *viewer].into_iter().for_each(String::clear);
    let written = [
        write!(id, "{}", view.event_id()),
        write!(video, "v{}", view.video),
        write!(space, "c{}", view.space()),
        write!(viewer, "u{}", view.viewer),
    ];
    written.into_iter().for_each(Result::unwrap);
    Event {
        event_id: id.as_str().into(),
        video_id: video.as_str().into(),
        space_id: Some(space.as_str().into()),
        viewer_id: Some(viewer.as_str().into()),
        ts: Millis(view.ts),
        watch_ms: Some(view.watch_ms),
        kind: Kind::View,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Generator, Shape};
    use schemas::view_batch::ViewBatch;

    #[test]
    fn both_forms_hold_the_same_events() {
        let views: Vec<View> = Generator::new(&Shape { late: 0.1, hot: 0.1, ..Shape::traffic(1_000) }).collect();
        let (mut encoder, mut texts) = (Encoder::default(), Default::default());
        let mut batch = Vec::new();
        encoder.encode(Form::Batch(1_000), &views, &mut batch);
        let batch = ViewBatch::read(&batch).unwrap();
        for (view, in_batch) in views.iter().zip(batch.events()) {
            let mut json = Vec::new();
            encoder.encode(Form::Json, std::slice::from_ref(view), &mut json);
            assert!((140..=180).contains(&json.len()), "{}", json.len());
            let expected = event(view, &mut texts);
            assert_eq!(schemas::json::decode(&json).unwrap(), expected);
            assert_eq!(in_batch.unwrap().event, expected);
        }
        assert_eq!(batch.len(), views.len());
    }
}
