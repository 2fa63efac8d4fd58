//! Records in memory, and a fold that takes them: without a log, a store or threads between.

use std::ops::Range;

use aggregator::fold::{Flush, Fold, FoldLimits};
use schemas::{FoldSettings, Millis, Offset, Record, RecordKind, Source};

use crate::encode::{Encoder, Form};
use crate::events::{Generator, Shape, View};

/// Records side by side, as a consumer fetches them.
pub(crate) struct Stream {
    bytes: Vec<u8>,
    kind: RecordKind,
    pub(crate) records: Vec<Place>,
}

/// One record of a stream.
pub(crate) struct Place {
    pub(crate) append_time: Millis,
    pub(crate) events: u64,
    payload: Range<usize>,
}

impl Stream {
    /// All events of a shape.
    pub(crate) fn new(form: Form, shape: &Shape) -> Self {
        let mut stream = Self { bytes: Vec::new(), kind: form.kind(), records: Vec::new() };
        let mut encoder = Encoder::default();
        let mut generator = Generator::new(shape);
        let mut views: Vec<View> = Vec::new();
        loop {
            views.clear();
            views.extend(generator.by_ref().take(form.events()));
            let Some(last) = views.last() else { return stream };
            let start = stream.bytes.len();
            encoder.encode(form, &views, &mut stream.bytes);
            let payload = start..stream.bytes.len();
            stream.records.push(Place { append_time: Millis(last.now), events: views.len() as u64, payload });
        }
    }

    /// How many events it holds.
    pub(crate) fn events(&self) -> u64 {
        self.records.iter().map(|record| record.events).sum()
    }
}

/// A fold and what it was given.
pub(crate) struct Folding {
    pub(crate) fold: Fold,
}

impl Folding {
    pub(crate) fn new(settings: FoldSettings) -> Self {
        Self { fold: Fold::new(Source(0), settings, FoldLimits::default(), None, Offset(0)) }
    }

    pub(crate) fn apply(&mut self, stream: &Stream, record: &Place) {
        self.apply_at(stream, record, record.append_time);
    }

    /// As if the record had been appended then.
    pub(crate) fn apply_at(&mut self, stream: &Stream, record: &Place, append_time: Millis) {
        let (offset, payload) = (self.fold.position(), &stream.bytes[record.payload.clone()]);
        self.fold.apply(&Record { offset, append_time, kind: stream.kind, historical: false, payload });
    }

    /// Whether its owner would flush now whatever the time.
    pub(crate) fn is_heavy(&self) -> bool {
        self.fold.is_heavy()
    }

    /// A flush, as of a store that has no row yet of a cell that is asked for, and that has stored it at once.
    pub(crate) fn flush(&mut self) -> Flush {
        while let Some(load) = self.fold.poll_load() {
            let nothing = vec![None; load.keys.len()];
            self.fold.loaded(&load, &nothing);
        }
        let flush = self.fold.take_flush().unwrap();
        self.fold.flushed();
        flush
    }
}
