//! The bounded queue between the application's threads and the sender's. The only thing that `send()` waits for is its lock,
//! which is held for a push or for taking a chunk: tens of nanoseconds, and never over I/O or an allocation of more than a chunk.
//!
//! Events are numbered as they come; what is not in the queue any more is the sender's.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event::Event;

/// So many events are taken at once; a queue never moves what it holds.
const CHUNK: usize = 512;

#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    max_events: usize,
    max_bytes: usize,
    /// The sender is woken when so many more have come.
    wake_every: u64,
}

#[derive(Debug, Default)]
struct Inner {
    chunks: VecDeque<Vec<Event>>,
    events: usize,
    bytes: usize,
    pushed: u64,
    closed: bool,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// It is in; the sender should look.
    Wake,
    /// It is in; the sender will look by itself.
    In,
    Full,
    Closed,
}

impl Queue {
    pub(crate) fn new(max_events: usize, max_bytes: usize, wake_every: u64) -> Self {
        Self { inner: Mutex::default(), max_events, max_bytes, wake_every: wake_every.max(1) }
    }

    pub(crate) fn push(&self, event: Event) -> Push {
        let weight = event.weight();
        let mut inner = self.lock();
        if inner.closed {
            return Push::Closed;
        }
        if inner.events >= self.max_events || inner.bytes.saturating_add(weight) > self.max_bytes {
            return Push::Full;
        }
        let was_empty = inner.events == 0;
        inner.events += 1;
        inner.bytes += weight;
        inner.pushed += 1;
        let wake = was_empty || inner.pushed.is_multiple_of(self.wake_every);
        match inner.chunks.back_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push(event),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(event);
                inner.chunks.push_back(chunk);
            }
        }
        if wake { Push::Wake } else { Push::In }
    }

    /// The oldest events, at most a chunk of them.
    pub(crate) fn take(&self) -> Vec<Event> {
        let mut inner = self.lock();
        let chunk = inner.chunks.pop_front().unwrap_or_default();
        inner.events -= chunk.len().min(inner.events);
        let weight: usize = chunk.iter().map(Event::weight).sum();
        inner.bytes -= weight.min(inner.bytes);
        chunk
    }

    /// How many events are in it.
    pub(crate) fn len(&self) -> usize {
        self.lock().events
    }

    /// How many events ever came in.
    pub(crate) fn pushed(&self) -> u64 {
        self.lock().pushed
    }

    /// Lets nothing more in.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Kind};

    fn event(n: usize) -> Event {
        let video_id = n.to_string();
        Event {
            event_id: EventId::Own(String::new()),
            video_id,
            ts_ms: 0,
            space_id: None,
            viewer_id: None,
            watch_ms: None,
            kind: Kind::View,
        }
    }

    #[test]
    fn what_comes_in_goes_out_in_order() {
        let queue = Queue::new(10_000, usize::MAX, 1_000);
        (0..2_000).for_each(|n| assert!(matches!(queue.push(event(n)), Push::In | Push::Wake)));
        let mut out = Vec::new();
        loop {
            let chunk = queue.take();
            if chunk.is_empty() {
                break;
            }
            out.extend(chunk.into_iter().map(|event| event.video_id));
        }
        assert_eq!(out, (0..2_000).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!((queue.pushed(), queue.len()), (2_000, 0));
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn it_is_bounded_in_events_and_in_bytes_and_has_room_again() {
        let few = Queue::new(3, usize::MAX, 100);
        let light = Queue::new(usize::MAX, 3 * event(0).weight(), 100);
        for queue in [few, light] {
            let pushes: Vec<Push> = (0..4).map(|n| queue.push(event(n))).collect();
            assert_eq!(pushes, [Push::Wake, Push::In, Push::In, Push::Full]);
            assert_eq!((queue.take().len(), queue.push(event(4)), queue.pushed()), (3, Push::Wake, 4));
        }
    }

    #[test]
    fn the_sender_is_woken_by_the_first_event_and_by_every_batch() {
        let queue = Queue::new(100, usize::MAX, 4);
        let woken: Vec<bool> = (0..9).map(|n| queue.push(event(n)) == Push::Wake).collect();
        assert_eq!(woken, [true, false, false, true, false, false, false, true, false]);
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has() {
        let queue = Queue::new(100, usize::MAX, 4);
        queue.push(event(0));
        queue.close();
        assert_eq!((queue.push(event(1)), queue.take().len()), (Push::Closed, 1));
    }
}
