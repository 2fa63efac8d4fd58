//! The longest time for which something that should go on did not.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Told of each success; cloned, it is the same.
#[derive(Clone, Default)]
pub(crate) struct Gap(Arc<Mutex<Span>>);

#[derive(Default)]
struct Span {
    last: Option<Instant>,
    longest: Duration,
}

impl Gap {
    /// Begins anew.
    pub(crate) fn begin(&self) {
        *self.0.lock().unwrap() = Span { last: Some(Instant::now()), longest: Duration::ZERO };
    }

    /// It went on.
    pub(crate) fn beat(&self) {
        let mut span = self.0.lock().unwrap();
        if let Some(last) = span.last {
            span.longest = span.longest.max(last.elapsed());
            span.last = Some(Instant::now());
        }
    }

    /// The longest since the beginning, also the one that has not ended.
    pub(crate) fn longest(&self) -> Duration {
        let span = self.0.lock().unwrap();
        span.longest.max(span.last.map(|last| last.elapsed()).unwrap_or_default())
    }
}
