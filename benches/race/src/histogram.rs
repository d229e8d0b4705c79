//! Latencies in nanoseconds, to within 1.6 %: 64 steps to every power of two.

use serde::{Deserialize, Serialize};

const STEP_BITS: u32 = 6;
const STEPS: usize = 1 << STEP_BITS;
const BUCKETS: usize = (64 - STEP_BITS as usize + 1) * STEPS;

pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }

    pub(crate) fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The upper end of the bucket that the quantile falls into, in nanoseconds; never above the largest value.
    pub(crate) fn quantile(&self, q: f64) -> u64 {
        let rank = (self.total as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return upper(index).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn latency(&self) -> Latency {
        let us = |ns: u64| ns as f64 / 1e3;
        Latency {
            p50_us: us(self.quantile(0.5)),
            p99_us: us(self.quantile(0.99)),
            p999_us: us(self.quantile(0.999)),
            max_us: us(self.max),
        }
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = 63 - STEP_BITS - ns.leading_zeros();
    (shift as usize + 1) * STEPS + ((ns >> shift) as usize - STEPS)
}

/// The largest value of a bucket.
fn upper(index: usize) -> u64 {
    let (power, step) = (index / STEPS, index % STEPS);
    if power == 0 {
        return step as u64;
    }
    let shift = power as u32 - 1;
    ((STEPS + step) as u64 + 1).wrapping_shl(shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_and_is_narrow() {
        for ns in (0..64).flat_map(|bit| [1u64 << bit, (1 << bit) + (1 << bit) / 3, u64::MAX >> (63 - bit)]) {
            let index = bucket(ns);
            assert!(upper(index) >= ns, "{ns}");
            assert!(index == 0 || upper(index - 1) < ns, "{ns}");
            assert!((upper(index) - ns) as f64 <= ns as f64 / 64.0 + 1.0, "{ns}");
        }
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let mut ramp = Histogram::new();
        let mut other = Histogram::new();
        for ns in 1..=100_000 {
            if ns % 2 == 0 { ramp.record(ns) } else { other.record(ns) }
        }
        ramp.merge(&other);
        for (q, expected) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0), (1.0, 100_000.0)] {
            let found = ramp.quantile(q) as f64;
            assert!((found / expected - 1.0).abs() < 0.02, "{q}: {found}");
        }
    }
}
