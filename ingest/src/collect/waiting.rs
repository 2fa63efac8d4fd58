//! How many bytes of bodies wait for each source of the log, so that one that has become slow takes no memory from the others.
//!
//! A body counts for each source that it has events for, from before it is appended until all of it is answered. A source that
//! three quarters of all memory for bodies wait for takes no more; who has events for others alone does not notice. A log of one
//! source has nobody to protect.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use schemas::Source;

/// What waits for each source.
#[derive(Debug)]
pub(super) struct Waiting {
    bytes: Vec<AtomicUsize>,
    most: usize,
}

impl Waiting {
    /// For so many sources, when all bodies may hold `budget_bytes`.
    pub(super) fn new(sources: u32, budget_bytes: u32) -> Self {
        let sources = usize::try_from(sources).unwrap_or(usize::MAX);
        let budget = usize::try_from(budget_bytes).unwrap_or(usize::MAX);
        let most = if sources == 1 { usize::MAX } else { budget - budget / 4 };
        Self { bytes: (0..sources).map(|_| AtomicUsize::new(0)).collect(), most }
    }

    /// Lets a body of `bytes` wait for its sources.
    ///
    /// # Errors
    /// The source that as much waits for as may. A body is let in where nothing else waits.
    pub(super) fn enter(self: &Arc<Self>, sources: impl Iterator<Item = Source>, bytes: usize) -> Result<Turn, Source> {
        let mut turn = Turn { waiting: Arc::clone(self), sources: Vec::new(), bytes };
        for source in sources {
            let Some((at, slot)) = usize::try_from(source.0).ok().and_then(|at| Some((at, self.bytes.get(at)?))) else { continue };
            let before = slot.fetch_add(bytes, Ordering::Relaxed);
            turn.sources.push(at);
            if before > 0 && before.saturating_add(bytes) > self.most {
                return Err(source);
            }
        }
        Ok(turn)
    }
}

/// A body that waits; dropped when it is answered.
#[derive(Debug)]
pub(super) struct Turn {
    waiting: Arc<Waiting>,
    sources: Vec<usize>,
    bytes: usize,
}

impl Drop for Turn {
    fn drop(&mut self) {
        for slot in self.sources.iter().filter_map(|at| self.waiting.bytes.get(*at)) {
            slot.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(waiting: &Arc<Waiting>, sources: &[u32], bytes: usize) -> Result<Turn, Source> {
        waiting.enter(sources.iter().copied().map(Source), bytes)
    }

    #[test]
    fn a_source_that_much_waits_for_takes_no_more_and_the_others_do() {
        let waiting = Arc::new(Waiting::new(2, 1_000));
        let held = [enter(&waiting, &[0], 400).unwrap(), enter(&waiting, &[0, 1], 350).unwrap()];
        assert_eq!(enter(&waiting, &[0], 1).unwrap_err(), Source(0));
        assert_eq!(enter(&waiting, &[1, 0], 1).unwrap_err(), Source(0));
        assert!(enter(&waiting, &[1], 400).is_ok());
        drop(held);
        assert!(waiting.bytes.iter().all(|slot| slot.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_body_of_any_size_is_let_in_where_nothing_waits_and_one_source_has_no_bound() {
        assert!(enter(&Arc::new(Waiting::new(4, 1_000)), &[3], 5_000).is_ok());
        let alone = Arc::new(Waiting::new(1, 1_000));
        let _held = enter(&alone, &[0], 990).unwrap();
        assert!(enter(&alone, &[0], 990).is_ok());
    }
}
