//! Which source an event goes to: `(murmur2(video) + XXH3(viewer or event id) mod spread) mod N`.
//!
//! A duplicate always lands where its original did, so that the source's own id set finds it. Sums over sources are
//! exact wherever an event lands; only the reach of deduplication depends on this.

use std::num::NonZeroU32;

use crate::event::Event;
use crate::position::Source;

/// How a log spreads events: fixed for its life, part of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitioner {
    /// The number of sources.
    pub sources: NonZeroU32,
    /// Over how many sources one video's events are spread.
    pub spread: NonZeroU32,
}

impl Partitioner {
    /// The source of `event`.
    pub fn source(&self, event: &Event<'_>) -> Source {
        let spreader = if self.spread.get() == 1 {
            0
        } else {
            let by = event.viewer_id.as_deref().unwrap_or(&event.event_id);
            xxhash_rust::xxh3::xxh3_64(by.as_bytes()) % u64::from(self.spread.get())
        };
        let slot = (u64::from(positive_murmur2(event.video_id.as_bytes())) + spreader) % u64::from(self.sources.get());
        Source(u32::try_from(slot).unwrap_or_default())
    }
}

impl Partitioner {
    /// The first of the sources that a video's events go to; all of them go there without spread.
    pub fn home(&self, video: &str) -> Source {
        Source(positive_murmur2(video.as_bytes()) % self.sources)
    }
}

/// Kafka's default hash of a key, without its sign bit (`Utils.toPositive(Utils.murmur2(key))`).
pub fn positive_murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // Kafka's keys are far shorter than 4 GiB, as are ids.
    let mut h = 0x9747_b28c ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        h ^= tail.iter().rev().fold(0, |k, byte| (k << 8) | u32::from(*byte));
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    (h ^ (h >> 15)) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Millis;
    use std::collections::BTreeSet;

    #[test]
    fn murmur2_is_kafkas() {
        // From org.apache.kafka.common.utils.UtilsTest.testMurmur2, without the sign bit.
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(positive_murmur2(key), expected.cast_unsigned() & 0x7fff_ffff, "{key:?}");
        }
    }

    #[test]
    fn spread_bounds_the_sources_of_a_video_and_keeps_duplicates_together() {
        let event = |id: String| Event {
            event_id: id.into(),
            video_id: "hot".into(),
            space_id: None,
            viewer_id: None,
            ts: Millis(0),
            watch_ms: None,
            kind: crate::Kind::View,
        };
        for (spread, expected) in [(1, 1), (3, 3), (8, 8)] {
            let p = Partitioner { sources: NonZeroU32::new(8).unwrap(), spread: NonZeroU32::new(spread).unwrap() };
            let seen: BTreeSet<_> = (0..500).map(|i| p.source(&event(format!("e{i}")))).collect();
            assert_eq!(seen.len(), expected);
            assert_eq!(p.source(&event("same".into())), p.source(&event("same".into())));
        }
    }
}
