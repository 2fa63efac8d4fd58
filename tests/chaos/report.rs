//! One line for each fault, past the test harness, which swallows what a passing test prints.

use std::io::Write as _;
use std::time::Duration;

/// What a fault cost.
pub(crate) struct Report {
    pub(crate) fault: String,
    pub(crate) strikes: u32,
    /// Events sent, acknowledged since the fault's test began.
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) per_second: f64,
    /// Since the scene began: views shown, and views that there should be.
    pub(crate) counted: i64,
    pub(crate) expected: i64,
    pub(crate) lost: i64,
    pub(crate) doubled: i64,
    /// From the fault to the first fresh answer, the slowest of all strikes.
    pub(crate) fresh: Duration,
    /// The longest time without an acknowledgement, and without an answer.
    pub(crate) log: Duration,
    pub(crate) answers: Duration,
    pub(crate) took: Duration,
}

impl Report {
    pub(crate) fn print(&self) {
        let s = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        Self::say(&format!(
            "{} ({} times, {}): sent {}, acknowledged {} ({:.0}/s); counted so far {} of {}, lost {}, doubled {}; \
             first fresh answer after {} at most; longest without acknowledgement {}, without answer {}",
            self.fault,
            self.strikes,
            s(self.took),
            self.sent,
            self.acknowledged,
            self.per_second,
            self.counted,
            self.expected,
            self.lost,
            self.doubled,
            s(self.fresh),
            s(self.log),
            s(self.answers),
        ));
    }

    /// A line in any case.
    pub(crate) fn say(line: &str) {
        // Nobody may be listening.
        drop(std::io::stderr().write_all(format!("chaos: {line}\n").as_bytes()));
    }
}
