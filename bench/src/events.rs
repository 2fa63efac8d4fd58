//! Makes events: videos drawn by Zipf's law, in the order of their arrival with a little disorder, about 160 bytes of JSON each.
//! The same for the same shape.
//!
//! A [`Generator`] also says when each event arrives at the log (`now`): that is its record's append time. What a correct count
//! of a stream is, [`Expected`] says, in a form that rows in any order can be compared with.

use std::fmt;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

/// 2025-11-20T12:00:00Z: a fixed hour, so that every run counts the same bytes.
pub(crate) const START_MS: i64 = 1_763_640_000_000;
/// An event comes to the log at most so long after it happened, unless it is late.
const DISORDER_MS: u64 = 2_000;
/// A late event happened so long before it comes: its minute is rolled up.
const LATE_MS: (u64, u64) = (120_000, 600_000);

/// The shape of a stream of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) events: u64,
    pub(crate) videos: u64,
    /// The exponent of Zipf's law; 0: all videos are viewed alike.
    pub(crate) exponent: f64,
    /// Over how much time the events come.
    pub(crate) span_ms: i64,
    /// The share of late events.
    pub(crate) late: f64,
    /// The share of events that are views of one more video.
    pub(crate) hot: f64,
    /// When the first event comes, in Unix ms.
    pub(crate) start_ms: i64,
}

impl Shape {
    /// Views of 100,000 videos, as many as 10 M come in an hour.
    pub(crate) fn traffic(events: u64) -> Self {
        let span_ms = (events * 36 / 100).max(10_000) as i64;
        Self { events, videos: 100_000, exponent: 1.0, span_ms, late: 0.0, hot: 0.0, start_ms: START_MS }
    }

    /// The beginning of it, of so many events.
    pub(crate) fn part(self, events: u64) -> Self {
        let events = events.min(self.events);
        Self { span_ms: (self.span_ms as u64 * events / self.events) as i64, events, ..self }
    }
}

/// A small, fast, seeded generator (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform below `n`, which is below 2^32.
    const fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * n) >> 32
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws ranks by Zipf's law in constant time (Walker's alias method).
struct Zipf(Vec<(u32, u32)>);

impl Zipf {
    fn new(n: u64, exponent: f64) -> Self {
        let n = n as usize;
        let norm: f64 = (1..=n).map(|k| (k as f64).powf(-exponent)).sum();
        let mut p: Vec<f64> = (1..=n).map(|k| n as f64 * (k as f64).powf(-exponent) / norm).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| p[i] < 1.0);
        let mut table = vec![(u32::MAX, 0); n];
        while let Some(&l) = large.last() {
            let Some(s) = small.pop() else { break };
            table[s] = ((p[s] * f64::from(u32::MAX)) as u32, l as u32);
            p[l] -= 1.0 - p[s];
            if p[l] < 1.0 {
                small.push(l);
                large.pop();
            }
        }
        Self(table)
    }

    fn sample(&self, random: &mut Random) -> u64 {
        let i = random.below(self.0.len() as u64);
        let (threshold, alias) = self.0[i as usize];
        if random.next() as u32 <= threshold { i } else { u64::from(alias) }
    }
}

/// One view.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    pub(crate) id: [u64; 2],
    pub(crate) video: u64,
    pub(crate) viewer: u64,
    pub(crate) watch_ms: u64,
    /// When it happened, in Unix ms.
    pub(crate) ts: i64,
    /// When it comes to the log, in Unix ms.
    pub(crate) now: i64,
}

/// The number of the video that takes [`Shape::hot`].
pub(crate) const HOT: u64 = 99_999;
/// The lowest number of all others.
pub(crate) const FIRST_VIDEO: u64 = 100_000;

impl View {
    pub(crate) const fn space(&self) -> u64 {
        100 + self.video % 900
    }

    /// A UUID of version 4.
    pub(crate) const fn event_id(&self) -> Uuid {
        Uuid(self.id)
    }

    /// Appends it as a JSON object.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        let Self { video, viewer, watch_ms, ts, .. } = self;
        let (id, at, space) = (self.event_id(), Rfc3339(*ts), self.space());
        write!(
            out,
            r#"{{"event_id":"{id}","video_id":"v{video}","viewer_id":"u{viewer}","ts":"{at}","watch_ms":{watch_ms},"space_id":"c{space}"}}"#
        )
        .unwrap();
    }
}

/// A random UUID as its canonical text.
pub(crate) struct Uuid([u64; 2]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.0;
        let (a, b, c, d, e) = (a >> 32, a >> 16 & 0xffff, a & 0xfff, b >> 48 & 0x3fff | 0x8000, b & 0xffff_ffff_ffff);
        write!(f, "{a:08x}-{b:04x}-4{c:03x}-{d:04x}-{e:012x}")
    }
}

/// A Unix time in ms as RFC 3339 with ms, written without allocating: a generator that is slow makes a benchmark slow.
struct Rfc3339(i64);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        // Years begin in March here, so that leap days come last (Hinnant, chrono-compatible low-level date algorithms).
        let z = days + 719_468;
        let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// The views of a shape, one after the other.
pub(crate) struct Generator {
    shape: Shape,
    zipf: Zipf,
    random: Random,
    made: u64,
}

impl Generator {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self { zipf: Zipf::new(shape.videos, shape.exponent), shape: shape.clone(), random: Random::new(42), made: 0 }
    }

    /// One that comes at a moment which the caller says.
    pub(crate) fn at(&mut self, now: i64) -> View {
        let Self { shape, zipf, random, .. } = self;
        let hot = shape.hot > 0.0 && random.unit() < shape.hot;
        // 7919 is a prime: it spreads the popular ranks over the numbers.
        let video = if hot { HOT } else { FIRST_VIDEO + zipf.sample(random) * 7919 % shape.videos };
        let late = shape.late > 0.0 && random.unit() < shape.late;
        let delay = if late { LATE_MS.0 + random.below(LATE_MS.1 - LATE_MS.0) } else { random.below(DISORDER_MS + 1) };
        let r = random.next();
        View {
            id: [random.next(), random.next()],
            video,
            viewer: 10_000 + (r & 0xffff),
            watch_ms: 1_000 + (r >> 16) % 300_000,
            ts: now - delay as i64,
            now,
        }
    }
}

impl Iterator for Generator {
    type Item = View;

    fn next(&mut self) -> Option<View> {
        if self.made == self.shape.events {
            return None;
        }
        // The disorder lies behind `now`: without lateness, all of the span lies in it.
        let disorder = DISORDER_MS as i64;
        let step = (self.shape.span_ms - disorder) as u64;
        let now = self.shape.start_ms + disorder + (u128::from(self.made) * u128::from(step) / u128::from(self.shape.events)) as i64;
        self.made += 1;
        Some(self.at(now))
    }
}

/// What counts of these events must be, and `bytes` of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expected {
    pub(crate) events: u64,
    /// Wrapping sum of [`weight`] over all events.
    pub(crate) checksum: u64,
}

impl Expected {
    pub(crate) const fn add(&mut self, view: &View) {
        self.add_row(view.video, view.ts.div_euclid(60_000), 1);
    }

    /// Adds the views of a video in a minute (since 1970).
    pub(crate) const fn add_row(&mut self, video: u64, minute: i64, views: u64) {
        self.events += views;
        self.checksum = self.checksum.wrapping_add(weight(video, minute).wrapping_mul(views));
    }
}

/// The weight of one view of a video in a minute since 1970: rows that are right have the right weighted sum, in whatever order.
const fn weight(video: u64, minute: i64) -> u64 {
    mix((video << 32 | minute.cast_unsigned()).wrapping_add(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Millis;

    #[test]
    fn dates_are_those_of_the_decoder() {
        for day in (-200_000..200_000).step_by(17) {
            let ms = day * 86_400_000 + 45_296_789;
            assert_eq!(Millis::parse_rfc3339(&Rfc3339(ms).to_string()), Some(Millis(ms)));
        }
    }

    #[test]
    fn popular_videos_are_as_popular_as_the_law_says() {
        let shape = Shape { videos: 1_000, ..Shape::traffic(1_000_000) };
        let first = Generator::new(&shape).filter(|view| view.video == FIRST_VIDEO).count() as f64;
        let harmonic: f64 = (1..=1_000).map(|k| 1.0 / f64::from(k)).sum();
        assert!((first / 1e6 * harmonic - 1.0).abs() < 0.02, "{first}");
    }
}
