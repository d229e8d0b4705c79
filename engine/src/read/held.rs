//! Who holds a snapshot, since when, and how old ones give way.
//!
//! A holder keeps in memory the deltas, and on disk the tree, as they were when it was taken. When memory is short, the
//! oldest holders beyond an age give way: what they held goes, and whoever reads from them is told. A read that is on
//! its way keeps its view until it ends.

use crate::read::view::{Reads, View};
use crate::sync::{AtomicBool, Mutex, Ordering, RwLock};
use crate::{Error, Result};
use seawall_wal::Lsn;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// One snapshot's hold; the last clone's drop gives it up.
pub(crate) struct Hold {
    pub(crate) reads: Arc<Reads>,
    view: RwLock<Option<Arc<View>>>,
    is_expired: AtomicBool,
    pub(crate) lsn: Lsn,
    /// Tells holds at one position apart.
    number: u64,
    pub(crate) since: Duration,
    pub(crate) instance: u64,
}

impl Hold {
    /// What it holds.
    pub(crate) fn view(&self) -> Result<Arc<View>> {
        match &*self.view.read() {
            Some(view) => Ok(Arc::clone(view)),
            None => Err(self.too_old()),
        }
    }

    /// Whether it still holds anything: cheaper than [`view`](Self::view).
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_expired.load(Ordering::Acquire) { Err(self.too_old()) } else { Ok(()) }
    }

    fn too_old(&self) -> Error {
        Error::SnapshotTooOld { oldest: self.reads.holders.oldest().unwrap_or_else(|| self.reads.visible()) }
    }

    fn expire(&self) {
        self.is_expired.store(true, Ordering::Release);
        let view = self.view.write().take();
        // Dropping a delta of millions of rows takes a while: not under the lock.
        drop(view);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.reads.holders.forget(self);
    }
}

/// All holds, oldest first.
#[derive(Default)]
pub(crate) struct Holders(Mutex<Table>);

#[derive(Default)]
struct Table {
    holds: BTreeMap<(Lsn, u64), Known>,
    next: u64,
}

struct Known {
    hold: Weak<Hold>,
    since: Duration,
    is_read_write: bool,
}

impl Holders {
    /// Takes a hold. `look` gives view and position; it is called with the table locked, so that position and
    /// registration are one step, and nothing is given up in between.
    pub(crate) fn take(
        &self,
        reads: &Arc<Reads>,
        look: impl FnOnce() -> (Arc<View>, Lsn),
        since: Duration,
        instance: u64,
        is_read_write: bool,
    ) -> Arc<Hold> {
        let mut table = self.0.lock();
        let (view, lsn) = look();
        let number = table.next;
        table.next += 1;
        let hold = Arc::new(Hold {
            reads: Arc::clone(reads),
            view: RwLock::new(Some(view)),
            is_expired: AtomicBool::new(false),
            lsn,
            number,
            since,
            instance,
        });
        table.holds.insert((lsn, number), Known { hold: Arc::downgrade(&hold), since, is_read_write });
        hold
    }

    fn forget(&self, hold: &Hold) {
        self.0.lock().holds.remove(&(hold.lsn, hold.number));
    }

    /// The lowest position that is held.
    pub(crate) fn oldest(&self) -> Option<Lsn> {
        self.0.lock().holds.first_key_value().map(|((lsn, _), _)| *lsn)
    }

    /// The position of the oldest transaction that may still write.
    pub(crate) fn oldest_read_write(&self) -> Option<Lsn> {
        let table = self.0.lock();
        table.holds.iter().find(|(_, known)| known.is_read_write).map(|((lsn, _), _)| *lsn)
    }

    /// Since when the one that was taken first has been there.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.0.lock().holds.values().map(|known| known.since).min()
    }

    /// While it `is_short`, the oldest hold gives way if it was taken at or before `limit`. The first one's age is
    /// returned, if any did.
    pub(crate) fn expire(&self, limit: Duration, mut is_short: impl FnMut() -> bool) -> Option<Duration> {
        let mut first = None;
        while is_short() {
            let oldest = self.0.lock().holds.values().find_map(|known| known.hold.upgrade());
            let Some(hold) = oldest.filter(|hold| hold.since <= limit) else { break };
            // First it stops to count, then what it holds goes.
            self.forget(&hold);
            hold.expire();
            first.get_or_insert(hold.since);
        }
        first
    }
}
