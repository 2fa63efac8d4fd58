//! What the archive shows to Prometheus.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Whose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfSource {
    pub(super) source: u32,
}

type BySource = Family<OfSource, Gauge<u64, AtomicU64>>;

/// Counters of this process, and what the manifests said when they were last read. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ArchiveMetrics {
    pub(super) lag: BySource,
    pub(super) files: BySource,
    pub(super) bytes: BySource,
    pub(super) rows: Counter,
    pub(super) written: Counter,
    pub(super) compactions: Counter,
    pub(super) failures: Counter,
}

impl ArchiveMetrics {
    /// Something failed, and will be tried again.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let archive = registry.sub_registry_with_prefix("archive");
        archive.register("lag_records", "Records of the log that are not archived yet", self.lag.clone());
        archive.register("files", "Committed files", self.files.clone());
        archive.register_with_unit("size", "Size of the committed files", Unit::Bytes, self.bytes.clone());
        archive.register("rows", "Rows that this process archived", self.rows.clone());
        archive.register_with_unit("written", "What this process wrote, compaction included", Unit::Bytes, self.written.clone());
        archive.register("compactions", "Times that this process made several files one", self.compactions.clone());
        archive.register("failures", "Attempts of this process that failed and are made again", self.failures.clone());
    }
}
