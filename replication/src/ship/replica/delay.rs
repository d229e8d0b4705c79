//! How old what is durable at the primary is at least. Pure.

use crate::message::Heartbeat;
use seawall_wal::Lsn;
use std::collections::VecDeque;

/// Moments that are remembered; of more, every second is forgotten, which only makes a replica later.
const MOMENTS_MAX: usize = 1024;

/// Ends of the log, and from when on, by the replica's clock, all below is old enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ages {
    delay_us: u64,
    moments: VecDeque<(Lsn, u64)>,
    ripe: Lsn,
}

impl Ages {
    pub(super) fn new(delay_us: u64) -> Ages {
        Ages { delay_us, moments: VecDeque::new(), ripe: Lsn::ZERO }
    }

    pub(super) fn heard(&mut self, now: u64, beat: Heartbeat) {
        if self.delay_us == 0 || self.moments.back().is_some_and(|(last, _)| *last >= beat.durable) {
            return;
        }
        let age = beat.now_us.saturating_sub(beat.time_us).min(self.delay_us);
        let ripe_at = now.saturating_add(self.delay_us - age);
        // Ends and times ascend together: what stands before is older.
        let ripe_at = self.moments.back().map_or(ripe_at, |(_, last)| ripe_at.max(*last));
        self.moments.push_back((beat.durable, ripe_at));
        if self.moments.len() > MOMENTS_MAX {
            let mut index = 0;
            self.moments.retain(|_| {
                index += 1;
                index % 2 == 0 || index > MOMENTS_MAX
            });
        }
    }

    /// The end of what may be applied.
    pub(super) fn ripe(&mut self, now: u64) -> Lsn {
        if self.delay_us == 0 {
            return Lsn::MAX;
        }
        while let Some((end, _)) = self.moments.front().copied().filter(|(_, at)| *at <= now) {
            self.moments.pop_front();
            self.ripe = self.ripe.max(end);
        }
        self.ripe
    }

    /// When there will be more to apply than this.
    pub(super) fn ripe_at(&self, applied: Lsn) -> Option<u64> {
        self.moments.iter().find(|(end, _)| *end > applied).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(durable: u64, time_us: u64, now_us: u64) -> Heartbeat {
        Heartbeat { durable: Lsn(durable), time_us, now_us, ..Heartbeat::default() }
    }

    #[test]
    fn nothing_is_applied_before_it_is_old_enough() {
        let mut ages = Ages::new(1000);
        assert_eq!(ages.ripe(0), Lsn::ZERO);
        // Two clocks that have nothing to do with each other.
        ages.heard(50, beat(100, 5_000_000, 5_000_400));
        ages.heard(60, beat(200, 5_000_410, 5_000_410));
        assert_eq!(ages.ripe_at(Lsn(0)), Some(650));
        assert_eq!((ages.ripe(649), ages.ripe(650), ages.ripe(1059)), (Lsn::ZERO, Lsn(100), Lsn(100)));
        assert_eq!(ages.ripe(1060), Lsn(200));
    }

    #[test]
    fn many_moments_are_thinned_out_and_never_early() {
        let mut ages = Ages::new(1_000_000);
        (1..=10_000).for_each(|at| ages.heard(at, beat(at * 10, at, at)));
        assert!(ages.moments.len() <= MOMENTS_MAX + 1);
        for now in (1_000_000..1_010_001).step_by(37) {
            assert!(ages.ripe(now).0 <= (now - 1_000_000) * 10);
        }
        assert_eq!(ages.ripe(1_010_000), Lsn(100_000), "the newest is kept");
    }

    #[test]
    fn without_a_delay_all_is_ripe() {
        assert_eq!(Ages::new(0).ripe(0), Lsn::MAX);
    }
}
