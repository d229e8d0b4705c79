//! What machines wait for. Pure.
//!
//! Almost every timer is set again or cleared long before it runs out. So they are in no order: that of the soonest is known, or
//! of one that was sooner and is there no more. When that comes, all are looked at.

use crate::id::NodeId;
use crate::proto::Timer;
use crate::site::Key;
use std::collections::BTreeMap;

/// Of one machine.
#[derive(Clone, Copy)]
struct Both {
    deadline: u64,
    retry: u64,
}

const NEVER: u64 = u64::MAX;

impl Both {
    fn of(&mut self, timer: Timer) -> &mut u64 {
        match timer {
            Timer::Deadline => &mut self.deadline,
            Timer::Retry => &mut self.retry,
        }
    }

    fn soonest(self) -> u64 {
        self.deadline.min(self.retry)
    }
}

/// The timers of all machines.
pub(super) struct Timers {
    set: BTreeMap<(NodeId, Key), Both>,
    /// None is before.
    soonest: u64,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers { set: BTreeMap::new(), soonest: NEVER }
    }
}

impl Timers {
    pub(super) fn set(&mut self, node: NodeId, key: Key, timer: Timer, at: u64) {
        let both = self.set.entry((node, key)).or_insert(Both { deadline: NEVER, retry: NEVER });
        *both.of(timer) = at;
        self.soonest = self.soonest.min(at);
    }

    /// A machine has ended.
    pub(super) fn clear(&mut self, node: NodeId, key: Key) {
        self.set.remove(&(node, key));
    }

    /// A node is gone.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.set.retain(|(of, _), _| *of != node);
    }

    /// Nothing is due before.
    pub(super) fn soonest(&self) -> u64 {
        self.soonest
    }

    /// What is due, in its order, to be [taken](Timers::take); if nothing is, when something is becomes known.
    pub(super) fn due(&mut self, now: u64) -> Option<Vec<(u64, NodeId, Key, Timer)>> {
        if now < self.soonest {
            return None;
        }
        let mut due = Vec::new();
        for (&(node, key), both) in &self.set {
            for (at, timer) in [(both.deadline, Timer::Deadline), (both.retry, Timer::Retry)] {
                if at <= now {
                    due.push((at, node, key, timer));
                }
            }
        }
        if due.is_empty() {
            self.soonest = self.set.values().map(|both| both.soonest()).min().unwrap_or(NEVER);
            return None;
        }
        due.sort_unstable();
        Some(due)
    }

    /// Whether it is still set to this time: then it is so no more.
    pub(super) fn take(&mut self, node: NodeId, key: Key, timer: Timer, at: u64) -> bool {
        let set = self.set.get_mut(&(node, key)).map(|both| both.of(timer));
        set.filter(|set| **set == at).map(|set| *set = NEVER).is_some()
    }
}
