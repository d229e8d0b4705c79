//! How many things ended in each tenth of a second.

use std::time::Duration;

/// The width of a slot.
pub(crate) const SLOT: Duration = Duration::from_millis(100);

/// Counts by slot, over a time that is known beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series(Vec<u64>);

impl Series {
    /// For the whole slots of `length`.
    pub(crate) fn new(length: Duration) -> Series {
        let slots = length.as_nanos() / SLOT.as_nanos();
        Series(vec![0; usize::try_from(slots).unwrap_or(0)])
    }

    /// Counts something that ended `after` the beginning. What ended after the last whole slot is left out: a slot
    /// of which only a part was measured would look like a stall.
    pub(crate) fn record(&mut self, after: Duration, count: u64) {
        let slot = usize::try_from(after.as_nanos() / SLOT.as_nanos()).unwrap_or(usize::MAX);
        if let Some(slot) = self.0.get_mut(slot) {
            *slot += count;
        }
    }

    /// Adds another's counts, slot by slot.
    pub(crate) fn merge(&mut self, other: &Series) {
        for (slot, count) in self.0.iter_mut().zip(&other.0) {
            *slot += count;
        }
    }

    /// The counts, slot by slot.
    pub(crate) fn into_counts(self) -> Vec<u64> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_holds_what_ended_in_it() {
        let ms = Duration::from_millis;
        let mut series = Series::new(ms(350));
        for (after, count) in [(0, 1), (99, 2), (100, 4), (299, 8), (300, 16), (100_000, 32)] {
            series.record(ms(after), count);
        }
        let mut other = Series::new(ms(350));
        other.record(ms(150), 100);
        series.merge(&other);
        assert_eq!(series.into_counts(), [3, 104, 8]);
        assert_eq!(Series::new(ms(99)).into_counts(), [0; 0]);
    }
}
