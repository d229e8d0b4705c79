//! Who is prepared, for whoever asks for all of them, or how many they are.
//!
//! Apart from the [`Table`](super::table::Table), whose lock every commit takes: going through ten thousand takes a while, and
//! commits do not wait for it. Votes and outcomes do, for a page.

use super::branch::Branch;
use crate::Lsn;
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Changed under the sequencer's lock, and looked at without it.
#[derive(Default)]
pub(crate) struct Roster {
    /// Open, or ended by an operator and not forgotten; by serial number.
    listed: Mutex<BTreeMap<u64, Arc<Branch>>>,
    open: AtomicU64,
    bytes: AtomicU64,
}

impl Roster {
    pub(super) fn enter(&self, branch: &Arc<Branch>) {
        self.listed.lock().insert(branch.serial, Arc::clone(branch));
    }

    pub(super) fn leave(&self, serial: u64) {
        let left = self.listed.lock().remove(&serial);
        drop(left);
    }

    pub(super) fn resize(&self, open: usize, bytes: u64) {
        self.open.store(open as u64, Ordering::SeqCst);
        self.bytes.store(bytes, Ordering::SeqCst);
    }

    /// How many are open, and the bytes of what they hold.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.open.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }

    /// Some of those that are visible, from a serial number on.
    pub(crate) fn page(&self, from: u64, max: usize, visible: Lsn) -> Vec<Arc<Branch>> {
        let listed = self.listed.lock();
        let from = listed.range(from..).map(|(_, branch)| branch);
        from.filter(|branch| branch.is_visible(visible)).take(max).map(Arc::clone).collect()
    }
}
