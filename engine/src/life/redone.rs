//! What redo takes and what it comes to; and what of that is shown at once.
#![cfg_attr(
    seawall_shuttle,
    allow(dead_code, unused_imports, reason = "there the log is one that ships nothing")
)]

use crate::commit::sequencer::{Followed, Sequencer};
use crate::life::open::InDoubt;
use crate::options::Options;
#[cfg(not(seawall_shuttle))]
use seawall_wal::Wal;
use seawall_wal::{Kind, Lsn, RecordRef};
use std::collections::VecDeque;

/// The epoch that was promised to another store, if one was: nothing is written in the log's own then.
#[cfg(not(seawall_shuttle))]
pub(super) fn fenced_by(wal: &Wal) -> Option<u64> {
    let timeline = wal.timeline();
    (timeline.promised > timeline.epoch).then_some(timeline.promised)
}

/// What redo has come to.
pub(super) struct Replayed {
    /// Everything below is there.
    pub(super) end: Lsn,
    /// Where records end, if they are not to be shown yet; the last one alone if they will be shown together.
    pub(super) ends: VecDeque<Lsn>,
    /// The last record's frame.
    pub(super) frame: Lsn,
    pub(super) in_doubt: InDoubt,
}

impl Replayed {
    pub(super) fn is_hidden(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Sees to it that what is not to be shown yet is shown when it may be.
    pub(super) fn hide(&self, sequencer: &Sequencer, options: &Options, from: Lsn) {
        if options.replica {
            sequencer.follow(Followed::new(self.ends.clone(), self.end, self.frame));
        } else if let Some(last) = self.ends.back() {
            sequencer.recovered(from, *last, options.ack);
        }
    }
}

/// A record to be redone.
#[derive(Clone, Copy)]
pub(crate) struct Redone<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) kind: Kind,
    pub(crate) payload: &'a [u8],
}

impl<'a> Redone<'a> {
    pub(super) fn of(record: &RecordRef<'a>) -> Redone<'a> {
        Redone { lsn: record.lsn, kind: record.kind, payload: record.payload }
    }
}
