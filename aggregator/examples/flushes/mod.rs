//! What an owner writes, for measurements, and the CPU time they take.

use std::fs;
use std::sync::Arc;

use aggregator::conformance::row;
use schemas::{CellKey, Dimension, Entity, Minute, Source, StoredRow, Tier};

pub(crate) type Rows = Arc<Vec<(CellKey, StoredRow)>>;

const VIDEOS: u64 = 100_000;
pub(crate) const FIRST_MINUTE: i32 = 29_400_000;

/// What an owner writes at once: the rollup rows, and then the minute rows.
pub(crate) struct Flush {
    pub(crate) rollups: Rows,
    pub(crate) minutes: Rows,
}

/// `count` flushes of `size` rows each: two minute rows and three rollup rows for each of `size / 5` of 100,000 videos.
pub(crate) fn flushes(count: u64, size: u64) -> Vec<Flush> {
    let entities: Vec<_> = (0..VIDEOS).map(|n| Entity::new(Dimension::Video, &format!("video-{n:06}"))).collect();
    (0..count).map(|number| flush(&entities, number, size)).collect()
}

fn flush(entities: &[Entity], number: u64, size: u64) -> Flush {
    let minute = Minute(FIRST_MINUTE + i32::try_from(number * size / 400_000).unwrap());
    let (mut rollups, mut minutes) = (Vec::new(), Vec::new());
    for n in 0..size / 5 {
        let entity = &entities[usize::try_from((n * 7_919 + number * 104_729) % VIDEOS).unwrap()];
        let stamp = i64::try_from(1_764_000_000_000_000 + number * 1_000_000 + n).unwrap();
        let cell = |tier: Tier, minute| {
            let key = CellKey { entity: entity.clone(), bucket: tier.bucket(minute), source: Source(0) };
            (key, row(stamp, i64::try_from(n).unwrap()))
        };
        rollups.extend(Tier::ROLLUPS.map(|tier| cell(tier, minute)));
        minutes.extend([cell(Tier::Minute, minute), cell(Tier::Minute, minute.plus(-1))]);
    }
    Flush { rollups: Arc::new(rollups), minutes: Arc::new(minutes) }
}

/// CPU seconds of this process, without its children.
pub(crate) fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
