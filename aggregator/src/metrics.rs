//! What the folds show to Prometheus, read from the workers' published states at each scrape.
//!
//! `tallymark_events_total` by outcome sums to the events read, per source, always: the counters come from the tally
//! that the checkpoint carries, so they go on over restarts.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use schemas::{Reason, Source};

use crate::owner::OwnerStatus;
use crate::worker::{Observer, SourceState};

/// Registers the metrics of all sources.
pub fn register(observer: Observer, registry: &mut Registry) {
    registry.register_collector(Box::new(SourceMetrics(observer)));
}

#[derive(Debug)]
struct SourceMetrics(Observer);

type Gauge = (&'static str, &'static str, fn(&OwnerStatus) -> f64);

const GAUGES: [Gauge; 11] = [
    ("tallymark_position", "Next offset to fold", |s| float(s.position.0)),
    ("tallymark_stored_position", "Next offset of the stored checkpoint", |s| float(s.stored.0)),
    ("tallymark_log_clock_seconds", "Log clock, Unix seconds", |s| seconds(s.clock.0)),
    ("tallymark_closed_seconds", "Watermark: minutes before it are rolled up, Unix seconds", |s| seconds(s.closed.0)),
    ("tallymark_flush_seconds", "How long the last flush took", |s| s.last_flush.as_secs_f64()),
    ("tallymark_freshness_seconds", "From append to stored, of the oldest record of the last flush", |s| seconds(s.last_freshness_ms)),
    ("tallymark_resident_cells", "Cells in memory", |s| size(s.sizes.resident_cells)),
    ("tallymark_dirty_cells", "Cells with changes that are not stored", |s| size(s.sizes.dirty_cells)),
    ("tallymark_parked_cells", "Cells that wait for their row", |s| size(s.sizes.parked_cells)),
    ("tallymark_dedup_ids", "Event ids in the deduplication window", |s| size(s.sizes.ids)),
    ("tallymark_dedup_bytes", "Memory of the deduplication window", |s| size(s.sizes.id_bytes)),
];

type Total = (&'static str, &'static str, fn(&OwnerStatus) -> u64);

const TOTALS: [Total; 5] = [
    ("tallymark_corrections", "Corrections taken", |s| s.tally.corrections),
    ("tallymark_flushes", "Flushes stored since the start", |s| s.flushes),
    ("tallymark_rows", "Rows stored since the start", |s| s.rows),
    ("tallymark_lost_records", "Records that the last start accepted as lost (accept_gap)", |s| s.lost),
    ("tallymark_store_failures", "Writes and loads that failed and were tried again", |s| s.failures),
];

impl Collector for SourceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let states = self.0.states();
        let owned = || states.iter().filter_map(|(source, state)| Some((*source, status(state)?)));
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (source, status) in owned() {
                ConstGauge::new(value(status)).encode(family.encode_family(&label(source))?)?;
            }
        }
        for (name, help, value) in TOTALS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (source, status) in owned() {
                ConstCounter::new(value(status)).encode(family.encode_family(&label(source))?)?;
            }
        }
        let mut running =
            encoder.encode_descriptor("tallymark_source_running", "1 if the source is folded, 0 if not", None, MetricType::Gauge)?;
        for (source, state) in &states {
            let up = status(state).is_some_and(|status| status.recovering == 0);
            ConstGauge::new(i64::from(up)).encode(running.encode_family(&label(*source))?)?;
        }
        let mut events = encoder.encode_descriptor("tallymark_events", "Events read, by what became of them", None, MetricType::Counter)?;
        for (source, status) in owned() {
            for (outcome, reason, count) in outcomes(status) {
                let labels = [("source", source.to_string()), ("outcome", outcome.to_owned()), ("reason", reason.to_owned())];
                ConstCounter::new(count).encode(events.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn status(state: &SourceState) -> Option<&OwnerStatus> {
    match state {
        SourceState::Owned(status) => Some(status),
        SourceState::Starting | SourceState::Stopped(_) => None,
    }
}

fn outcomes(status: &OwnerStatus) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
    let tally = &status.tally;
    let rejected = Reason::ALL.into_iter().map(|reason| ("rejected", reason.as_str(), tally.rejected_for(reason)));
    [("counted", "", tally.counted), ("duplicate", "", tally.duplicate)].into_iter().chain(rejected)
}

fn label(source: Source) -> [(&'static str, String); 1] {
    [("source", source.to_string())]
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
const fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
const fn size(value: usize) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
const fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}
