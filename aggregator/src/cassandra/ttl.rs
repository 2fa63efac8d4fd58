//! How long a written row lives. Pure.
//!
//! The time of a bucket passes by the log clock, and then nobody asks for it or changes it. The server counts from the write and by its own
//! clock, and gets a day of slack: it never lets go of a row too early.

use schemas::{FoldSettings, Millis, Tier};

const SLACK_S: i64 = 86_400;
/// The longest that CQL knows: 20 years.
const MOST_S: i64 = 630_720_000;
/// The last second that Cassandra's files (of its default format) can expire in: 2038-01-19.
const LAST_S: i64 = i32::MAX as i64 - 1;

/// The `TTL` of a row of a tier that is written at `now`, in seconds; 0 keeps it. A row whose end the server cannot note is kept: it is not asked for then.
pub(super) fn seconds(settings: &FoldSettings, tier: Tier, now: Millis) -> i32 {
    let ttl_ms = settings.ttl_ms(tier);
    if ttl_ms <= 0 {
        return 0;
    }
    let seconds = ttl_ms.saturating_add(999) / 1_000 + SLACK_S;
    if seconds > MOST_S || (now.0 / 1_000).saturating_add(seconds) > LAST_S { 0 } else { i32::try_from(seconds).unwrap_or(0) }
}

/// Refuses a time to live that no row could have.
pub(super) fn check(settings: &FoldSettings, tier: Tier) -> Result<(), String> {
    let ttl_ms = settings.ttl_ms(tier);
    if ttl_ms < 0 || ttl_ms / 1_000 + SLACK_S > MOST_S {
        return Err(format!("the time to live of {tier:?} cells is {ttl_ms} ms; it must be 0 (keep) or up to 7299 days"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn a_row_lives_a_day_longer_than_its_tier_says_and_days_and_years_for_ever() {
        let settings = FoldSettings { minute_ttl_ms: 90 * DAY_MS, hour_ttl_ms: 1, ..FoldSettings::default() };
        let now = Millis(1_795_000_000_000);
        let lives = Tier::ALL.map(|tier| seconds(&settings, tier, now));
        assert_eq!(lives, [91 * 86_400, 86_401, 0, 0]);
        assert_eq!(seconds(&FoldSettings::default(), Tier::Minute, now), 0);
    }

    #[test]
    fn what_the_server_cannot_note_is_kept() {
        let settings = FoldSettings { minute_ttl_ms: 400 * DAY_MS, hour_ttl_ms: 30 * 365 * DAY_MS, ..FoldSettings::default() };
        assert_eq!(seconds(&settings, Tier::Minute, Millis(2_120_000_000_000)), 0);
        assert_eq!(seconds(&settings, Tier::Hour, Millis(1_795_000_000_000)), 0);
        assert!(check(&settings, Tier::Minute).is_ok());
        assert!(check(&settings, Tier::Hour).is_err());
        assert!(check(&FoldSettings { minute_ttl_ms: -1, ..settings }, Tier::Minute).is_err());
    }
}
