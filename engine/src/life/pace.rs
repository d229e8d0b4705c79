//! How the background's checkpoints stay out of the way of commits, and how they hurry.
//!
//! A thread whose priority was lowered cannot take that back, and one at the lowest starves beside busy ones: whoever
//! waits for its checkpoint waits for ever. So the thread that folds keeps its priority and works in short *turns*. For
//! each it asks a second thread, which does nothing else and has the lowest priority: that it got to run shows that a
//! processor has time to spare. When writers are held up, or somebody waits for the checkpoint, turns are not asked for.
//!
//! ```text
//! seawall-fold   (normal)   work ─► ask ─► wait ─────► work ─► ask …          hurry: no more asking
//! seawall-pace   (lowest)            └► runs, gives ──┘
//! ```
//!
//! Beside eight busy threads on two processors a lone committer so keeps the rate that it has beside them without a
//! checkpoint; and a delta that runs full is folded at once.

use crate::sync::{AtomicBool, AtomicU32, Ordering};
use seawall_wal::Runtime;
use std::sync::Arc;
use std::time::Duration;

/// How long a turn is; longer after one that was given at once.
const TURN: Duration = Duration::from_micros(300);
const TURN_LONG: Duration = Duration::from_millis(2);
/// A turn that comes within this time comes at once.
const AT_ONCE: Duration = Duration::from_micros(150);
/// A turn is taken if none was given for so long: nobody's checkpoint starves wholly.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Changes between two looks at the clock.
const STRIDE: u32 = 16;

/// Turns, asked for and given.
pub(crate) struct Pace {
    runtime: Arc<dyn Runtime>,
    /// Whether the checkpoint in hand works in turns.
    is_on: AtomicBool,
    is_urgent: AtomicBool,
    /// Those who wait for the checkpoint in hand to end, whatever it is called to calm meanwhile.
    waiting: AtomicU32,
    is_stopping: AtomicBool,
    /// Turns asked for; what the giver sleeps on.
    asked: AtomicU32,
    given: AtomicU32,
    /// Changes with every turn given and every call to hurry; what the asker sleeps on.
    moved: AtomicU32,
}

impl Pace {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Pace {
        Pace {
            runtime,
            is_on: AtomicBool::new(false),
            is_urgent: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            is_stopping: AtomicBool::new(false),
            asked: AtomicU32::new(0),
            given: AtomicU32::new(0),
            moved: AtomicU32::new(0),
        }
    }

    /// From here on the checkpoint in hand works in turns, or does not. Under the checkpoints' latch.
    pub(crate) fn set_on(&self, yes: bool) {
        self.is_on.store(yes, Ordering::Release);
    }

    /// Writers are held up: the checkpoint in hand takes no turns any more, nor does the next, until [`calm`](Self::calm).
    pub(crate) fn hurry(&self) {
        if !self.is_urgent.swap(true, Ordering::AcqRel) {
            self.moved.fetch_add(1, Ordering::Release);
            self.runtime.wake_all(&self.moved);
        }
    }

    /// Until what comes back is dropped, no checkpoint takes turns: not the one in hand, nor one that begins before whoever
    /// waits has its turn at the latch.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.moved.fetch_add(1, Ordering::Release);
        self.runtime.wake_all(&self.moved);
        Waiting(self)
    }

    /// No writer is held up any more.
    pub(crate) fn calm(&self) {
        self.is_urgent.store(false, Ordering::Release);
    }

    /// For ever in a hurry, and the giver ends.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.moved.fetch_add(1, Ordering::Release);
        self.runtime.wake_all(&self.moved);
        self.asked.fetch_add(1, Ordering::Release);
        self.runtime.wake_all(&self.asked);
    }

    fn is_free(&self) -> bool {
        !self.is_on.load(Ordering::Acquire)
            || self.is_urgent.load(Ordering::Acquire)
            || self.waiting.load(Ordering::Acquire) > 0
            || self.is_stopping.load(Ordering::Acquire)
    }

    /// The turns of one checkpoint, the first of which begins now.
    pub(crate) fn turns(&self) -> Turns<'_> {
        let now = self.runtime.now();
        Turns { pace: self, ends: now + TURN, steps: 0 }
    }

    /// The thread `seawall-pace`.
    pub(crate) fn give_turns(&self) {
        self.runtime.lower_priority();
        while !self.is_stopping.load(Ordering::Acquire) {
            let asked = self.asked.load(Ordering::Acquire);
            if self.given.swap(asked, Ordering::AcqRel) == asked {
                self.runtime.wait(&self.asked, asked, None);
                continue;
            }
            self.moved.fetch_add(1, Ordering::Release);
            self.runtime.wake_all(&self.moved);
        }
    }

    /// Waits for a turn. True if it came at once.
    fn ask(&self) -> bool {
        let start = self.runtime.now();
        let turn = self.asked.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        self.runtime.wake_all(&self.asked);
        loop {
            let seen = self.moved.load(Ordering::Acquire);
            let waited = self.runtime.now().saturating_sub(start);
            if self.given.load(Ordering::Acquire) == turn || self.is_free() || waited >= WAIT_MAX {
                return waited <= AT_ONCE;
            }
            self.runtime.wait(&self.moved, seen, Some(WAIT_MAX - waited));
        }
    }
}

/// Somebody waits for the checkpoint in hand.
#[must_use = "it is waited for only as long as this lives"]
pub(crate) struct Waiting<'a>(&'a Pace);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Where the checkpoint in hand stands in its turn.
pub(crate) struct Turns<'a> {
    pace: &'a Pace,
    ends: Duration,
    steps: u32,
}

impl Turns<'_> {
    /// Between two changes: waits if this turn is over.
    pub(crate) fn step(&mut self) {
        self.steps = self.steps.wrapping_add(1);
        if !self.steps.is_multiple_of(STRIDE) || self.pace.is_free() {
            return;
        }
        if self.pace.runtime.now() < self.ends {
            return;
        }
        let turn = if self.pace.ask() { TURN_LONG } else { TURN };
        self.ends = self.pace.runtime.now() + turn;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_wal::OsRuntime;

    fn steps(pace: &Pace, turns: u32) {
        let mut taken = pace.turns();
        let begun = pace.asked.load(Ordering::Acquire);
        while pace.asked.load(Ordering::Acquire).wrapping_sub(begun) < turns {
            taken.step();
        }
    }

    #[test]
    fn turns_are_given_and_none_are_asked_for_in_a_hurry() {
        let pace = Arc::new(Pace::new(OsRuntime::new()));
        pace.set_on(true);
        let giver = Arc::clone(&pace);
        let thread = pace.runtime.spawn("pace", Box::new(move || giver.give_turns()));
        steps(&pace, 20);
        pace.hurry();
        let asked = pace.asked.load(Ordering::Acquire);
        let mut taken = pace.turns();
        let until = pace.runtime.now() + 4 * TURN_LONG;
        while pace.runtime.now() < until {
            taken.step();
        }
        assert_eq!(pace.asked.load(Ordering::Acquire), asked);
        pace.calm();
        steps(&pace, 2);
        pace.stop();
        assert!(thread.is_ok_and(|thread| !thread.join()));
    }

    #[test]
    fn whoever_waits_for_a_turn_goes_on_when_somebody_hurries_or_nobody_gives() {
        let pace = Arc::new(Pace::new(OsRuntime::new()));
        pace.set_on(true);
        let other = Arc::clone(&pace);
        let thread = pace.runtime.spawn("hurry", Box::new(move || other.hurry()));
        while !pace.is_urgent.load(Ordering::Acquire) {
            pace.ask();
        }
        assert!(pace.ask() || pace.is_free(), "a free one does not wait");
        assert!(thread.is_ok_and(|thread| !thread.join()));
        pace.calm();
        let waiting = (pace.wait(), pace.wait());
        pace.hurry();
        pace.calm();
        drop(waiting.0);
        assert!(pace.is_free(), "there is one who waits");
        drop(waiting.1);
        // Nobody gives any: each takes as long as it may, and no longer.
        assert!(!pace.ask());
    }
}
