//! Which sources this process folds, when several processes share them.
//!
//! ```text
//! group of processes ──> assigned() ──> the workers fold these ──> revoked: they store what they have ──> release()
//! ```
//!
//! Membership is a division of labour and nothing more: two processes that fold the same source for a while write the same rows.
//! So nobody waits for it to be settled, and a process that was cut off may go on until it hears of it.

use std::collections::BTreeSet;
use std::time::Duration;

use schemas::{Offset, Source};

/// A process's part in folding a log.
pub trait Membership: Send + Sync + 'static {
    /// Waits until the assignment is another one than that of generation `seen`, or until `timeout`; returns the present one.
    /// Generations start at 1.
    fn assigned(&self, seen: u64, timeout: Duration) -> Assignment;

    /// This process has stored what it read of a source that was taken from it: the next process may begin. Without it, the next
    /// begins after a few seconds.
    fn release(&self, source: Source);

    /// Tells ordinary tools how far a source has been counted. It may be lost; nothing of ours reads it.
    fn report(&self, source: Source, next: Offset);

    /// Gives up all sources at once, so that others need not wait to notice. Blocks until that is known or has failed.
    fn leave(&self);
}

/// What a process is to fold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Grows with every change.
    pub generation: u64,
    /// The sources.
    pub sources: BTreeSet<Source>,
}
