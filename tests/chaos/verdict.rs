//! Compares every cell that the API shows with what was noted and with the recount, and says what a fault cost.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::load::{SPACES, VIDEOS};
use crate::notes::{Cells, now_ms};
use crate::program::client;

const STEPS: [(&str, i64); 3] = [("1m", 1), ("1h", 60), ("1d", 1_440)];
const DAY: i64 = 1_440;
/// Differences that a failure names.
const NAMED: usize = 20;

/// What comparing found.
#[derive(Default, Debug)]
pub(crate) struct Difference {
    /// Views that should be there and are not, in minute cells of the site.
    pub(crate) lost: i64,
    /// Views that are there and should not be.
    pub(crate) doubled: i64,
    /// Views of the site.
    pub(crate) counted: i64,
    /// The first differences, of whatever cells.
    pub(crate) named: Vec<String>,
}

impl Difference {
    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.named.len() < NAMED {
            self.named.push(what());
        }
    }
}

/// All entities that could have views, and one that has none.
pub(crate) fn entities(probes: &[String]) -> Vec<String> {
    let videos = (0..VIDEOS).map(|video| format!("videos/v{video}"));
    let spaces = (0..SPACES).map(|space| format!("spaces/s{space}"));
    let probes = probes.iter().map(|video| format!("videos/{video}"));
    let others = ["site", "videos/direct", "videos/never-seen", "spaces/never-seen"].map(str::to_owned);
    videos.chain(spaces).chain(probes).chain(others).collect()
}

/// Compares notes, recount and every point of every entity in minutes, hours and days, zeros too.
pub(crate) fn compare(query: &str, entities: &[String], notes: &Cells, recount: &Cells) -> Difference {
    let mut difference = Difference::default();
    for (cell, noted) in notes {
        let counted = recount.get(cell).copied().unwrap_or(0);
        if counted != *noted {
            difference.note(|| format!("the topic holds {counted} views of {cell:?}, noted were {noted}"));
        }
    }
    for (cell, counted) in recount.iter().filter(|(cell, _)| !notes.contains_key(*cell)) {
        difference.note(|| format!("the topic holds {counted} views of {cell:?} that nobody has noted"));
    }
    let unknown: Vec<_> = notes.keys().filter(|(entity, _)| !entities.contains(entity)).collect();
    assert!(unknown.is_empty(), "these would not be compared: {unknown:?}");
    let halves = entities.chunks(entities.len().div_ceil(2));
    let found: Vec<Difference> = thread::scope(|scope| {
        let asking: Vec<_> =
            halves.map(|part| scope.spawn(|| part.iter().map(|entity| compare_entity(query, entity, notes)).collect::<Vec<_>>())).collect();
        asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for part in found {
        difference.lost += part.lost;
        difference.doubled += part.doubled;
        difference.counted += part.counted;
        for named in part.named {
            difference.note(|| named);
        }
    }
    difference
}

fn compare_entity(query: &str, entity: &str, notes: &Cells) -> Difference {
    let mut difference = Difference::default();
    let today = now_ms() / 60_000 / DAY * DAY;
    let (start, end) = (today - 2 * DAY, today + DAY);
    for (step, minutes) in STEPS {
        let mut expected: BTreeMap<i64, i64> = (start..end).step_by(usize::try_from(minutes).unwrap()).map(|at| (at, 0)).collect();
        for ((_, minute), views) in notes.range((entity.to_owned(), start)..(entity.to_owned(), end)) {
            *expected.entry(minute.div_euclid(minutes) * minutes).or_default() += views;
        }
        let answer = get(query, &format!("/v1/{entity}/views?start={}&end={}&step={step}", start * 60, end * 60));
        let points = answer["points"].as_array().unwrap_or_else(|| panic!("{entity}: {answer}"));
        assert_eq!(points.len(), expected.len(), "{entity} {step}");
        for (point, (at, wanted)) in points.iter().zip(&expected) {
            let views = point["views"].as_i64().unwrap();
            if entity == "site" && step == "1m" {
                difference.counted += views;
                difference.lost += (wanted - views).max(0);
                difference.doubled += (views - wanted).max(0);
            }
            if views != *wanted {
                difference
                    .note(|| format!("{entity} in steps of {step} at {}: {views} views, {wanted} were sent (minute {at})", point["start"]));
            }
        }
    }
    difference
}

/// An answer of the query role. It may be asked again once or twice: a driver that has just lost its connections may need that.
pub(crate) fn get(query: &str, path: &str) -> Value {
    let http = client(30);
    let mut last = String::new();
    for _ in 0..20 {
        match http.get(format!("http://{query}{path}")).send().and_then(|answer| Ok((answer.status(), answer.text()?))) {
            Ok((status, text)) if status.is_success() => return serde_json::from_str(&text).unwrap(),
            Ok((status, text)) => last = format!("{status} {text}"),
            Err(error) => last = error.to_string(),
        }
        thread::sleep(Duration::from_millis(250));
    }
    panic!("GET {path}: {last}");
}
