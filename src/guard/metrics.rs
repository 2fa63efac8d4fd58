//! Whom the door refused, for Prometheus. All names begin with `keys_` after the registry's own prefix.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Requests that did not pass. Clones share their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    refused: Family<ByReason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

impl Refusals {
    /// Makes them visible in `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("keys");
        registry.register("refused", "Requests refused for the key that they show or lack, by reason", self.refused.clone());
    }

    pub(super) fn count(&self, reason: &'static str) {
        self.refused.get_or_create(&ByReason { reason }).inc();
    }
}
