//! Open loop: when each operation is *meant* to begin.
//!
//! A closed loop asks for the next thing when the last one is done. If the store then stands still for a second, a
//! single operation sees it, and all those that real clients would have asked for in that second are never measured:
//! coordinated omission (Gil Tene). An open loop asks at a fixed rate, whatever the store does, and measures each
//! operation from the moment at which it was meant to begin:
//!
//! ```text
//! meant to begin   |----|----|----|----|----|          one every 1/rate, the threads in turn
//! began            |----|---------------||-|-|         late, behind a slow one
//!                            \_____________/           its latency: from "meant to begin" to its end
//! ```
//!
//! What was due and never begun, because the store could not keep up, has waited since it was due: it counts with
//! that time, which is the least that it would have taken.

use std::time::Duration;

const NANOS_PER_S: u128 = 1_000_000_000;
/// So many waits stand for all those that were due: a rate far beyond the store's makes hundreds of millions.
const WAITS_MAX: u64 = 100_000;

/// The moments of one thread of several that share a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    per_second: u64,
    threads: u64,
    thread: u64,
}

impl Schedule {
    /// `thread` of `threads` at `per_second` in all, each at least 1.
    pub(crate) fn new(per_second: u64, threads: u32, thread: u32) -> Schedule {
        let threads = u64::from(threads.max(1));
        Schedule { per_second: per_second.max(1), threads, thread: u64::from(thread) }
    }

    /// When this thread's operation `number` is meant to begin, from the start on.
    pub(crate) fn due(&self, number: u64) -> Duration {
        let overall = u128::from(number) * u128::from(self.threads) + u128::from(self.thread);
        let nanos = overall * NANOS_PER_S / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many of this thread's operations are due before `end`.
    pub(crate) fn due_before(&self, end: Duration) -> u64 {
        // Of all operations, those below this number are.
        let overall = (end.as_nanos() * u128::from(self.per_second)).div_ceil(NANOS_PER_S);
        let ours = overall.saturating_sub(u128::from(self.thread)).div_ceil(u128::from(self.threads));
        u64::try_from(ours).unwrap_or(u64::MAX)
    }

    /// How long those have waited at `end` that are due and were not begun, the first `begun` having been: times,
    /// each with how many it stands for.
    pub(crate) fn waits(&self, begun: u64, end: Duration) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let due = self.due_before(end);
        let step = due.saturating_sub(begun).div_ceil(WAITS_MAX).max(1);
        (begun..due).step_by(usize::try_from(step).unwrap_or(usize::MAX)).map(move |number| {
            let stands_for = step.min(due - number);
            (end.saturating_sub(self.due(number)), stands_for)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn threads_take_turns_at_the_rate() {
        let mut all: Vec<Duration> = Vec::new();
        for thread in 0..3 {
            let schedule = Schedule::new(1000, 3, thread);
            let due = schedule.due_before(SECOND);
            assert!((333..=334).contains(&due), "{due}");
            assert!(schedule.due(due) >= SECOND);
            all.extend((0..due).map(|number| schedule.due(number)));
        }
        all.sort_unstable();
        let expected: Vec<Duration> = (0..1000).map(Duration::from_millis).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn no_rate_loses_or_invents_an_operation() {
        for per_second in [1, 3, 7, 999, 1_000_003, 3_000_000_000] {
            for (threads, millis) in [(1, 1), (4, 10), (7, 333), (64, 1000)] {
                let end = Duration::from_millis(millis);
                let due = |thread| Schedule::new(per_second, threads, thread).due_before(end);
                let all: u64 = (0..threads).map(due).sum();
                assert_eq!(all, (per_second * millis).div_ceil(1000), "{per_second} {threads} {millis}");
            }
        }
        assert_eq!(Schedule::new(0, 0, 0).due_before(SECOND), 1);
    }

    #[test]
    fn what_never_began_has_waited_since_it_was_due() {
        let schedule = Schedule::new(10, 1, 0);
        let waits: Vec<_> = schedule.waits(7, SECOND).collect();
        let ms = Duration::from_millis;
        assert_eq!(waits, [(ms(300), 1), (ms(200), 1), (ms(100), 1)]);
        assert_eq!(schedule.waits(10, SECOND).count(), 0);
        assert_eq!(schedule.waits(11, SECOND).count(), 0);
    }

    #[test]
    fn a_hopeless_rate_is_told_in_bounded_time() {
        let schedule = Schedule::new(1_000_000_000, 1, 0);
        let waits: Vec<_> = schedule.waits(1234, SECOND).collect();
        assert!(waits.len() <= 100_000);
        assert_eq!(waits.iter().map(|(_, stands_for)| stands_for).sum::<u64>(), 1_000_000_000 - 1234);
        assert!(waits.windows(2).all(|pair| pair[0].0 > pair[1].0));
    }
}
