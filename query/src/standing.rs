//! What an answer is worth: how long it lasts, and how old it is if the store could not be asked.

use std::time::Duration;

/// How long an answer lasts. Of parts, the whole lasts as long as the shortest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lasts {
    /// Events that are on their way still change it.
    Open,
    /// Late events, imports and corrections still change it.
    Complete,
    /// Only imports and corrections still change it.
    Final,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How long it lasts.
    pub lasts: Lasts,
    /// How long ago it was known to be true, if the store could not be asked now.
    pub stale: Option<Duration>,
}

impl Standing {
    /// An answer that is true now.
    pub const fn fresh(lasts: Lasts) -> Self {
        Self { lasts, stale: None }
    }

    /// For how many seconds it has been stale, rounded up.
    pub fn stale_seconds(self) -> Option<u64> {
        self.stale.map(|age| age.as_secs() + u64::from(age.subsec_nanos() > 0))
    }

    /// Of an answer that is made of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { lasts: self.lasts.min(other.lasts), stale: self.stale.max(other.stale) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_lasts_as_its_shortest_part_and_is_as_old_as_its_oldest() {
        let (open, last) = (Standing::fresh(Lasts::Open), Standing::fresh(Lasts::Final));
        let old = Standing { lasts: Lasts::Complete, stale: Some(Duration::from_secs(7)) };
        assert_eq!(open.and(last), open);
        assert_eq!(last.and(old), old);
        assert_eq!(old.and(open), Standing { lasts: Lasts::Open, ..old });
    }
}
