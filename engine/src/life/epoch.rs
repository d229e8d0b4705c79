//! An epoch's first record. Replicas count for commits only once they have something of their primary's own epoch, and a log whose
//! epoch holds nothing would wait for its first writer to be shown.

use crate::Result;
use crate::life::redone::fenced_by;
use crate::options::Options;
use seawall_wal::{Durability, Kind, Lsn, Wal};

/// Where the epochs began, as a record of the one that the log is written in: on the device when this returns, which is where it
/// ends.
pub(super) fn begin(wal: &Wal) -> Result<Lsn> {
    let timeline = wal.timeline();
    let mut payload = Vec::new();
    payload.extend_from_slice(&timeline.epoch.to_le_bytes());
    let turns = timeline.history.turns();
    payload.extend_from_slice(&(turns.len() as u32).to_le_bytes());
    for turn in turns {
        payload.extend_from_slice(&turn.epoch.to_le_bytes());
        payload.extend_from_slice(&turn.start.0.to_le_bytes());
    }
    loop {
        if let Some(placed) = wal.place(Kind::EPOCH, 0, &payload, Durability::Synced)? {
            wal.wait_for(&placed, None)?;
            return Ok(placed.end);
        }
        wal.make_room(payload.len())?;
    }
}

/// A store is opened whose promotion was cut short between its log's part and the epoch's first record.
pub(super) fn begin_if_due(options: &Options, wal: &Wal) -> Result<()> {
    if options.read_only || options.replica || fenced_by(wal).is_some() {
        return Ok(());
    }
    let timeline = wal.timeline();
    let own = timeline.history.turns().last().filter(|turn| turn.epoch == timeline.epoch);
    if own.is_none_or(|turn| wal.durable_lsn() > turn.start) {
        return Ok(());
    }
    match begin(wal) {
        // The first commit there is room for will do.
        Err(crate::Error::NoSpace) => Ok(()),
        begun => begun.map(drop),
    }
}
