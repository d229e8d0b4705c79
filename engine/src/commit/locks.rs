//! Row locks for those who ask for them, one holder a row, first come first served.
//!
//! ```text
//!         free                       queue empty, or time is over
//! lock ─────────► held ──────► …     ┌───────────────────────────► LockTimeout
//!   │ held by another                │
//!   ├──────────────────► queued ─────┤ the holder ends: handed over, held
//!   └► the queue would wait for itself: Deadlock
//! ```
//!
//! A lock is not given back to be fought for: whoever ends hands it to the first in the queue, under the table's lock,
//! and wakes it. So nobody overtakes, and a wake-up cannot be lost: the waiter's word says that it has the lock before it
//! is woken, and it looks at the word before it sleeps. Who gives up looks once more under the table's lock; what was
//! handed to it in that moment is its own.
//!
//! *Deadlocks.* A transaction waits for one row at a time, and a row has one holder, so who waits for whom is a chain, not
//! a graph. Before somebody queues up, the chain is followed from the holder on; if it leads back, the one who closes the
//! circle is the victim. A handover closes none: who gets a lock does not wait any more.
//!
//! Locks keep those in order who ask for them, and nobody else: a commit does not look at them. Whoever writes a row
//! without its lock is caught by validation, as ever: of the two, the first to commit wins.

#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::{Error, Result};
use seawall_wal::Runtime;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

type Key = Box<[u8]>;

const WAITING: u32 = 0;
const GRANTED: u32 = 1;

struct Waiter {
    owner: u64,
    word: AtomicU32,
}

struct Row {
    holder: u64,
    queue: VecDeque<Arc<Waiter>>,
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<u32, BTreeMap<Key, Row>>,
    /// The row that an owner waits for.
    waits: BTreeMap<u64, (u32, Key)>,
}

impl Table {
    fn row(&mut self, keyspace: u32, key: &[u8]) -> Option<&mut Row> {
        self.rows.get_mut(&keyspace)?.get_mut(key)
    }

    /// Whether `owner` stands at the end of the chain of those who wait, from this holder on.
    fn leads_to(&self, mut holder: u64, owner: u64) -> bool {
        // The chain has no circle; nobody stands in it twice.
        for _ in 0..=self.waits.len() {
            if holder == owner {
                return true;
            }
            let Some((keyspace, key)) = self.waits.get(&holder) else { return false };
            let Some(row) = self.rows.get(keyspace).and_then(|rows| rows.get(key)) else { return false };
            holder = row.holder;
        }
        false
    }

    /// The holder ends: the row is handed to the first in the queue, or free.
    fn hand_over(&mut self, keyspace: u32, key: &[u8]) -> Option<Arc<Waiter>> {
        let rows = self.rows.get_mut(&keyspace)?;
        let row = rows.get_mut(key)?;
        let Some(next) = row.queue.pop_front() else {
            rows.remove(key);
            if rows.is_empty() {
                self.rows.remove(&keyspace);
            }
            return None;
        };
        row.holder = next.owner;
        self.waits.remove(&next.owner);
        next.word.store(GRANTED, Ordering::SeqCst);
        Some(next)
    }
}

/// Who holds which row, and who waits for it.
pub(crate) struct Locks {
    runtime: Arc<dyn Runtime>,
    table: Mutex<Table>,
    next_owner: AtomicU64,
}

impl Locks {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Arc<Locks> {
        Arc::new(Locks { runtime, table: Mutex::default(), next_owner: AtomicU64::new(1) })
    }

    /// An owner that holds nothing yet.
    pub(crate) fn owner(self: &Arc<Locks>) -> Held {
        let owner = self.next_owner.fetch_add(1, Ordering::Relaxed);
        Held { locks: Arc::clone(self), owner, rows: Vec::new(), bytes: 0 }
    }

    /// Rows that are held, and owners that wait.
    #[cfg(test)]
    pub(crate) fn count(&self) -> (usize, usize) {
        let table = self.table.lock();
        (table.rows.values().map(BTreeMap::len).sum(), table.waits.len())
    }

    /// The lock at once, or a place in the queue.
    fn ask(&self, owner: u64, keyspace: u32, key: &[u8], is_patient: bool) -> Result<Asked> {
        #[cfg(seawall_shuttle)]
        if errs(Misorder::LookThenQueue) {
            let is_held = self.table.lock().row(keyspace, key).is_some();
            if !is_held {
                let row = Row { holder: owner, queue: VecDeque::new() };
                self.table.lock().rows.entry(keyspace).or_default().insert(key.into(), row);
                return Ok(Asked::Granted);
            }
        }
        let mut table = self.table.lock();
        let Some(row) = table.row(keyspace, key) else {
            let row = Row { holder: owner, queue: VecDeque::new() };
            table.rows.entry(keyspace).or_default().insert(key.into(), row);
            return Ok(Asked::Granted);
        };
        let holder = row.holder;
        if holder == owner {
            return Ok(Asked::Had);
        }
        let is_circle = table.leads_to(holder, owner);
        #[cfg(seawall_shuttle)]
        let is_circle = is_circle && !errs(Misorder::OverlookCircle);
        if is_circle {
            return Err(Error::Deadlock);
        }
        if !is_patient {
            return Err(Error::LockTimeout);
        }
        let waiter = Arc::new(Waiter { owner, word: AtomicU32::new(WAITING) });
        if let Some(row) = table.row(keyspace, key) {
            row.queue.push_back(Arc::clone(&waiter));
        }
        table.waits.insert(owner, (keyspace, key.into()));
        Ok(Asked::Queued(waiter))
    }

    /// Sleeps until the lock is handed over, or time is over; with the longest limit it never is.
    fn wait(&self, waiting: &mut Waiting<'_>, limit: Duration) -> Result<()> {
        let is_endless = limit == Duration::MAX;
        let deadline = self.runtime.now().saturating_add(limit);
        loop {
            if waiting.waiter.word.load(Ordering::SeqCst) == GRANTED {
                waiting.is_over = true;
                return Ok(());
            }
            let left = (!is_endless).then(|| deadline.saturating_sub(self.runtime.now()));
            if left == Some(Duration::ZERO) {
                return if waiting.leave() { Err(Error::LockTimeout) } else { Ok(()) };
            }
            self.runtime.wait(&waiting.waiter.word, WAITING, left);
        }
    }

    fn release(&self, rows: &[(u32, Key)]) {
        let next: Vec<Arc<Waiter>> = {
            let mut table = self.table.lock();
            rows.iter().filter_map(|(keyspace, key)| table.hand_over(*keyspace, key)).collect()
        };
        #[cfg(seawall_shuttle)]
        if errs(Misorder::HandOverSilently) {
            return;
        }
        for waiter in next {
            self.runtime.wake_all(&waiter.word);
        }
    }
}

enum Asked {
    Granted,
    Had,
    Queued(Arc<Waiter>),
}

/// A place in a queue; gone when the one who stands there goes, be it by a panic.
struct Waiting<'a> {
    locks: &'a Locks,
    waiter: Arc<Waiter>,
    keyspace: u32,
    key: &'a [u8],
    is_over: bool,
}

impl Waiting<'_> {
    /// Out of the queue. False if the lock was handed over before.
    fn leave(&mut self) -> bool {
        self.is_over = true;
        let mut table = self.locks.table.lock();
        let is_granted = self.waiter.word.load(Ordering::SeqCst) == GRANTED;
        #[cfg(seawall_shuttle)]
        let is_granted = is_granted && !errs(Misorder::LeaveBlindly);
        if is_granted {
            return false;
        }
        table.waits.remove(&self.waiter.owner);
        if let Some(row) = table.row(self.keyspace, self.key) {
            row.queue.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
        }
        true
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over && !self.leave() {
            self.locks.release(&[(self.keyspace, self.key.into())]);
        }
    }
}

/// The locks of one transaction; dropping it hands them on.
pub(crate) struct Held {
    locks: Arc<Locks>,
    owner: u64,
    rows: Vec<(u32, Key)>,
    bytes: usize,
}

/// What a lock takes beside its key, twice: here and in the table.
const LOCK_BYTES: usize = 160;

impl Held {
    /// Takes a row's lock, waiting for it at most so long.
    ///
    /// # Errors
    /// `LockTimeout`; `Deadlock` if it would wait for itself: then it should be dropped.
    pub(crate) fn lock(&mut self, keyspace: u32, key: &[u8], limit: Duration) -> Result<()> {
        match self.locks.ask(self.owner, keyspace, key, !limit.is_zero())? {
            Asked::Had => return Ok(()),
            Asked::Granted => {}
            Asked::Queued(waiter) => {
                let mut waiting = Waiting { locks: &self.locks, waiter, keyspace, key, is_over: false };
                self.locks.wait(&mut waiting, limit)?;
            }
        }
        self.rows.push((keyspace, key.into()));
        self.bytes += LOCK_BYTES + 2 * key.len();
        Ok(())
    }

    /// Memory that the locks take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.rows.is_empty() {
            self.locks.release(&self.rows);
        }
    }
}

#[cfg(all(test, not(seawall_shuttle)))]
mod tests;
