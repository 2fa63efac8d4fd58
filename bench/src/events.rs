//! Makes events: Zipf over videos, in time order with a little disorder, about 160 bytes of JSON each. The same for the same seed.

/// A small, fast, seeded generator (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The shape of a stream of events.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) events: usize,
    pub(crate) videos: usize,
    /// Unix ms of the first event.
    pub(crate) start_ms: i64,
    /// How much event time they cover.
    pub(crate) span_ms: i64,
}

/// Calls `each` with the fields of every event: number, video, viewer, ts in Unix ms.
pub(crate) fn generate(shape: Shape, mut each: impl FnMut(usize, usize, u64, i64)) {
    let mut random = Random::new(42);
    let cumulative: Vec<f64> = (1..=shape.videos)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect();
    let total = cumulative.last().copied().unwrap_or(1.0);
    for n in 0..shape.events {
        let at = random.unit() * total;
        let video = cumulative.partition_point(|sum| *sum < at).min(shape.videos - 1);
        let disorder = (random.next() % 2_000) as i64;
        let ts = shape.start_ms + shape.span_ms * n as i64 / shape.events as i64 - disorder;
        each(n, video, random.next() % 1_000_000, ts);
    }
}

/// Appends one event as a JSON object of about 160 bytes.
pub(crate) fn write_json(out: &mut Vec<u8>, n: usize, video: usize, viewer: u64, ts: i64) {
    use std::io::Write;
    let at = schemas::Millis(ts).to_rfc3339();
    let space = video % 1_000;
    write!(
        out,
        r#"{{"event_id":"01890a5d-ac96-774b-bcce-{n:012x}","video_id":"v{video}","viewer_id":"u{viewer}","ts":"{at}","watch_ms":12000,"space_id":"c{space}"}}"#
    )
    .unwrap();
}
