//! Whether a source's records go to the log or to disk. Pure: time is an argument.
//!
//! ```text
//!            an append fails, or one waits for longer than PATIENCE
//!   to the log ──────────────────────────────────────────────────> to disk
//!        ^                                                            │
//!        └──────────── a probe was appended ──────────────────────────┘
//! ```
//!
//! What was handed to the log is never spooled, whatever becomes of it: it may be there. So the appends that were under way when a
//! log went away fail as they would without a spool, and only those after them go to disk.

use std::time::{Duration, Instant};

/// A log that has acknowledged nothing for so long, though something waits for it, is away.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Where a source's next records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Log,
    Disk,
}

/// What is known of one source's log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gate {
    away: bool,
    /// So many appends wait for the log.
    waiting: usize,
    /// Since when none was acknowledged although one waits.
    silent_since: Option<Instant>,
}

impl Gate {
    /// The way of an append that begins; one that goes to the log must tell how it [`Gate::ended`].
    pub(super) fn begin(&mut self, now: Instant) -> Way {
        let silent = self.silent_since.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
        self.away |= silent;
        if self.away {
            return Way::Disk;
        }
        self.waiting += 1;
        self.silent_since.get_or_insert(now);
        Way::Log
    }

    /// An append that went to the log has ended, acknowledged or because the log is away, or for a reason of its own (neither).
    pub(super) fn ended(&mut self, outcome: Outcome, now: Instant) {
        self.waiting = self.waiting.saturating_sub(1);
        match outcome {
            Outcome::Acknowledged => self.silent_since = Some(now),
            Outcome::Away => self.away = true,
            Outcome::Refused => {}
        }
        if self.waiting == 0 {
            self.silent_since = None;
        }
    }

    /// The log answers again.
    pub(super) fn back(&mut self) {
        self.away = false;
        // Those that waited through it end in their own time.
        self.silent_since = None;
    }

    pub(super) const fn is_away(&self) -> bool {
        self.away
    }
}

/// How an append ended, as far as it says anything of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    Away,
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn records_go_to_disk_once_an_append_has_failed_and_back_when_the_log_is_back() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.begin(now), Way::Log);
        gate.ended(Outcome::Refused, now);
        assert_eq!(gate.begin(now), Way::Log);
        gate.ended(Outcome::Away, now);
        assert_eq!((gate.begin(now), gate.is_away()), (Way::Disk, true));
        gate.back();
        assert_eq!(gate.begin(now), Way::Log);
    }

    #[test]
    fn a_log_that_is_silent_while_something_waits_is_away_before_that_fails() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.begin(now), Way::Log);
        assert_eq!(gate.begin(now + PATIENCE - SECOND), Way::Log);
        assert_eq!(gate.begin(now + PATIENCE), Way::Disk);
    }

    #[test]
    fn a_log_that_acknowledges_anything_is_there_however_much_waits_and_an_idle_one_is_not_silent() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        for beat in 0..10 {
            assert_eq!(gate.begin(now + SECOND * beat), Way::Log);
            assert_eq!(gate.begin(now + SECOND * beat), Way::Log);
            gate.ended(Outcome::Acknowledged, now + SECOND * beat);
        }
        for _ in 0..10 {
            gate.ended(Outcome::Acknowledged, now + SECOND * 10);
        }
        assert_eq!(gate.begin(now + SECOND * 3_600), Way::Log);
    }

    #[test]
    fn what_waited_through_an_outage_does_not_close_the_gate_again_at_once() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.begin(now), Way::Log);
        assert_eq!(gate.begin(now + PATIENCE), Way::Disk);
        gate.back();
        assert_eq!(gate.begin(now + PATIENCE + SECOND), Way::Log);
    }
}
