//! Simulated mappings, and who looks at which bytes.
//!
//! A view of one is what a read of its range gives at that moment, faults included, and from then on a copy: damage, a page
//! that is dropped and a power cut do not show in it, as they need not in a page that stays in memory. What a mapping's
//! owner has promised is watched instead: each change of bytes that somebody has a view of is counted, as
//! [`CHANGED_UNDER_VIEW`]. On a real disk such a reader would have seen other bytes, zeros, or a signal.

use super::fault::Op;
use super::file::SimFile;
use super::names::Inode;
use super::state::State;
use crate::disk::{BlockBytes, Mapping};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What [`SimDisk::counts`](super::SimDisk::counts) calls it.
pub const CHANGED_UNDER_VIEW: &str = "bytes changed under a view of a mapping";

/// The views there are.
#[derive(Debug, Default)]
pub(super) struct Views {
    next: u64,
    /// By offset, so that a change need not look at all.
    views: BTreeMap<(Inode, u64, u64), u64>,
    /// The longest that there ever was.
    bytes_max: u64,
}

impl Views {
    fn begin(&mut self, inode: Inode, offset: u64, bytes: u64) -> u64 {
        self.next += 1;
        self.bytes_max = self.bytes_max.max(bytes);
        self.views.insert((inode, offset, self.next), offset + bytes);
        self.next
    }

    fn end(&mut self, inode: Inode, offset: u64, number: u64) {
        self.views.remove(&(inode, offset, number));
    }

    fn has_any(&self, inode: Inode, range: &Range<u64>) -> bool {
        let from = range.start.saturating_sub(self.bytes_max);
        let near = self.views.range((inode, from, 0)..(inode, range.end, 0));
        near.into_iter().any(|(_, end)| *end > range.start)
    }
}

impl State {
    /// These bytes of a file are about to change.
    pub(super) fn note_change(&mut self, inode: Inode, range: Range<u64>) {
        if !range.is_empty() && self.views.has_any(inode, &range) {
            self.count(CHANGED_UNDER_VIEW);
        }
    }
}

#[derive(Debug)]
pub(super) struct SimMapping {
    pub(super) file: Arc<SimFile>,
    pub(super) bytes: u64,
}

/// Ends a view.
struct Guard {
    /// Kept open, and locked.
    map: Arc<SimMapping>,
    offset: u64,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let file = &self.map.file;
        file.shared.state.lock().views.end(file.inode, self.offset, self.number);
    }
}

impl Mapping for SimMapping {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<BlockBytes> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (file, mut copy) = (&self.file, vec![0; len]);
        let number = file.shared.run(file.call(Op::Read, offset, len as u64), |state, verdict| {
            let (read, _) = file.read_now(state, verdict, &mut copy, offset, false)?;
            if read < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            state.count("mapped");
            Ok(state.views.begin(file.inode, offset, len as u64))
        })?;
        Ok(BlockBytes::copied(copy, Box::new(Guard { map: self, offset, number })))
    }
}
