//! When to write: how many committers are worth waiting for. Pure: times in, decisions out.
//!
//! When a write of n commits ends while m others wait, the n are about to be woken, and in a closed loop each comes back
//! with its next commit a little later. There are two good answers:
//!
//! - **together**: wait for the n, and write n + m at once. A cycle takes one write and the time `g` in which n + m come
//!   back; it commits n + m.
//! - **in turns**: write the m at once if they are half as many, and the n after them. A cycle takes two writes, in which
//!   the others come back unseen.
//!
//! Together wins while `g` is shorter than a write: with few committers. In turns wins when waking and copying take the
//! processor longer than the device needs, and hides the device's time behind that. `g` is measured: the time that past
//! gatherings took, by those who came. (Dividing those who were written together into two halves, to have turns at all
//! costs, was tried: twice the writes cost the processor more than the overlap gains. See docs/design/0002.)
//!
//! Committers that do not come back (they think first, or arrive on their own schedule) make a gathering run into its
//! tender's limit. Each that fails lowers the trust in gatherings; without trust what waits is written at once, and a
//! gathering is tried now and then, to see whether things have changed.

use std::time::Duration;

/// The times are smoothed: a new value weighs an eighth.
const WEIGHT: u64 = 8;
/// Full trust; half of it is enough to gather.
const TRUST_MAX: u32 = 256;
/// Without trust, every so many writes a gathering is tried.
const TRIES_EVERY: u32 = 64;
const WRITE_NS_MAX: u64 = 50_000_000;
/// A committer that takes longer to come back is one that thinks.
const RETURN_NS_MAX: u64 = 1_000_000;

/// The policy's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    target: u32,
    write_ns: u64,
    /// How long one woken committer takes to come back, beside the others.
    return_ns: u64,
    /// When the gathering under way began, and how many were there.
    since: Option<(Duration, u32)>,
    trust: u32,
    untried: u32,
}

impl Default for Gather {
    fn default() -> Gather {
        Gather { target: 1, write_ns: 100_000, return_ns: 5_000, since: None, trust: TRUST_MAX, untried: 0 }
    }
}

impl Gather {
    /// As if everyone took long to come back: batches are written in turns.
    #[cfg(all(test, seawall_shuttle))]
    pub(super) fn slow() -> Gather {
        Gather { return_ns: RETURN_NS_MAX, ..Gather::default() }
    }

    /// How many should wait before the open batch is written.
    pub(super) fn target(&self) -> u32 {
        self.target
    }

    /// Whether others are worth waiting for.
    pub(super) fn is_waiting(&self) -> bool {
        self.target > 1
    }

    /// How long a write takes.
    pub(super) fn write_time(&self) -> Duration {
        Duration::from_nanos(self.write_ns)
    }

    /// How long the tender of a batch that nobody writes waits for `waiting` to become as many as are expected.
    pub(super) fn patience(&self, waiting: u32) -> Duration {
        let missing = u64::from(self.target.saturating_sub(waiting));
        let twice = Duration::from_nanos(2 * self.return_ns.saturating_mul(missing));
        let write = self.write_time();
        twice.clamp(write / 2, write * 2)
    }

    /// The first to come leads: it was told to.
    pub(super) fn hand_over(&mut self) {
        self.target = 1;
        self.since = None;
    }

    /// A write begins, for which `commits` wait.
    pub(super) fn begins(&mut self, now: Duration, commits: u32) {
        let Some((since, had)) = self.since.take() else { return };
        let came = commits.saturating_sub(had);
        if commits < self.target {
            self.trust -= self.trust / 8;
            return;
        }
        self.trust += (TRUST_MAX - self.trust) / 8 + 1;
        self.trust = self.trust.min(TRUST_MAX);
        let took = nanos(now.saturating_sub(since));
        if let Some(each) = took.checked_div(u64::from(came)) {
            self.return_ns = smooth(self.return_ns, each.min(RETURN_NS_MAX));
        }
    }

    /// A write of `n` that took so long ended now, while `m` wait. True if those should be written at once.
    pub(super) fn ended(&mut self, now: Duration, took: Duration, n: u32, m: u32) -> bool {
        self.write_ns = smooth(self.write_ns, nanos(took).min(WRITE_NS_MAX));
        let all = n + m;
        let returning = self.return_ns.saturating_mul(u64::from(all));
        let trusts = self.trust >= TRUST_MAX / 2 || self.untried >= TRIES_EVERY;
        self.untried = if trusts { 0 } else { self.untried + 1 };
        let together = returning <= self.write_ns && trusts;
        if !together && m > 0 && m >= n / 2 {
            self.target = n.max(1);
            self.since = None;
            return true;
        }
        self.target = all.max(1);
        self.since = (self.target > m).then_some((now, m));
        false
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn smooth(old: u64, new: u64) -> u64 {
    (old * (WEIGHT - 1) + new) / WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Duration = Duration::from_micros(80);

    /// `n` committers in a closed loop, each back `each` after it was woken: what is written per cycle, in the end.
    fn closed_loop(n: u32, each: Duration) -> (u32, bool) {
        let mut gather = Gather::default();
        let (mut now, mut waiting) = (Duration::ZERO, n);
        let mut last = (0, false);
        for _ in 0..200 {
            let written = waiting;
            gather.begins(now, written);
            now += WRITE;
            // Those who were not in the write come back beside it.
            let back = (n - written).min((WRITE.as_nanos() / each.as_nanos().max(1)) as u32);
            let again = gather.ended(now, WRITE, written, back);
            last = (written, again);
            waiting = back;
            if !again {
                let missing = gather.target().saturating_sub(back).min(n - back);
                now += each * missing;
                waiting = back + missing;
            }
            waiting = waiting.max(1);
        }
        last
    }

    #[test]
    fn few_that_come_back_quickly_are_written_together() {
        for n in [1, 2, 4, 16, 32] {
            assert_eq!(closed_loop(n, Duration::from_micros(2)).0, n);
        }
    }

    #[test]
    fn those_who_do_not_come_back_are_not_waited_for() {
        let mut gather = Gather::default();
        let mut now = Duration::ZERO;
        // Two arrive during every write, and nobody in answer to one that ended.
        let mut gathered = 0;
        for _ in 0..1000 {
            gather.begins(now, 2);
            now += WRITE;
            gathered += u32::from(!gather.ended(now, WRITE, 2, 2));
            now += WRITE / 2;
        }
        assert!(gathered < 60, "{gathered} of 1000 writes waited in vain");
    }

    #[test]
    fn trust_comes_back() {
        let mut gather = Gather { trust: 0, ..Gather::default() };
        let mut now = Duration::ZERO;
        for _ in 0..2000 {
            let again = gather.ended(now, WRITE, 1, 1);
            now += Duration::from_micros(3);
            gather.begins(now, if again { 1 } else { gather.target() });
            now += WRITE;
        }
        assert!(gather.trust > TRUST_MAX / 2);
    }

    #[test]
    fn many_are_written_in_turns() {
        let mut gather = Gather { return_ns: 2_000, write_ns: 80_000, ..Gather::default() };
        assert!(gather.ended(Duration::ZERO, WRITE, 100, 60));
        assert!(!gather.ended(Duration::ZERO, WRITE, 20, 12), "few are written together");
        assert_eq!(gather.target(), 32);
        assert!(!gather.ended(Duration::ZERO, WRITE, 100, 10), "a few latecomers wait for the many");
    }
}
