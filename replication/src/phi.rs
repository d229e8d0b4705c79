//! How likely it is that somebody is gone, by how long nothing was heard. Advice only: nothing that must be right rests on
//! it, for whoever is slow looks the same as whoever is dead.
//!
//! After Hayashibara, Défago, Yared and Katayama, *The φ accrual failure detector* (2004). φ is the negative decimal logarithm
//! of the chance that the next sign of life comes even later than now, if the gaps between signs go on being spread as they
//! were: at φ = 1 one suspicion in 10 is wrong, at φ = 8 one in 100 million. The normal distribution's tail is approximated
//! by a logistic curve, as Akka has it.

use std::collections::VecDeque;

/// Gaps that are remembered.
const GAPS_MAX: usize = 200;

/// Listens for signs of life. Times are microseconds of one clock.
///
/// ```
/// use seawall_replication::phi::Detector;
/// let mut detector = Detector::new(100_000);
/// (0..50).for_each(|beat| detector.heard(beat * 100_000));
/// assert!(detector.phi(4_950_000) < 1.0);
/// assert!(detector.phi(6_000_000) > 8.0);
/// ```
#[derive(Clone, Debug)]
pub struct Detector {
    gaps: VecDeque<u64>,
    /// Their sum and their squares', as f64 would lose what is added and taken away.
    sum: u128,
    squares: u128,
    last: Option<u64>,
    expected_us: u64,
}

impl Detector {
    /// A sign is expected about every so many microseconds; what is observed soon outweighs it.
    pub fn new(expected_us: u64) -> Detector {
        let mut detector = Detector {
            gaps: VecDeque::new(),
            sum: 0,
            squares: 0,
            last: None,
            expected_us: expected_us.max(1),
        };
        let expected = detector.expected_us;
        // A spread to begin with, of a quarter.
        [expected - expected / 4, expected + expected / 4].into_iter().for_each(|gap| detector.remember(gap));
        detector
    }

    /// A sign of life.
    pub fn heard(&mut self, now: u64) {
        if let Some(last) = self.last {
            self.remember(now.saturating_sub(last));
        }
        self.last = Some(self.last.unwrap_or(now).max(now));
    }

    /// How suspicious the silence is; 0 before the first sign.
    pub fn phi(&self, now: u64) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let silent = now.saturating_sub(last) as f64;
        let count = self.gaps.len().max(1) as f64;
        let mean = self.sum as f64 / count;
        let variance = (self.squares as f64 / count - mean * mean).max(0.0);
        // Perfect regularity would make any delay a death.
        let deviation = variance.sqrt().max(self.expected_us as f64 / 10.0);
        let y = (silent - mean) / deviation;
        let e = (-y * (1.5976 + 0.070566 * y * y)).exp();
        let later = if silent > mean { e / (1.0 + e) } else { 1.0 - 1.0 / (1.0 + e) };
        if later <= f64::MIN_POSITIVE { 308.0 } else { -later.log10() }
    }

    fn remember(&mut self, gap: u64) {
        // A gap of an hour tells nothing more than one of a minute.
        let gap = gap.min(self.expected_us.saturating_mul(1000));
        self.gaps.push_back(gap);
        self.sum += u128::from(gap);
        self.squares += u128::from(gap) * u128::from(gap);
        if self.gaps.len() > GAPS_MAX
            && let Some(old) = self.gaps.pop_front()
        {
            self.sum -= u128::from(old);
            self.squares -= u128::from(old) * u128::from(old);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]

    use super::*;
    use seawall_wal::runtime::Rng;

    #[test]
    fn suspicion_grows_with_silence_and_falls_at_a_sign() {
        let mut detector = Detector::new(1_000);
        assert_eq!(detector.phi(1 << 40), 0.0, "nothing was ever heard");
        let mut rng = Rng::new(1);
        let mut now = 0;
        for _ in 0..1000 {
            now += 500 + rng.below(1000);
            detector.heard(now);
            let rising: Vec<f64> = (0..20).map(|step| detector.phi(now + step * 500)).collect();
            assert!(rising.is_sorted(), "{rising:?}");
            assert!(rising[0] < 0.5 && rising.iter().all(|phi| phi.is_finite()));
        }
        assert!(detector.phi(now + 60_000) > 8.0);
    }

    #[test]
    fn a_slow_peer_is_not_a_dead_one() {
        let mut detector = Detector::new(1_000);
        (0..300).for_each(|beat| detector.heard(beat * 50_000));
        assert!(detector.phi(299 * 50_000 + 50_000) < 1.0, "what was seen outweighs what was expected");
    }

    #[test]
    fn a_clock_that_stands_or_jumps_is_no_panic() {
        let mut detector = Detector::new(0);
        [5, 5, 0, u64::MAX, 3].into_iter().for_each(|now| detector.heard(now));
        assert!(detector.phi(0).is_finite() && detector.phi(u64::MAX).is_finite());
    }
}
