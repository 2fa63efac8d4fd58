//! The best of many, in a bounded heap. Pure.
//!
//! By views only what has any is ranked, by rise only what rose and has views. Ties go to the lesser id, so a list is the same whoever
//! makes it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::ask::Sort;
use crate::compare::growth;

/// The sums of one entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Totals {
    /// In the range of the list.
    pub(crate) views: i64,
    /// In the part of it that is compared.
    pub(crate) compared: i64,
    /// In the range that this is compared with.
    pub(crate) previous: i64,
}

impl Totals {
    /// How many more there are than before.
    pub(crate) const fn change(self) -> i64 {
        self.compared.wrapping_sub(self.previous)
    }

    /// The change as a fraction of what was before; `None` where nothing was.
    pub(crate) fn growth(self) -> Option<f64> {
        growth(self.previous, self.compared)
    }
}

/// The order of a list: the greater is better.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    score: i64,
    id: Reverse<Arc<str>>,
    totals: Totals,
}

/// Keeps the best so many of all that are offered.
pub(crate) struct Ranking {
    sort: Sort,
    entries: usize,
    /// The worst on top.
    heap: BinaryHeap<Reverse<Ranked>>,
}

impl Ranking {
    pub(crate) fn new(sort: Sort, entries: usize) -> Self {
        Self { sort, entries, heap: BinaryHeap::new() }
    }

    /// Offers an entity; each once.
    pub(crate) fn offer(&mut self, id: &Arc<str>, totals: Totals) {
        let score = match self.sort {
            Sort::Views => totals.views,
            Sort::Rising => totals.change(),
        };
        if score <= 0 || totals.views <= 0 {
            return;
        }
        let is_full = self.heap.len() >= self.entries;
        if is_full && self.heap.peek().is_none_or(|Reverse(worst)| (score, Reverse(id)) < (worst.score, Reverse(&worst.id.0))) {
            return;
        }
        if is_full {
            self.heap.pop();
        }
        self.heap.push(Reverse(Ranked { score, id: Reverse(Arc::clone(id)), totals }));
    }

    /// The best, best first.
    pub(crate) fn best(self) -> Vec<(Arc<str>, Totals)> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(ranked)| (ranked.id.0, ranked.totals)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By sorting everything.
    fn by_sorting(offered: &[(Arc<str>, Totals)], sort: Sort, entries: usize) -> Vec<(Arc<str>, Totals)> {
        let score = |totals: &Totals| if sort == Sort::Views { totals.views } else { totals.compared - totals.previous };
        let mut all: Vec<_> = offered.iter().filter(|(_, totals)| totals.views > 0 && score(totals) > 0).cloned().collect();
        all.sort_by(|a, b| score(&b.1).cmp(&score(&a.1)).then(a.0.cmp(&b.0)));
        all.truncate(entries);
        all
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(
            offered in prop::collection::btree_map("[a-c]{1,4}", (-3i64..9, -3i64..9, -3i64..9), 0..60), entries in 0usize..12, rising: bool,
        ) {
            let sort = if rising { Sort::Rising } else { Sort::Views };
            let offered: Vec<(Arc<str>, Totals)> =
                offered.into_iter().map(|(id, (views, compared, previous))| (id.into(), Totals { views, compared, previous })).collect();
            let mut ranking = Ranking::new(sort, entries);
            offered.iter().rev().for_each(|(id, totals)| ranking.offer(id, *totals));
            prop_assert_eq!(ranking.best(), by_sorting(&offered, sort, entries));
        }
    }

    #[test]
    fn growth_is_of_what_was_before() {
        let totals = |compared, previous| Totals { views: 1, compared, previous };
        assert_eq!(totals(15, 10).growth(), Some(0.5));
        assert_eq!(totals(0, 10).growth(), Some(-1.0));
        assert_eq!((totals(15, 0).growth(), totals(15, -1).growth()), (None, None));
        assert_eq!(totals(i64::MIN, i64::MAX).change(), 1, "it wraps as sums of counts do");
    }
}
