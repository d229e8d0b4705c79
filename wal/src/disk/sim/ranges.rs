//! Sets of numbers, kept as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of numbers that costs by the range, not by the number. Ranges are disjoint and never touch.
#[derive(Clone, Debug, Default)]
pub(super) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&from, &to)) = self.0.range(..=end).next_back().filter(|(_, to)| **to >= start) {
            (start, end) = (start.min(from), end.max(to));
            self.0.remove(&from);
        }
        self.0.insert(start, end);
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        for hit in self.within(&range) {
            let Some((&from, &to)) = self.0.range(..=hit.start).next_back() else { continue };
            self.0.remove(&from);
            if from < hit.start {
                self.0.insert(from, hit.start);
            }
            if hit.end < to {
                self.0.insert(hit.end, to);
            }
        }
    }

    /// The members of `range`, in order.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        if range.is_empty() {
            return found;
        }
        let first = self.0.range(..=range.start).next_back().map_or(range.start, |(from, _)| *from);
        for (&from, &to) in self.0.range(first..range.end) {
            let hit = from.max(range.start)..to.min(range.end);
            if !hit.is_empty() {
                found.push(hit);
            }
        }
        found
    }

    pub(super) fn count_within(&self, range: &Range<u64>) -> u64 {
        self.within(range).iter().map(|hit| hit.end - hit.start).sum()
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::RangeSet;
    use crate::runtime::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn behaves_like_a_set_of_numbers() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (mut ranges, mut model) = (RangeSet::default(), BTreeSet::new());
            for _ in 0..60 {
                let start = rng.below(64);
                let range = start..start + rng.below(12);
                if rng.chance(1, 2) {
                    ranges.insert(range.clone());
                    model.extend(range);
                } else {
                    ranges.remove(range.clone());
                    model.retain(|number| !range.contains(number));
                }
                let all: Vec<u64> = ranges.within(&(0..u64::MAX)).into_iter().flatten().collect();
                assert_eq!(all, model.iter().copied().collect::<Vec<_>>());
                assert_eq!(ranges.count(), model.len() as u64);
                assert_eq!(ranges.count_within(&(10..30)), model.range(10..30).count() as u64);
            }
        }
    }
}
