//! A worker's place for one source: its owner, and what is under way for it.

use std::time::{Duration, Instant};

use schemas::{Offset, Source};

use crate::owner::Owner;

/// One time of folding a source. A source that goes to another process and comes back has a new term, so that an answer
/// that was meant for the owner before is not taken for one to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeatId {
    pub(super) source: Source,
    pub(super) term: u64,
}

/// One source and what is under way for it.
pub(super) struct Seat {
    pub(super) id: SeatId,
    pub(super) owner: Option<Box<Owner>>,
    pub(super) starting: bool,
    /// When to try to start again.
    pub(super) start_at: Duration,
    /// When to try to read again, after the log could not.
    pub(super) read_at: Duration,
    /// When to try to tick again, after a tick that failed.
    pub(super) tick_at: Option<Duration>,
    pub(super) stopped: bool,
    /// It is given away: when it is let go at the latest.
    pub(super) leaving: Option<Instant>,
    /// It came back while it was given away.
    pub(super) next: Option<SeatId>,
    /// The offset that lag tools were told.
    pub(super) reported: Option<Offset>,
}

impl Seat {
    pub(super) const fn new(id: SeatId) -> Self {
        Self {
            id,
            owner: None,
            starting: false,
            start_at: Duration::ZERO,
            read_at: Duration::ZERO,
            tick_at: None,
            stopped: false,
            leaving: None,
            next: None,
            reported: None,
        }
    }

    /// Whether it folds nothing that is not stored.
    pub(super) fn is_drained(&self) -> bool {
        self.stopped || self.owner.as_ref().is_none_or(|owner| owner.is_drained())
    }

    /// Whether it can be let go now.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        self.leaving.is_some_and(|until| now >= until || self.is_drained())
    }

    /// The next moment at which it may have something to do without being told anything.
    pub(super) fn deadline(&self) -> Duration {
        match &self.owner {
            _ if self.stopped => Duration::MAX,
            Some(owner) => {
                let at = self.tick_at.map_or(owner.deadline(), |tick| tick.min(owner.deadline()));
                // A read that has to wait is due at its time; one that need not is woken by the log.
                if self.read_at > Duration::ZERO { at.min(self.read_at) } else { at }
            }
            None if self.starting => Duration::MAX,
            None => self.start_at,
        }
    }
}
