//! What the folds show to Prometheus, read from the workers' published states at each scrape.
//!
//! `tallymark_events_total` by outcome sums to the events read, per source, always: the counters come from the tally
//! that the checkpoint carries, so they go on over restarts. What only the log and the store know (a source's end, its stored
//! checkpoint) is not asked for at a scrape: somebody asks now and then, and leaves it in [`Seen`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use schemas::{Millis, Offset, Reason, Source, Stamp};

use crate::owner::OwnerStatus;
use crate::worker::{Observer, SourceState};

/// Registers the metrics of the sources that this process folds.
pub fn register(observer: Observer, seen: Seen, registry: &mut Registry) {
    registry.register_collector(Box::new(SourceMetrics { observer, seen }));
}

/// Registers the age of every source's checkpoint, for a process that folds none: it shows a source that nobody folds.
pub fn register_stored(seen: Seen, registry: &mut Registry) {
    registry.register_collector(Box::new(StoredMetrics(seen)));
}

/// Where sources end and what is stored of them, as it was last seen. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<BTreeMap<Source, Sight>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    end: Option<Offset>,
    stored: Option<Stamp>,
}

impl Seen {
    /// The log ends here.
    pub fn log_ends_at(&self, source: Source, end: Offset) {
        self.sights().entry(source).or_default().end = Some(end);
    }

    /// The stored checkpoint has this stamp.
    pub fn stored_up_to(&self, source: Source, stamp: Stamp) {
        self.sights().entry(source).or_default().stored = Some(stamp);
    }

    fn sights(&self) -> MutexGuard<'_, BTreeMap<Source, Sight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records behind the end a fold is, and how many ms old the last one is that it has folded; both 0 at the end.
fn lag(status: &OwnerStatus, end: Offset, now: Millis) -> (u64, i64) {
    match end.0.saturating_sub(status.position.0) {
        0 => (0, 0),
        // Nothing was ever folded: there is no such time.
        records if status.clock == Millis::NEVER => (records, 0),
        records => (records, now.since(status.clock).max(0)),
    }
}

fn encode_ages(encoder: &mut DescriptorEncoder<'_>, ages: impl Iterator<Item = (Source, Stamp)>, now: Millis) -> fmt::Result {
    const HELP: &str = "How long ago the last record of the stored checkpoint was appended";
    let mut family = encoder.encode_descriptor("tallymark_checkpoint_age_seconds", HELP, None, MetricType::Gauge)?;
    for (source, stamp) in ages {
        ConstGauge::new(seconds(now.since(Millis(stamp.0 / 1_000)).max(0))).encode(family.encode_family(&label(source))?)?;
    }
    Ok(())
}

#[derive(Debug)]
struct StoredMetrics(Seen);

impl Collector for StoredMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sights = self.0.sights().clone();
        encode_ages(&mut encoder, sights.into_iter().filter_map(|(source, sight)| Some((source, sight.stored?))), Millis::now())
    }
}

#[derive(Debug)]
struct SourceMetrics {
    observer: Observer,
    seen: Seen,
}

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
        let states = self.observer.states();
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
        self.encode_lags(encoder, &states)
    }
}

impl SourceMetrics {
    /// What the log's end and the stored checkpoint say of the sources of this process.
    fn encode_lags(&self, mut encoder: DescriptorEncoder<'_>, states: &BTreeMap<Source, SourceState>) -> fmt::Result {
        let (now, sights) = (Millis::now(), self.seen.sights().clone());
        let sight = |source: &Source| sights.get(source).copied().unwrap_or_default();
        let lags: Vec<(Source, (u64, i64))> =
            states.iter().filter_map(|(source, state)| Some((*source, lag(status(state)?, sight(source).end?, now)))).collect();
        let mut records =
            encoder.encode_descriptor("tallymark_lag_records", "Records of the log that are not folded yet", None, MetricType::Gauge)?;
        for (source, (behind, _)) in &lags {
            ConstGauge::new(float(*behind)).encode(records.encode_family(&label(*source))?)?;
        }
        const HELP: &str = "How long ago the last folded record was appended, while there are others; 0 at the log's end";
        let mut ages = encoder.encode_descriptor("tallymark_lag_seconds", HELP, None, MetricType::Gauge)?;
        for (source, (_, behind_ms)) in &lags {
            ConstGauge::new(seconds(*behind_ms)).encode(ages.encode_family(&label(*source))?)?;
        }
        encode_ages(&mut encoder, states.keys().filter_map(|source| Some((*source, sight(source).stored?))), now)
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
