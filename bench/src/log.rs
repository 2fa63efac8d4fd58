//! Appending to the embedded log, durably: what the collector pays for each acknowledgement.

use std::num::NonZeroU32;

use ingest::EventLog;
use ingest::embedded::{EmbeddedLog, LogOptions};
use schemas::{NewRecord, RecordKind, Source};

use crate::Bench;
use crate::events::{self, Shape};
use crate::usage::per_cpu_second;

const EVENTS: usize = 500_000;
/// Events in one record: what the importer sends at once.
const EVENTS_PER_RECORD: usize = 1_000;
/// Records on their way at once.
const IN_FLIGHT: usize = 16;

pub(crate) fn benches() -> Vec<Bench> {
    let shape = Shape { events: EVENTS, videos: 100_000, start_ms: 1_763_640_000_000, span_ms: 600_000 };
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    events::generate(shape, |n, video, viewer, ts| {
        if n % EVENTS_PER_RECORD == 0 {
            payloads.push(Vec::new());
        }
        let payload = payloads.last_mut().unwrap();
        events::write_json(payload, n, video, viewer, ts);
        payload.push(b'\n');
    });
    let append = Box::new(move || {
        let dir = tempfile::tempdir_in(crate::report::target_dir()).unwrap();
        let log = EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::new(2).unwrap())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        per_cpu_second(EVENTS, || {
            runtime.block_on(async {
                use futures_util::{StreamExt, stream};
                let appends = payloads.iter().enumerate().map(|(n, payload)| {
                    let record = NewRecord::new(RecordKind::Ndjson, payload.clone());
                    log.append(Source(u32::try_from(n % 2).unwrap()), vec![record])
                });
                stream::iter(appends).buffer_unordered(IN_FLIGHT).for_each(async |outcome| _ = outcome.unwrap()).await;
            });
        })
    });
    vec![("embedded_append", "events/CPU-s", None, append)]
}
