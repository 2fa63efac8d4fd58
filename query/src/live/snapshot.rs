//! What is told of a subject at a moment, and what of it changed since it was told last. Pure.
//!
//! Each of the last 60 minutes (with the one that runs) bears the id of the event in which it last changed, so that an event can be
//! made for any reader: the minutes that changed after the event that it has. Ids are times in ms and grow.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use chrono_tz::Tz;
use schemas::{Entity, Millis, Minute};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api;
use crate::calendar::{instant, today};
use crate::params::Metric;
use crate::read::Sums;
use crate::series::{Count, Time};

/// So many minutes are told of, with the one that runs.
const MINUTES: i32 = 60;
/// Of two servers one sees a change so much later than the other, at most: who comes from one to the other is told again what changed
/// so shortly before its last event.
const SLACK_MS: i64 = 10_000;

/// What a stream is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) entity: Entity,
    pub(super) metric: Metric,
    pub(super) tz: Option<Tz>,
}

impl Subject {
    /// What is read: all time, today, and each of the minutes.
    pub(super) fn ranges(&self, now: Millis) -> Vec<(Minute, Minute)> {
        let end = Minute::of(now).plus(1);
        let minutes = (-MINUTES..0).map(|n| (end.plus(n), end.plus(n + 1)));
        [(Minute::MIN, Minute::MAX), today(self.tz.unwrap_or(Tz::UTC), now)].into_iter().chain(minutes).collect()
    }
}

/// What is told.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) id: i64,
    /// When the counts were true.
    as_of: Millis,
    all_time: i64,
    today: i64,
    /// In order, without gaps.
    minutes: Vec<Told>,
    complete_through: Option<Minute>,
    stale: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    start: Minute,
    views: i64,
    complete: bool,
    /// The event in which it last changed.
    changed: i64,
}

impl Snapshot {
    /// What the sums of [`Subject::ranges`] tell, if it is not what was told `before`.
    pub(super) fn of(subject: &Subject, ranges: &[(Minute, Minute)], sums: &Sums, now: Millis, before: Option<&Self>) -> Option<Self> {
        let id = next_id(now, before);
        let mut views = sums.counts.iter().map(|counts| subject.metric.of(*counts));
        let mut next = || views.next().unwrap_or_default();
        let (all_time, today) = (next(), next());
        let minutes = ranges.iter().skip(2).map(|(start, end)| {
            let told = Told { start: *start, views: next(), complete: sums.marks.is_complete(*end), changed: id };
            before.and_then(|before| before.told(told)).unwrap_or(told)
        });
        let stale = sums.standing.stale;
        let snapshot = Self {
            id,
            as_of: now.plus(-stale.map_or(0, ms)),
            all_time,
            today,
            minutes: minutes.collect(),
            complete_through: sums.marks.complete_through.map(Minute::of),
            stale,
        };
        before.is_none_or(|before| snapshot.differs(before)).then_some(snapshot)
    }

    /// The same counts, once the store cannot be asked any more; none if that was told.
    pub(super) fn gone_stale(&self, now: Millis) -> Option<Self> {
        let age_ms = u64::try_from(now.0.saturating_sub(self.as_of.0)).unwrap_or(0);
        let stale = Some(Duration::from_millis(age_ms));
        self.stale.is_none().then(|| Self { id: next_id(now, Some(self)), stale, ..self.clone() })
    }

    /// The minute as it was told, if it was told so.
    fn told(&self, told: Told) -> Option<Told> {
        let at = self.minutes.binary_search_by_key(&told.start, |minute| minute.start).ok()?;
        self.minutes.get(at).copied().filter(|before| (before.views, before.complete) == (told.views, told.complete))
    }

    /// Being stale changes something; being stale for longer does not.
    fn differs(&self, before: &Self) -> bool {
        let shown = |of: &Self| (of.all_time, of.today, of.complete_through, of.stale.is_some());
        shown(self) != shown(before) || self.minutes.iter().any(|minute| minute.changed == self.id)
    }

    /// Whether a reader that has the event `since` needs every minute.
    pub(super) fn is_all_new(&self, since: i64) -> bool {
        self.minutes.iter().all(|minute| minute.changed > since)
    }

    /// From which event on a reader is served that says it has the event `resume`, maybe of another server.
    pub(super) fn since(&self, resume: Option<i64>) -> i64 {
        // What lies ahead of us is none of our ids.
        resume.filter(|resume| *resume <= self.id).map_or(i64::MIN, |resume| resume.saturating_sub(SLACK_MS))
    }

    /// The event for a reader that has the event `since`.
    pub(super) fn event(&self, subject: &Subject, since: i64) -> Bytes {
        let Subject { entity, metric, tz } = subject;
        let minutes = self.minutes.iter().filter(|minute| minute.changed > since);
        let shown = |minute: &Told| LiveMinute { start: Time(minute.start, *tz), views: Count(minute.views), complete: minute.complete };
        // The minute that runs is the last.
        let last_minute = self.minutes.iter().rev().nth(1).map_or(0, |minute| minute.views);
        let body = LiveViews {
            entity,
            as_of: instant(self.as_of, *tz),
            tz: tz.unwrap_or(Tz::UTC).name(),
            metric: metric.as_str(),
            all_time: Count(self.all_time),
            today: Count(self.today),
            last_hour: Count(self.minutes.iter().fold(0, |sum, minute| sum.wrapping_add(minute.views))),
            last_minute: Count(last_minute),
            minutes: minutes.map(shown).collect(),
            complete_through: self.complete_through.map(|through| Time(through, *tz)),
            stale_seconds: self.stale.map(|stale| stale.as_secs()),
        };
        let mut out = BytesMut::with_capacity(512);
        out.put_slice(format!("id: {}\nevent: views\ndata: ", self.id).as_bytes());
        let mut out = out.writer();
        // Strings and numbers always have a JSON form, on one line, and memory takes it.
        let written = serde_json::to_writer(&mut out, &body);
        debug_assert!(written.is_ok());
        let mut out = out.into_inner();
        out.put_slice(b"\n\n");
        out.freeze()
    }
}

fn next_id(now: Millis, before: Option<&Snapshot>) -> i64 {
    before.map_or(now.0, |before| now.0.max(before.id.saturating_add(1)))
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The data of an event `views`: absolute counts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "entity": { "dimension": "video", "id": "v1" },
    "as_of": "2026-11-20T12:00:03.25Z",
    "tz": "UTC",
    "metric": "gross",
    "all_time": 4200,
    "today": 310,
    "last_hour": 42,
    "last_minute": 3,
    "minutes": [{ "start": "2026-11-20T12:00:00Z", "views": 1, "complete": false }],
    "complete_through": "2026-11-20T11:59:00Z"
}))]
pub(crate) struct LiveViews<'a> {
    #[schema(value_type = api::Entity)]
    entity: &'a Entity,
    /// When the counts were true.
    #[schema(format = "date-time")]
    as_of: String,
    /// The time zone in which `today` is meant and times are written.
    #[schema(value_type = String, example = "UTC")]
    tz: &'static str,
    #[schema(value_type = api::Metric)]
    metric: &'static str,
    /// Since the beginning.
    all_time: Count,
    /// Since midnight in `tz`.
    today: Count,
    /// The last 60 minutes, with the one that runs.
    last_hour: Count,
    /// The last whole minute.
    last_minute: Count,
    /// Those of the last 60 minutes that changed since the event before.
    minutes: Vec<LiveMinute>,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    complete_through: Option<Time>,
    /// For how long the counts have been out of date, if the store cannot be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_seconds: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LiveMinute {
    start: Time,
    views: Count,
    complete: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;

    use proptest::prelude::*;
    use schemas::{Checkpoint, Counts, FoldSettings, Offset, Source, Stamp, Tally};
    use serde_json::Value;

    use super::super::hub::Shown;
    use super::*;
    use crate::read::Watermarks;
    use crate::standing::{Lasts, Standing};

    const NOW: Millis = Millis(1_795_176_000_000);

    fn subject() -> Subject {
        Subject { entity: Entity::site(), metric: Metric::Gross, tz: None }
    }

    fn sums(ranges: &[(Minute, Minute)], views: &BTreeMap<Minute, i64>, closed: Millis) -> Sums {
        let checkpoint = Checkpoint {
            next_offset: Offset(1),
            warm_from: Offset(0),
            stamp: Stamp(1),
            clock: closed,
            append_time: closed,
            closed,
            adjustments: 0,
            tally: Tally::default(),
            settings: FoldSettings::default(),
        };
        let marks = Watermarks::of(&[(Source(0), checkpoint)], NonZeroU32::MIN);
        let count = |(start, end): &(Minute, Minute)| Counts { gross: views.range(*start..*end).map(|(_, n)| n).sum(), ..Counts::ZERO };
        Sums { counts: ranges.iter().map(count).collect(), marks: marks.into(), standing: Standing::fresh(Lasts::Open) }
    }

    fn told(views: &[(i32, i64)], now: Millis, before: Option<&Snapshot>) -> Option<Snapshot> {
        let ranges = subject().ranges(now);
        let views = views.iter().map(|(ago, views)| (Minute::of(NOW).plus(-ago), *views)).collect();
        Snapshot::of(&subject(), &ranges, &sums(&ranges, &views, NOW), now, before)
    }

    /// The id and the data of an event.
    fn parsed(event: &Bytes) -> (i64, Value) {
        let text = std::str::from_utf8(event).unwrap();
        let (id, rest) = text.strip_prefix("id: ").unwrap().split_once("\nevent: views\ndata: ").unwrap();
        let data = rest.strip_suffix("\n\n").unwrap();
        assert!(!data.contains('\n'));
        (id.parse().unwrap(), serde_json::from_str(data).unwrap())
    }

    #[test]
    fn the_first_event_has_an_hour_and_the_next_what_changed() {
        let first = told(&[(0, 2), (1, 3), (59, 4), (60, 50), (3_000, 600)], NOW, None).unwrap();
        let (id, data) = parsed(&first.event(&subject(), i64::MIN));
        assert_eq!(id, NOW.0);
        for (name, count) in [("all_time", 659), ("last_hour", 9), ("last_minute", 3), ("today", 59)] {
            assert_eq!(data[name], count, "{name}");
        }
        assert_eq!((data["minutes"].as_array().unwrap().len(), &data["as_of"]), (60, &NOW.to_rfc3339().into()));
        assert!(data.get("stale_seconds").is_none());

        let later = NOW.plus(1_000);
        assert!(told(&[(0, 2), (1, 3), (59, 4), (60, 50), (3_000, 600)], later, Some(&first)).is_none(), "nothing changed");
        let second = told(&[(0, 2), (1, 8), (59, 4), (60, 50), (3_000, 600)], later, Some(&first)).unwrap();
        let (_, data) = parsed(&second.event(&subject(), first.id));
        assert_eq!((data["minutes"].as_array().unwrap().len(), &data["minutes"][0]["views"]), (1, &8.into()));
        assert_eq!(data["minutes"][0]["start"], Time(Minute::of(NOW).plus(-1), None).to_string());
    }

    #[test]
    fn ids_grow_even_when_the_clock_goes_back() {
        let first = told(&[(0, 1)], NOW, None).unwrap();
        let second = told(&[(0, 2)], NOW.plus(-5_000), Some(&first)).unwrap();
        assert!(second.id > first.id);
    }

    #[test]
    fn counts_that_cannot_be_read_again_are_told_once_as_stale_and_again_when_they_can() {
        let first = told(&[(0, 1)], NOW, None).unwrap();
        let stale = first.gone_stale(NOW.plus(7_000)).unwrap();
        assert!(stale.gone_stale(NOW.plus(8_000)).is_none());
        let (_, data) = parsed(&stale.event(&subject(), first.id));
        assert_eq!((&data["stale_seconds"], &data["as_of"], &data["all_time"]), (&7.into(), &NOW.to_rfc3339().into(), &1.into()));
        let again = told(&[(0, 1)], NOW.plus(9_000), Some(&stale)).unwrap();
        assert!(parsed(&again.event(&subject(), stale.id)).1.get("stale_seconds").is_none());
    }

    #[test]
    fn who_comes_again_gets_what_changed_since_and_who_says_nonsense_everything() {
        let first = told(&[(0, 1)], NOW, None).unwrap();
        let second = told(&[(0, 1), (7, 1)], NOW.plus(30_000), Some(&first)).unwrap();
        let minutes = |resume| {
            let (_, data) = parsed(&second.event(&subject(), second.since(resume)));
            data["minutes"].as_array().unwrap().len()
        };
        assert_eq!(minutes(Some(second.id)), 1, "a change of another server's could be as new");
        assert_eq!(minutes(Some(first.id + SLACK_MS)), 1);
        assert_eq!([minutes(Some(first.id)), minutes(None), minutes(Some(second.id + 1)), minutes(Some(i64::MAX))], [60; 4]);
    }

    proptest! {
        /// Against the slow obvious version: a reader that puts together what it gets has the last 60 minutes of the latest event.
        #[test]
        fn a_reader_that_misses_any_events_is_right_with_the_next(
            steps in prop::collection::vec((0..90_000_i64, 0..80_i32, 1..5_i64, any::<bool>()), 1..30),
        ) {
            let (mut now, mut views, mut before) = (NOW, BTreeMap::new(), None::<Snapshot>);
            let (mut has, mut since) = (BTreeMap::new(), i64::MIN);
            for (passed_ms, ago, more, reads) in steps {
                now = now.plus(passed_ms);
                *views.entry(Minute::of(now).plus(-ago)).or_insert(0) += more;
                let ranges = subject().ranges(now);
                let sums = sums(&ranges, &views, now.plus(-90_000));
                let Some(snapshot) = Snapshot::of(&subject(), &ranges, &sums, now, before.as_ref()) else { continue };
                let shown = Shown::new(subject(), snapshot.clone(), before.as_ref().map_or(i64::MIN, |before| before.id));
                if reads {
                    let (id, data) = parsed(&shown.event(since));
                    since = id;
                    for minute in data["minutes"].as_array().unwrap() {
                        has.insert(minute["start"].to_string(), (minute["views"].as_i64().unwrap(), minute["complete"].as_bool().unwrap()));
                    }
                    for (start, end) in ranges.iter().skip(2) {
                        let truth = (views.get(start).copied().unwrap_or(0), sums.marks.is_complete(*end));
                        prop_assert_eq!(has[&format!("\"{}\"", Time(*start, None))], truth);
                    }
                    prop_assert_eq!(data["all_time"].as_i64().unwrap(), views.values().sum::<i64>());
                }
                before = Some(snapshot);
            }
        }
    }
}
