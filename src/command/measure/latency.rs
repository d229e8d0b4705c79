//! How long things took: an HDR histogram (Gil Tene's; three digits count), and what is told of it.

use crate::command::{Failure, Outcome};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is longer counts as this long: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// Bars of a chart in which each is 10^(1/20), about an eighth, longer than the one before.
const BARS_PER_DECADE: f64 = 20.0;

/// Times in ns; merging those of several threads loses nothing.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

/// The figures of a distribution, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

/// So many took between `from_us` and `to_us`. In JSON `[from, to, count]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bar(pub(crate) f64, pub(crate) f64, pub(crate) u64);

impl Latency {
    pub(crate) fn new() -> Outcome<Latency> {
        let made = Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS);
        made.map(Latency).map_err(|error| Failure::error(format!("making a histogram: {error}")))
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.record_n(took, 1);
    }

    /// Counts `n` things that took about as long.
    pub(crate) fn record_n(&mut self, took: Duration, n: u64) {
        self.0.saturating_record_n(u64::try_from(took.as_nanos()).unwrap_or(LONGEST_NS), n);
    }

    pub(crate) fn merge(&mut self, other: &Latency) -> Outcome {
        self.0.add(&other.0).map_err(|error| Failure::error(format!("merging histograms: {error}")))
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(self.0.value_at_quantile(quantile));
        Quantiles {
            mean_us: self.0.mean() / 1e3,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(self.0.max()),
        }
    }

    /// The distribution in bars of equal width on a logarithmic axis, those of count 0 left out.
    pub(crate) fn bars(&self) -> Vec<Bar> {
        let edge = |number: f64| 10f64.powf(number / BARS_PER_DECADE) / 1e3;
        let mut bars: Vec<(f64, Bar)> = Vec::new();
        for step in self.0.iter_recorded() {
            let value = step.value_iterated_to().max(1) as f64;
            let number = (value.log10() * BARS_PER_DECADE).floor();
            let count = step.count_since_last_iteration();
            match bars.last_mut() {
                Some((last, bar)) if *last == number => bar.2 += count,
                _ => bars.push((number, Bar(edge(number), edge(number + 1.0), count))),
            }
        }
        bars.into_iter().map(|(_, bar)| bar).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]

    use super::*;

    fn of(us: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::new().unwrap();
        us.into_iter().for_each(|us| latency.record(Duration::from_micros(us)));
        latency
    }

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected / 900.0
    }

    #[test]
    fn merged_threads_tell_the_same_as_one() {
        let all = of(1..=10_000);
        let mut merged = Latency::new().unwrap();
        for thread in 0..7 {
            merged.merge(&of((1..=10_000).filter(|us| us % 7 == thread))).unwrap();
        }
        assert_eq!(merged.0.len(), 10_000);
        assert_eq!(merged.quantiles(), all.quantiles());
        assert_eq!(merged.bars(), all.bars());
        let found = merged.quantiles();
        assert!(near(found.p50_us, 5_000.0) && near(found.p99_us, 9_900.0), "{found:?}");
        assert!(near(found.p999_us, 9_990.0) && near(found.max_us, 10_000.0), "{found:?}");
        assert!(near(found.mean_us, 5_000.5), "{found:?}");
    }

    #[test]
    fn what_is_longer_than_an_hour_still_counts() {
        let mut latency = of([1]);
        latency.record_n(Duration::from_secs(1 << 40), 99);
        assert_eq!(latency.0.len(), 100);
        assert!(near(latency.quantiles().p50_us, 3.6e9), "{:?}", latency.quantiles());
        assert_eq!(Latency::new().unwrap().quantiles(), Quantiles::default());
    }

    #[test]
    fn bars_hold_each_value_once_and_do_not_overlap() {
        let latency = of((1..=1000).map(|n| n * n));
        let bars = latency.bars();
        assert_eq!(bars.iter().map(|bar| bar.2).sum::<u64>(), 1000);
        assert!(bars.iter().all(|Bar(from, to, _)| (to / from - 10f64.powf(0.05)).abs() < 1e-9));
        assert!(bars.windows(2).all(|pair| pair[0].1 <= pair[1].0 * 1.000_001), "{bars:?}");
        assert!(bars[0].0 <= 1.0 && bars[bars.len() - 1].1 >= 1e6 * 0.999);
        assert!(Latency::new().unwrap().bars().is_empty());
    }
}
