//! Lists over real folds of several sources, with late events, imports and adjustments, against plain sums.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use aggregator::EmbeddedStore;
use aggregator::embedded::StoreOptions;
use proptest::prelude::*;
use schemas::{Counts, Dimension, FoldSettings, LogId, Millis, Minute, Tier};

use super::ask::{Comparison, Hours, ListKey, Sort};
use super::base::Base;
use super::list::{List, make};
use super::rank::Totals;
use crate::params::Metric;
use crate::read::Reader;

#[path = "../../tests/folded/mod.rs"]
mod folded;
use folded::{Folded, Step, all_sums};

const SOURCES: NonZeroU32 = NonZeroU32::new(3).unwrap();
const ROOM: usize = 1 << 20;

fn begin() -> Millis {
    Millis::parse_rfc3339("2026-05-05T22:30:00Z").unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    // Most are of this moment; some are hours late, some days.
    let minutes = prop_oneof![6 => Just(0), 2 => -300..0i32, 1 => -4_000..0i32];
    let view = (0i64..2_000, 0u8..40, minutes, prop::bool::weighted(0.1));
    prop_oneof![
        20 => view.prop_map(|(after_s, video, minutes, engaged)| Step::View { after_s, video, minutes, engaged }),
        1 => (0u8..40, 0..2_000i32, -5i64..5).prop_map(|(video, minutes_ago, views)| Step::Adjust { video, minutes_ago, views }),
        4 => Just(Step::Flush),
    ]
}

/// The list as it must be: everything summed, everything sorted.
fn plain(sources: &[Folded], key: &ListKey, comparison: Comparison) -> Vec<(String, Totals)> {
    let sums = |Hours { start, end }: Hours| all_sums(sources, key.dimension, start, end);
    let (views, compared, previous) = (sums(key.hours), sums(comparison.compared), sums(comparison.previous));
    let of = |sums: &BTreeMap<String, Counts>, id: &String| sums.get(id).map_or(0, |counts| key.metric.of(*counts));
    let totals = |id: &String| Totals { views: of(&views, id), compared: of(&compared, id), previous: of(&previous, id) };
    let score = |totals: &Totals| if key.sort == Sort::Views { totals.views } else { totals.change() };
    let mut all: Vec<(String, Totals)> = views.keys().map(|id| (id.clone(), totals(id))).collect();
    all.retain(|(_, totals)| totals.views > 0 && score(totals) > 0);
    all.sort_by(|a, b| score(&b.1).cmp(&score(&a.1)).then(a.0.cmp(&b.0)));
    all.truncate(key.entries);
    all
}

fn got(list: &List) -> Vec<(String, Totals)> {
    list.entries.iter().map(|entry| (entry.id.to_string(), entry.totals)).collect()
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    dimension: Dimension,
    /// Hours from the first one.
    start: i32,
    hours: i32,
    metric: Metric,
    sort: Sort,
    entries: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let metric = prop_oneof![3 => Just(Metric::Gross), 1 => Just(Metric::Engaged), 1 => Just(Metric::Valid)];
    (any::<(bool, bool)>(), -60..50i32, 1..80i32, metric, prop_oneof![Just(3), Just(100usize)]).prop_map(
        |((spaces, rising), start, hours, metric, entries)| Asked {
            dimension: if spaces { Dimension::Space } else { Dimension::Video },
            start,
            hours,
            metric,
            sort: if rising { Sort::Rising } else { Sort::Views },
            entries,
        },
    )
}

impl Asked {
    fn key(self) -> ListKey {
        let start = Tier::Hour.bucket(Minute::of(begin())).start.plus(self.start * 60);
        let hours = Hours { start, end: start.plus(self.hours * 60) };
        ListKey { dimension: self.dimension, hours, metric: self.metric, sort: self.sort, entries: self.entries }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn every_list_is_the_plain_sums_sorted_also_when_made_again_after_late_events(
        rounds in prop::collection::vec(prop::collection::vec((0usize..3, step()), 0..60), 1..5),
        asked in prop::collection::vec(asked(), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = EmbeddedStore::open(StoreOptions::new(dir.path(), LogId("log".into()))).unwrap();
        let settings = FoldSettings::default();
        let reader = Reader { store: &store, settings: &settings, sources: SOURCES, reads_at_once: 4 };
        let mut sources: Vec<Folded> = (0..SOURCES.get()).map(|source| Folded::new(source, begin())).collect();
        let mut bases: Vec<Option<Arc<Base>>> = vec![None; asked.len()];
        for steps in rounds {
            runtime.block_on(async {
                for (source, step) in &steps {
                    sources[*source].step(step, &store).await;
                }
                for source in &mut sources {
                    source.flush(&store).await;
                }
            });
            for (asked, base) in asked.iter().zip(&mut bases) {
                let key = asked.key();
                let now = begin().plus(10 * 86_400_000);
                let (list, next) = runtime.block_on(make(reader, key, base.clone(), ROOM, now)).unwrap();
                let comparison = list.comparison.unwrap();
                prop_assert_eq!(got(&list), plain(&sources, &key, comparison), "{:?} {:?} base {}", asked, comparison, base.is_some());
                *base = next.map(Arc::new);
            }
        }
    }
}
