//! How fast the embedded log takes records: `cargo run --release -p tallymark-ingest --example append_rate -- DIR`
//!
//! Prints records/s and MB/s for 100 KiB batches and for 200-byte records, each with 64 appenders that wait for every acknowledgement.
#![allow(clippy::unwrap_used, reason = "a measurement: what fails ends it")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest::{EmbeddedLog, EventLog, LogError, LogOptions};
use schemas::{NewRecord, RecordKind, Source};

const APPENDERS: u32 = 64;
const MEASURED: Duration = Duration::from_secs(8);

#[tokio::main]
async fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "append-rate.tmp".into());
    let batch: String = (0u64..)
        .map(event)
        .scan(0, |bytes, line| {
            *bytes += line.len();
            (*bytes < 102_400).then_some(line)
        })
        .collect();
    let single = format!("{:200}", event(1).trim_end());
    for (name, kind, payload) in [("100 KiB NDJSON", RecordKind::Ndjson, batch), ("200 B JSON", RecordKind::Json, single)] {
        let dir = format!("{dir}/{}", payload.len());
        let log = Arc::new(EmbeddedLog::open(&LogOptions::new(&dir, NonZeroU32::new(2).unwrap())).unwrap());
        let start = Instant::now();
        let tasks: Vec<_> =
            (0..APPENDERS).map(|n| tokio::spawn(appender(log.clone(), Source(n % 2), kind, payload.clone(), start))).collect();
        let mut records = 0u32;
        for task in tasks {
            records += task.await.unwrap();
        }
        let seconds = start.elapsed().as_secs_f64();
        let bytes = f64::from(records) * f64::from(u32::try_from(payload.len()).unwrap());
        println!("{name}: {:.0} records/s, {:.1} MB/s", f64::from(records) / seconds, bytes / seconds / 1e6);
    }
}

/// One line of NDJSON whose ids compress no better than real ones.
fn event(n: u64) -> String {
    let random = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (video, viewer) = (random >> 45, random.rotate_left(29) % 10_000_000);
    format!(
        "{{\"event_id\":\"0190b5e2-7a4e-7c11-{:04x}-{:012x}\",\"video_id\":\"v{video}\",\"ts\":\"2026-11-20T12:{:02}:{:02}.{:03}Z\",\"viewer_id\":\"u{viewer}\"}}\n",
        random & 0xffff,
        random >> 16,
        n / 60_000 % 60,
        n / 1_000 % 60,
        n % 1_000
    )
}

async fn appender(log: Arc<EmbeddedLog>, source: Source, kind: RecordKind, payload: String, start: Instant) -> u32 {
    let mut taken = 0;
    while start.elapsed() < MEASURED {
        match log.append(source, vec![NewRecord::new(kind, payload.as_str())]).await {
            Ok(_) => taken += 1,
            Err(LogError::Busy { .. }) => tokio::task::yield_now().await,
            Err(error) => {
                eprintln!("{error}");
                break;
            }
        }
    }
    taken
}
