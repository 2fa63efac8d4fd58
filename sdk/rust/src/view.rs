//! A view in the making: what `client.view(...)` gives and `send()` ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::client::Client;
use crate::event::{Event, EventId, Kind};

/// A view that is not sent yet.
#[derive(Debug)]
#[must_use = "a view is sent by send()"]
pub struct View<'a> {
    client: &'a Client,
    video_id: String,
    event_id: Option<String>,
    ts_ms: Option<i64>,
    space_id: Option<String>,
    viewer_id: Option<String>,
    watch_ms: Option<u64>,
    kind: Kind,
}

/// What became of a `send()`. There is nothing to handle: an observer hears of everything that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It will be sent.
    Queued,
    /// Queue and spool are full, it is dropped.
    QueueFull,
    /// The client was shut down before, it is dropped.
    Closed,
}

impl<'a> View<'a> {
    pub(crate) fn new(client: &'a Client, video_id: String) -> Self {
        Self { client, video_id, event_id: None, ts_ms: None, space_id: None, viewer_id: None, watch_ms: None, kind: Kind::View }
    }

    /// The channel in which it was viewed; its counts are summed for the channel, too.
    pub fn space(mut self, space_id: impl Into<String>) -> Self {
        self.space_id = Some(space_id.into());
        self
    }

    /// Who viewed it.
    pub fn viewer(mut self, viewer_id: impl Into<String>) -> Self {
        self.viewer_id = Some(viewer_id.into());
        self
    }

    /// For how long it was watched, in milliseconds.
    pub fn watch_ms(mut self, watch_ms: u64) -> Self {
        self.watch_ms = Some(watch_ms);
        self
    }

    /// When it was viewed; now, if nothing is said. Tallymark rejects what is older than its `max_lateness` (7 days) and what is
    /// more than a minute ahead, after it has corrected this machine's clock by its own.
    pub fn at(mut self, time: SystemTime) -> Self {
        self.ts_ms = Some(unix_ms(time));
        self
    }

    /// That the viewer was engaged: counted apart from views.
    pub fn engaged(mut self) -> Self {
        self.kind = Kind::Engaged;
        self
    }

    /// An id of your own instead of a new UUIDv7, for events that already have one: the same id again is a duplicate and does not count.
    pub fn event_id(mut self, event_id: impl Into<String>) -> Self {
        self.event_id = Some(event_id.into());
        self
    }

    /// Puts it into the client's queue: well under a microsecond, no I/O, never blocks, never panics.
    pub fn send(self) -> Outcome {
        let event_id = self.event_id.map_or_else(|| EventId::Uuid(Uuid::now_v7()), EventId::Own);
        let ts_ms = self.ts_ms.unwrap_or_else(|| unix_ms(SystemTime::now()));
        let Self { client, video_id, space_id, viewer_id, watch_ms, kind, .. } = self;
        client.push(Event { event_id, video_id, ts_ms, space_id, viewer_id, watch_ms, kind })
    }
}

/// Milliseconds since 1970, before it negative.
pub(crate) fn unix_ms(time: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -ms(before.duration()), ms)
}

/// Now, in ms since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(unix_ms(SystemTime::now())).unwrap_or(0)
}
