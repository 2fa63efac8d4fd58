//! Events gathered into batches, which are cut by number, bytes and time. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::event::Event;

/// Events as NDJSON, and where they came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) body: Vec<u8>,
    pub(crate) events: u32,
    /// The number of its first event among all that were sent; 0 for what an earlier process left.
    pub(crate) from_seq: u64,
    /// When it may first have been taken without an answer that says so, in ms since 1970: it is *in doubt* since then.
    pub(crate) doubt_since_ms: Option<u64>,
}

/// When a batch is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) events: u32,
    pub(crate) bytes: usize,
    /// How long the first event of a batch waits for others.
    pub(crate) linger: Duration,
}

/// A batch in the making.
#[derive(Debug)]
pub(crate) struct Batcher {
    cut: Cut,
    batch: Batch,
    opened: Option<Instant>,
    /// Room for a line until it is known whether it fits.
    spare: Vec<u8>,
}

impl Batcher {
    pub(crate) fn new(cut: Cut) -> Self {
        Self { cut, batch: Batch::default(), opened: None, spare: Vec::new() }
    }

    /// Adds an event; the batch before it, if it did not fit into that.
    pub(crate) fn push(&mut self, event: &Event, seq: u64, now: Instant) -> Option<Batch> {
        self.spare.clear();
        event.write_line(&mut self.spare);
        let full =
            self.batch.events > 0 && (self.batch.events >= self.cut.events || self.batch.body.len() + self.spare.len() > self.cut.bytes);
        let before = if full { self.take() } else { None };
        if self.batch.events == 0 {
            self.batch.from_seq = seq;
            self.opened = Some(now);
        }
        self.batch.body.extend_from_slice(&self.spare);
        self.batch.events += 1;
        before
    }

    /// When what is in it is due, if there is anything.
    pub(crate) fn due(&self) -> Option<Instant> {
        let opened = self.opened?;
        Some(if self.batch.events >= self.cut.events { opened } else { opened + self.cut.linger })
    }

    /// How many events are in it.
    pub(crate) fn events(&self) -> u32 {
        self.batch.events
    }

    /// What is in it.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        self.opened = None;
        let room = self.batch.body.len().min(self.cut.bytes);
        let next = Batch { body: Vec::with_capacity(room), ..Batch::default() };
        Some(std::mem::replace(&mut self.batch, next)).filter(|batch| batch.events > 0)
    }

    /// The number of the first event in it.
    pub(crate) fn first_seq(&self) -> Option<u64> {
        (self.batch.events > 0).then_some(self.batch.from_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Kind};

    fn event(video_id: &str) -> Event {
        let event_id = EventId::Own("e".into());
        Event { event_id, video_id: video_id.into(), ts_ms: 1, space_id: None, viewer_id: None, watch_ms: None, kind: Kind::View }
    }

    #[test]
    fn a_batch_is_cut_by_number_by_bytes_and_by_time() {
        let (start, linger) = (Instant::now(), Duration::from_millis(200));
        let line = 39;
        let mut by_number = Batcher::new(Cut { events: 2, bytes: 1_000, linger });
        let mut by_bytes = Batcher::new(Cut { events: 1_000, bytes: 2 * line, linger });
        for batcher in [&mut by_number, &mut by_bytes] {
            assert_eq!((batcher.push(&event("a"), 7, start), batcher.push(&event("b"), 8, start)), (None, None));
            let cut = batcher.push(&event("c"), 9, start + linger / 2).unwrap();
            assert_eq!((cut.events, cut.body.len(), cut.from_seq), (2, 2 * line, 7));
            assert_eq!((batcher.due(), batcher.first_seq()), (Some(start + linger * 3 / 2), Some(9)));
            assert_eq!((batcher.events(), batcher.take().unwrap().from_seq), (1, 9));
            assert_eq!((batcher.due(), batcher.take(), batcher.first_seq()), (None, None, None));
        }
    }

    #[test]
    fn a_full_batch_is_due_at_once() {
        let now = Instant::now();
        let mut batcher = Batcher::new(Cut { events: 1, bytes: 1_000, linger: Duration::from_secs(9) });
        batcher.push(&event("a"), 0, now);
        assert_eq!(batcher.due(), Some(now));
    }

    #[test]
    fn an_event_larger_than_a_batch_is_one_by_itself() {
        let now = Instant::now();
        let mut batcher = Batcher::new(Cut { events: 9, bytes: 10, linger: Duration::ZERO });
        assert_eq!(batcher.push(&event("a"), 0, now), None);
        assert_eq!(batcher.push(&event("b"), 1, now).unwrap().events, 1);
    }
}
