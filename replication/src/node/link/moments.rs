//! When which end of the log was durable, and how fast bytes go by. Pure: times are microseconds of one clock.

use seawall_wal::Lsn;
use std::collections::VecDeque;

/// Moments that are remembered; of more, the older ones are told less finely.
const MOMENTS_MAX: usize = 2048;
/// A moment may last so much of its age: some 700 of them reach back over a month.
const PART_OF_AGE: u64 = 16;
/// What becomes durable within so long is of one moment.
const SPACING_US: u64 = 10_000;

/// Records that became durable at about one time.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Where the last of them ends.
    end: Lsn,
    /// When the first was durable, and the last.
    since: u64,
    until: u64,
}

/// In the order of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments(VecDeque<Moment>);

impl Moments {
    /// All below is durable at that time.
    pub(super) fn note(&mut self, end: Lsn, at: u64) {
        match self.0.back_mut() {
            Some(last) if last.end >= end => return,
            Some(last) if at < last.since.saturating_add(SPACING_US) => {
                (last.end, last.until) = (end, at);
                return;
            }
            _ => self.0.push_back(Moment { end, since: at, until: at }),
        }
        if self.0.len() > MOMENTS_MAX {
            self.thin_out(at);
        }
    }

    /// Neighbours become one if they are near each other beside how long ago they were: who lags seems a little more behind, never
    /// less.
    fn thin_out(&mut self, now: u64) {
        let mut thinned: VecDeque<Moment> = VecDeque::with_capacity(MOMENTS_MAX);
        for moment in self.0.drain(..) {
            match thinned.back_mut() {
                Some(before)
                    if moment.until.saturating_sub(before.since)
                        <= now.saturating_sub(moment.until) / PART_OF_AGE =>
                {
                    (before.end, before.until) = (moment.end, moment.until);
                }
                _ => thinned.push_back(moment),
            }
        }
        self.0 = thinned;
    }

    /// When the oldest record was durable that who has all below `have` has not.
    pub(super) fn missing_since(&self, have: Lsn) -> Option<u64> {
        let behind = self.0.partition_point(|moment| moment.end <= have);
        self.0.get(behind).map(|moment| moment.since)
    }
}

/// Seconds over which a rate is a mean.
const SECONDS: u64 = 5;
const SECOND_US: u64 = 1_000_000;

/// Bytes a second.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    /// By second, the current one last.
    seconds: VecDeque<(u64, u64)>,
}

impl Rate {
    pub(super) fn add(&mut self, now: u64, bytes: u64) {
        let second = now / SECOND_US;
        match self.seconds.back_mut() {
            Some((last, sum)) if *last >= second => *sum += bytes,
            _ => self.seconds.push_back((second, bytes)),
        }
        while self.seconds.front().is_some_and(|(at, _)| at + SECONDS < second) {
            self.seconds.pop_front();
        }
    }

    /// Over the last five seconds, the current one as far as it has come.
    pub(super) fn per_second(&self, now: u64) -> u64 {
        let first = (now / SECOND_US).saturating_sub(SECONDS - 1);
        let bytes: u64 = self.seconds.iter().filter(|(at, _)| *at >= first).map(|(_, sum)| sum).sum();
        let over = now.saturating_sub(first * SECOND_US).max(SECOND_US);
        u64::try_from(u128::from(bytes) * u128::from(SECOND_US) / u128::from(over)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]

    use super::*;

    #[test]
    fn what_is_missing_is_as_old_as_its_oldest_record() {
        let mut moments = Moments::default();
        assert_eq!(moments.missing_since(Lsn(0)), None);
        moments.note(Lsn(100), 1_000_000);
        moments.note(Lsn(90), 1_500_000);
        moments.note(Lsn(200), 2_000_000);
        // Of one moment with the one before.
        moments.note(Lsn(210), 2_000_000 + SPACING_US - 1);
        moments.note(Lsn(300), 3_000_000);
        let since = |have| moments.missing_since(Lsn(have));
        assert_eq!((since(0), since(99)), (Some(1_000_000), Some(1_000_000)));
        assert_eq!((since(100), since(209)), (Some(2_000_000), Some(2_000_000)));
        assert_eq!((since(210), since(299), since(300)), (Some(3_000_000), Some(3_000_000), None));
    }

    #[test]
    fn thinned_out_moments_are_never_too_late_and_off_by_a_part_of_their_age() {
        let mut moments = Moments::default();
        let (step, last) = (SPACING_US, 200_000);
        for n in 1..=last {
            moments.note(Lsn(n * 10), n * step);
            assert!(moments.0.len() <= MOMENTS_MAX);
        }
        let now = last * step;
        for have in (0..last).step_by(7) {
            // The record behind `have * 10` was durable with the next step.
            let (exact, found) = ((have + 1) * step, moments.missing_since(Lsn(have * 10)).unwrap());
            assert!(found <= exact, "{have}: {found} is later than {exact}");
            let (age, off) = (now - exact, exact - found);
            assert!(off <= age / PART_OF_AGE + SPACING_US, "{have}: {off} µs off at an age of {age}");
        }
        assert_eq!(moments.missing_since(Lsn(0)), Some(step), "the oldest is kept for ever");
        assert_eq!(moments.missing_since(Lsn(last * 10)), None);
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(0), 0);
        (0..100).for_each(|tenth| rate.add(tenth * 100_000, 100));
        assert_eq!(rate.per_second(9_999_999), 1000);
        // Half of the window is silence.
        assert_eq!(rate.per_second(12_000_000), 2000 * 1_000_000 / 4_000_000);
        assert_eq!(rate.per_second(15_000_000), 0);
        // A link that has only just begun is not divided by time that was not there.
        let mut young = Rate::default();
        young.add(500_000, 700);
        assert_eq!(young.per_second(600_000), 700);
    }
}
