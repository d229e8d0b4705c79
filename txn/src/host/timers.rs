//! What machines wait for. Pure.
//!
//! Almost every timer is set again or cleared long before it runs out. So a machine stands in the queue once for the soonest that it
//! has waited for, and what of that is true no more is found out when its time comes: then it is put in again, where it belongs.
//! Those whose machines have ended are taken out together, when they are more than those that have not.

use crate::id::NodeId;
use crate::proto::Timer;
use crate::site::Key;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Of one machine.
#[derive(Clone, Copy)]
struct Both {
    deadline: u64,
    retry: u64,
    /// The soonest time at which it stands in the queue.
    queued: u64,
}

const NEVER: u64 = u64::MAX;
/// So many of machines that have ended are left in the queue in any case.
const ENDED_MIN: usize = 1024;

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
#[derive(Default)]
pub(super) struct Timers {
    set: BTreeMap<(NodeId, Key), Both>,
    queue: BinaryHeap<Reverse<(u64, NodeId, Key)>>,
}

impl Timers {
    pub(super) fn set(&mut self, node: NodeId, key: Key, timer: Timer, at: u64) {
        let unset = Both { deadline: NEVER, retry: NEVER, queued: NEVER };
        let both = self.set.entry((node, key)).or_insert(unset);
        *both.of(timer) = at;
        if at < both.queued {
            both.queued = at;
            self.queue.push(Reverse((at, node, key)));
            self.drop_ended();
        }
    }

    /// A machine has ended.
    pub(super) fn clear(&mut self, node: NodeId, key: Key) {
        self.set.remove(&(node, key));
    }

    /// A node is gone.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.set.retain(|(of, _), _| *of != node);
    }

    /// A machine stands there at most twice, but for one whose timers were often set to be sooner.
    fn drop_ended(&mut self) {
        if self.queue.len() > ENDED_MIN + 4 * self.set.len() {
            let set = &self.set;
            self.queue.retain(|Reverse((at, node, key))| {
                set.get(&(*node, *key)).is_some_and(|both| both.queued == *at)
            });
        }
    }

    /// Nothing is due before; nor at that time, if what is due by then was not taken out.
    pub(super) fn soonest(&self) -> u64 {
        self.queue.peek().map_or(NEVER, |Reverse((at, ..))| *at)
    }

    /// Takes out what is due, one after the other in the order of their times; if nothing is, when something is becomes known.
    pub(super) fn take_due(&mut self, now: u64) -> Option<(NodeId, Key, Timer)> {
        while let Some(&Reverse((at, node, key))) = self.queue.peek() {
            let both = self.set.get_mut(&(node, key)).filter(|both| both.queued == at);
            let Some(both) = both else {
                // It has ended, or stands elsewhere.
                self.queue.pop();
                continue;
            };
            let soonest = both.soonest();
            if soonest > at {
                both.queued = soonest;
                self.queue.pop();
                if soonest != NEVER {
                    self.queue.push(Reverse((soonest, node, key)));
                }
                continue;
            }
            if at > now {
                return None;
            }
            let timer = if both.deadline == at { Timer::Deadline } else { Timer::Retry };
            *both.of(timer) = NEVER;
            return Some((node, key, timer));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use crate::id::TxnId;
    use crate::message::Role;

    fn key(sequence: u64) -> Key {
        Key { txn: TxnId { coordinator: NodeId(1), epoch: 1, sequence }, role: Role::Coordinator }
    }

    const NODE: NodeId = NodeId(1);

    fn due(timers: &mut Timers, now: u64) -> Vec<(u64, Timer)> {
        std::iter::from_fn(|| timers.take_due(now)).map(|(_, key, timer)| (key.txn.sequence, timer)).collect()
    }

    #[test]
    fn what_is_due_comes_in_its_order_and_once() {
        let mut timers = Timers::default();
        timers.set(NODE, key(1), Timer::Deadline, 30);
        timers.set(NODE, key(1), Timer::Retry, 10);
        timers.set(NODE, key(2), Timer::Retry, 20);
        timers.set(NODE, key(3), Timer::Retry, 5);
        // Later than it was, sooner than it was, and gone.
        timers.set(NODE, key(1), Timer::Retry, 40);
        timers.set(NODE, key(2), Timer::Deadline, 7);
        timers.clear(NODE, key(3));
        assert_eq!(timers.soonest(), 5, "of one that is gone");
        assert_eq!(due(&mut timers, 6), []);
        assert_eq!(timers.soonest(), 7);
        assert_eq!(due(&mut timers, 29), [(2, Timer::Deadline), (2, Timer::Retry)]);
        assert_eq!(due(&mut timers, 100), [(1, Timer::Deadline), (1, Timer::Retry)]);
        assert_eq!((due(&mut timers, NEVER), timers.soonest()), (vec![], NEVER));
        timers.set(NODE, key(1), Timer::Retry, 200);
        timers.forget(NODE);
        assert_eq!((due(&mut timers, NEVER), timers.soonest()), (vec![], NEVER));
    }

    /// As a list that is searched in full has it.
    #[test]
    fn any_order_of_calls_comes_to_what_a_list_comes_to() {
        let mut timers = Timers::default();
        let mut list: Vec<(u64, u64, Timer)> = Vec::new();
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for now in 0..20_000 {
            let sequence = next(50);
            let timer = if next(2) == 0 { Timer::Deadline } else { Timer::Retry };
            match next(4) {
                0 => {
                    timers.clear(NODE, key(sequence));
                    list.retain(|(_, of, _)| *of != sequence);
                }
                _ => {
                    let at = now + 1 + next(if timer == Timer::Deadline { 3000 } else { 60 });
                    timers.set(NODE, key(sequence), timer, at);
                    list.retain(|(_, of, which)| (*of, *which) != (sequence, timer));
                    list.push((at, sequence, timer));
                }
            }
            list.sort_unstable();
            let count = list.iter().take_while(|(at, ..)| *at <= now).count();
            let expected: Vec<_> = list.drain(..count).map(|(_, of, timer)| (of, timer)).collect();
            assert_eq!(due(&mut timers, now), expected);
            assert_eq!(timers.soonest(), list.first().map_or(NEVER, |(at, ..)| *at));
            assert!(timers.queue.len() <= ENDED_MIN + 4 * 50 + 1);
        }
    }

    #[test]
    fn machines_that_have_ended_do_not_pile_up() {
        let mut timers = Timers::default();
        for sequence in 0..100_000 {
            timers.set(NODE, key(sequence), Timer::Deadline, 10_000_000 + sequence);
            timers.set(NODE, key(sequence), Timer::Retry, 50_000 + sequence);
            timers.clear(NODE, key(sequence));
        }
        assert!(timers.queue.len() <= ENDED_MIN + 4, "{}", timers.queue.len());
    }
}
