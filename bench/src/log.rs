//! Appending to the embedded log, durably: what the collector pays for each acknowledgement.

use std::num::NonZeroU32;

use ingest::EventLog;
use ingest::embedded::{EmbeddedLog, LogOptions};
use schemas::{NewRecord, RecordKind, Source};

use crate::events::{Generator, Shape, View};
use crate::lab::{Lab, Missing};
use crate::report::target_dir;
use crate::usage::per_cpu_second;

const EVENTS: u64 = 500_000;
/// Events in one record: what the importer sends at once.
const EVENTS_PER_RECORD: usize = 1_000;
/// Records on their way at once.
const IN_FLIGHT: usize = 16;

pub(crate) const NAMES: &[&str] = &["embedded_append"];

pub(crate) fn run(lab: &mut Lab) -> Result<(), Missing> {
    let views: Vec<_> = Generator::new(&Shape::traffic(EVENTS)).collect();
    let payload = |views: &[View]| {
        let mut payload = Vec::new();
        for view in views {
            view.write_json(&mut payload);
            payload.push(b'\n');
        }
        payload
    };
    let payloads: Vec<Vec<u8>> = views.chunks(EVENTS_PER_RECORD).map(payload).collect();
    lab.rounds("the embedded log", |_| vec![("embedded_append", append(&payloads))]);
    Ok(())
}

/// Appends all of them: events per CPU-second.
fn append(payloads: &[Vec<u8>]) -> f64 {
    use futures_util::{StreamExt, stream};
    let dir = tempfile::tempdir_in(target_dir()).unwrap();
    let log = EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::new(2).unwrap())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    per_cpu_second(EVENTS, || {
        runtime.block_on(async {
            let appends = payloads.iter().enumerate().map(|(n, payload)| {
                let record = NewRecord::new(RecordKind::Ndjson, payload.clone());
                log.append(Source(u32::try_from(n % 2).unwrap()), vec![record])
            });
            stream::iter(appends).buffer_unordered(IN_FLIGHT).for_each(async |outcome| _ = outcome.unwrap()).await;
        });
    })
}
