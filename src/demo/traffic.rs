//! What the demo's viewers do: which view comes next, and how many come in a second. Pure: the same seed gives the same views.
//!
//! A few videos have most views (Zipf), a "day" passes in some minutes (diurnal curve), one video goes viral in the middle,
//! some phones come late with what they saw minutes ago, and some views are sent twice.

use std::f64::consts::TAU;
use std::time::Duration;

/// How the traffic looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) videos: u32,
    /// Views a second in the mean of a day.
    pub(super) rate: f64,
    pub(super) duration: Duration,
    /// How long a day of the curve takes.
    pub(super) day: Duration,
    pub(super) late_percent: u64,
    pub(super) duplicate_percent: u64,
}

/// One view to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) video: u32,
    pub(super) viewer: u64,
    pub(super) watch_ms: u64,
    /// How long ago it was, when it is sent.
    pub(super) late: Duration,
    /// Whether it is sent twice.
    pub(super) twice: bool,
}

/// A late phone was offline for at most this.
const LATEST_MS: u64 = 5 * 60 * 1_000;
/// The share of a viral video at its height.
const VIRAL_PERCENT: u64 = 40;
/// From here to there of the duration it is viral, in percent.
const VIRAL: (u64, u64) = (30, 70);
const VIEWERS: u64 = 100_000;
/// A space is a channel of so many videos.
const VIDEOS_OF_A_SPACE: u32 = 20;

/// The views, one after the other.
#[derive(Debug)]
pub(super) struct Traffic {
    shape: Shape,
    dice: Dice,
    /// The part of all views that the videos up to each have, in parts of `u32::MAX`.
    shares: Vec<u64>,
}

impl Traffic {
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        let weights: Vec<u64> = (1..=u64::from(shape.videos)).map(|rank| (1 << 40) / rank).collect();
        let total = u128::from(weights.iter().sum::<u64>().max(1));
        let mut sum = 0_u128;
        let share = |weight: &u64| {
            sum += u128::from(*weight);
            u64::try_from(sum * u128::from(u32::MAX) / total).unwrap_or(u64::MAX)
        };
        let shares = weights.iter().map(share).collect();
        Self { shape, dice: Dice(seed), shares }
    }

    /// How many views should have been sent after so long: the integral of the curve.
    pub(super) fn due(&self, elapsed: Duration) -> f64 {
        let Shape { rate, day, .. } = self.shape;
        let (t, day) = (elapsed.as_secs_f64(), day.as_secs_f64().max(1.0));
        // rate * (1 - 0.6 cos(2 pi t / day)): it begins at night.
        rate * (t - 0.6 * day / TAU * (TAU * t / day).sin())
    }

    /// The next view, after so long.
    pub(super) fn next(&mut self, elapsed: Duration) -> Planned {
        let percent_of_time = elapsed.as_millis() * 100 / self.shape.duration.as_millis().max(1);
        let viral = (u128::from(VIRAL.0)..u128::from(VIRAL.1)).contains(&percent_of_time) && self.dice.percent() < VIRAL_PERCENT;
        let ranked = self.ranked();
        // It was the least viewed of all.
        let video = if viral { self.shape.videos.saturating_sub(1) } else { ranked };
        let late_ms = if self.dice.percent() < self.shape.late_percent { self.dice.below(LATEST_MS) } else { 0 };
        Planned {
            video,
            viewer: self.dice.below(VIEWERS),
            watch_ms: 1_000 + self.dice.below(180_000),
            late: Duration::from_millis(late_ms),
            twice: self.dice.percent() < self.shape.duplicate_percent,
        }
    }

    /// A video by its share of the views.
    fn ranked(&mut self) -> u32 {
        let roll = self.dice.below(u64::from(u32::MAX));
        let rank = self.shares.partition_point(|up_to| *up_to <= roll);
        u32::try_from(rank).unwrap_or(0).min(self.shape.videos.saturating_sub(1))
    }
}

/// The space of a video.
pub(super) const fn space_of(video: u32) -> u32 {
    video / VIDEOS_OF_A_SPACE
}

/// Numbers that look random and are the same for a seed (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    fn percent(&mut self) -> u64 {
        self.below(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const SHAPE: Shape = Shape {
        videos: 100,
        rate: 200.0,
        duration: Duration::from_secs(100),
        day: Duration::from_secs(100),
        late_percent: 3,
        duplicate_percent: 2,
    };

    fn views(seed: u64, second: u64, n: u32) -> Vec<Planned> {
        let mut traffic = Traffic::new(SHAPE, seed);
        (0..n).map(|_| traffic.next(Duration::from_secs(second))).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_views_and_another_gives_others() {
        assert_eq!(views(7, 0, 1_000), views(7, 0, 1_000));
        assert_ne!(views(7, 0, 1_000), views(8, 0, 1_000));
    }

    #[test]
    fn a_few_videos_have_most_views_and_one_goes_viral_for_a_while() {
        let by_video = |second| {
            let mut counts = HashMap::<u32, u32>::new();
            views(1, second, 20_000).iter().for_each(|view| *counts.entry(view.video).or_default() += 1);
            counts
        };
        let (night, height) = (by_video(0), by_video(50));
        // The harmonic numbers: 1/H(100) = 19 % for the first, half of that for the second.
        assert!((3_600..4_200).contains(&night[&0]) && (1_750..2_150).contains(&night[&1]), "{night:?}");
        assert!(night[&99] < 100 && height[&99] > 7_500, "{} {}", night[&99], height[&99]);
        assert!(night.keys().all(|video| *video < 100));
    }

    #[test]
    fn some_are_late_and_some_are_sent_twice() {
        let views = views(1, 0, 20_000);
        let late = views.iter().filter(|view| !view.late.is_zero()).count();
        let twice = views.iter().filter(|view| view.twice).count();
        assert!((500..700).contains(&late) && (330..470).contains(&twice), "{late} {twice}");
        assert!(views.iter().all(|view| view.late < Duration::from_millis(LATEST_MS)));
    }

    #[test]
    fn nights_are_quiet_noons_are_busy_and_a_day_has_its_rate() {
        let traffic = Traffic::new(SHAPE, 1);
        let in_second = |second: u64| traffic.due(Duration::from_secs(second + 1)) - traffic.due(Duration::from_secs(second));
        assert!(in_second(0) < 90.0 && in_second(50) > 310.0);
        assert!((traffic.due(SHAPE.duration) - 20_000.0).abs() < 1.0);
    }

    #[test]
    fn one_video_is_enough() {
        let mut traffic = Traffic::new(Shape { videos: 1, ..SHAPE }, 3);
        assert!((0..1_000).all(|_| traffic.next(Duration::from_secs(50)).video == 0));
    }
}
