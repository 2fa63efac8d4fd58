//! Rows whose time to live has passed go when the database merges its files.
//!
//! Both the clock and the times to live come from the stored checkpoints: a machine whose clock runs wild, or a program that was
//! configured otherwise (and that the fold then refuses), must not lose counts. The planner stops asking for a bucket, and the fold
//! stops changing it, the moment its time has passed; the row goes a day later at the earliest.

use std::sync::{Arc, Mutex, PoisonError};

use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};
use schemas::{CellKey, Checkpoint, CodecError, FoldSettings, Millis};

const SLACK_MS: i64 = 86_400_000;

/// How a table's keys are read.
type Decode = fn(&[u8]) -> Result<CellKey, CodecError>;

/// What the checkpoints say of time.
#[derive(Clone, Default)]
pub(super) struct Expiry(Arc<Mutex<Option<Rules>>>);

#[derive(Clone)]
struct Rules {
    clock: Millis,
    settings: FoldSettings,
}

impl Expiry {
    /// A checkpoint is stored.
    pub(super) fn advance(&self, checkpoint: &Checkpoint) {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rules.as_ref().is_none_or(|rules| rules.clock < checkpoint.clock) {
            *rules = Some(Rules { clock: checkpoint.clock, settings: checkpoint.settings.clone() });
        }
    }

    /// What removes expired rows from a table of cells; other tables keep everything.
    pub(super) fn filter_of(&self, table: &str) -> Option<Arc<dyn Factory>> {
        let decode: Decode = match table {
            "views_by_minute" => |key| CellKey::decode(key, true),
            "views_rollup" => |key| CellKey::decode(key, false),
            "views_by_bucket" => CellKey::decode_by_bucket,
            _ => return None,
        };
        Some(Arc::new(Filters { expiry: self.clone(), decode }))
    }
}

impl Rules {
    fn is_expired(&self, key: &[u8], decode: Decode) -> bool {
        if self.settings.minute_ttl_ms == 0 && self.settings.hour_ttl_ms == 0 {
            return false;
        }
        // What is not a key of ours is left for a reader to find and name.
        decode(key).is_ok_and(|key| key.bucket.is_expired(self.clock.plus(-SLACK_MS), self.settings.ttl_ms(key.bucket.tier)))
    }
}

struct Filters {
    expiry: Expiry,
    decode: Decode,
}

impl Factory for Filters {
    fn name(&self) -> &'static str {
        "time to live"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let rules = self.expiry.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::new(Filter { rules, decode: self.decode })
    }
}

/// The filter of one merge.
struct Filter {
    rules: Option<Rules>,
    decode: Decode,
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let expired = self.rules.as_ref().is_some_and(|rules| rules.is_expired(item.key(), self.decode));
        Ok(if expired { Verdict::Remove } else { Verdict::Keep })
    }
}
