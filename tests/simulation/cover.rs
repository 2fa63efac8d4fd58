//! Counts how often each special case occurred, so that a workload which has become too tame is noticed.

use std::collections::BTreeMap;

/// Special cases by name.
#[derive(Default)]
pub(crate) struct Cover(BTreeMap<&'static str, u64>);

impl Cover {
    pub(crate) fn hit(&mut self, case: &'static str) {
        self.add(case, 1);
    }

    pub(crate) fn hit_if(&mut self, case: &'static str, occurred: bool) {
        self.add(case, u64::from(occurred));
    }

    pub(crate) fn add(&mut self, case: &'static str, times: u64) {
        *self.0.entry(case).or_default() += times;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(case, times)| self.add(case, *times));
    }

    /// The names of cases that did not occur.
    pub(crate) fn missing(&self, wanted: &[&'static str]) -> Vec<&'static str> {
        wanted.iter().copied().filter(|case| self.0.get(case).is_none_or(|times| *times == 0)).collect()
    }

    pub(crate) fn report(&self) -> String {
        self.0.iter().map(|(case, times)| format!("{times:>9}  {case}\n")).collect()
    }
}
