//! How many requests may be under way at once: additive increase, multiplicative decrease. Pure; time is an argument.
//!
//! The cluster says by its answers what it bears. Each full round of successes admits one request more; a sign of overload halves the
//! limit, once for each round: what was sent before the last cut says nothing of the limit after it.
//! The rule is that of TCP congestion avoidance (Chiu and Jain 1989), under which several processes come to equal shares.

use std::time::Instant;

/// The limit and what it has seen.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    current: u32,
    most: u32,
    /// Successes since the limit last changed.
    successes: u32,
    cut_at: Option<Instant>,
}

impl Limit {
    /// Begins at `first`, and stays between 1 and `most`.
    pub(super) const fn new(first: u32, most: u32) -> Self {
        Self { current: first, most, successes: 0, cut_at: None }
    }

    /// So many requests may be under way.
    pub(super) const fn current(&self) -> u32 {
        self.current
    }

    /// A request that began at `started` succeeded when `running` were under way, itself included. A limit that is not used up is not tried,
    /// and does not grow.
    pub(super) fn succeeded(&mut self, started: Instant, running: u32) {
        if self.is_of_before(started) || running.saturating_mul(2) < self.current {
            return;
        }
        self.successes = self.successes.saturating_add(1);
        if self.successes >= self.current {
            self.current = self.current.saturating_add(1).min(self.most);
            self.successes = 0;
        }
    }

    /// A request that began at `started` found the cluster overloaded.
    pub(super) fn overloaded(&mut self, started: Instant, now: Instant) {
        if self.is_of_before(started) {
            return;
        }
        self.current = (self.current / 2).max(1);
        self.successes = 0;
        self.cut_at = Some(now);
    }

    fn is_of_before(&self, started: Instant) -> bool {
        self.cut_at.is_some_and(|cut_at| started <= cut_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What becomes of a limit of `first`, at most 10: `+` is a success at the limit, `-` an overload; `=` and `~` are an overload and a
    /// success of what was sent before all cuts.
    fn after(first: u32, signs: &str) -> u32 {
        let (mut limit, start) = (Limit::new(first, 10), Instant::now());
        let mut now = start;
        for sign in signs.chars() {
            now += Duration::from_millis(2);
            let sent = now - Duration::from_millis(1);
            match sign {
                '+' => limit.succeeded(sent, limit.current()),
                '-' => limit.overloaded(sent, now),
                '~' => limit.succeeded(start, limit.current()),
                _ => limit.overloaded(start, now),
            }
        }
        limit.current()
    }

    #[test]
    fn grows_by_one_for_each_full_round_and_halves_once_for_each_round_of_overload() {
        for (first, signs, expected) in [
            (1, "", 1),
            (1, "+", 2),
            (1, "++", 2),
            (1, "+++", 3),
            (3, "++", 3),
            (3, "+++", 4),
            (8, "-", 4),
            (8, "--", 2),
            (8, "---", 1),
            (8, "-----", 1),
            (8, "-====", 4),
            (8, "-==-", 2),
            (2, "-~~~~", 1),
            (2, "-~+~", 2),
            (9, "-", 4),
            // A cut forgets the round's successes.
            (4, "+++-+", 2),
            (4, "+++-++", 3),
            (10, "++++++++++++++++++++", 10),
        ] {
            assert_eq!(after(first, signs), expected, "{first} {signs:?}");
        }
    }

    #[test]
    fn a_limit_that_is_not_used_up_does_not_grow() {
        let mut limit = Limit::new(8, 100);
        (0..1_000).for_each(|_| limit.succeeded(Instant::now(), 3));
        assert_eq!(limit.current(), 8);
        (0..8).for_each(|_| limit.succeeded(Instant::now(), 4));
        assert_eq!(limit.current(), 9);
    }
}
